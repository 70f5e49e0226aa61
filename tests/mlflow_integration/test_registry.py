from __future__ import annotations

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from tsclust_model.errors import ConfigurationError, MLflowIntegrationError
from tsclust_model.mlflow_integration.pyfunc import log_generation
from tsclust_model.mlflow_integration.registry import (
    STATE_TAG,
    alias_version,
    check_model_name,
    load_generation,
    register,
    set_champion,
)

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def logged(store, generation):
    with mlflow.start_run():
        return log_generation(generation)


def test_the_champion_moves_and_the_old_one_is_previous(logged):
    digest = logged.metadata["state_sha256"]
    first = register(logged.model_uri, "moving", digest)
    assert alias_version("moving", "champion") is None
    assert set_champion("moving", first.version, "first") is None
    second = register(logged.model_uri, "moving", digest)
    assert set_champion("moving", second.version, "because") == str(first.version)
    assert alias_version("moving", "champion") == str(second.version)
    assert alias_version("moving", "previous") == str(first.version)
    tags = MlflowClient().get_model_version("moving", second.version).tags
    assert tags["promoted.from"] == str(first.version)
    assert tags["promoted.reason"] == "because"
    assert tags["promoted.at"].startswith("20")
    assert tags[STATE_TAG] == digest


@pytest.mark.parametrize("form", ["models:/loaded@champion", "models:/loaded/1", "logged", "run"])
def test_a_generation_is_loaded_from_any_uri(logged, generation, hospital, form):
    if alias_version("loaded", "champion") is None:
        version = register(logged.model_uri, "loaded", logged.metadata["state_sha256"])
        set_champion("loaded", version.version, "test")
    uri = {"logged": logged.model_uri, "run": f"runs:/{logged.run_id}/model"}.get(form, form)
    pd.testing.assert_frame_equal(
        load_generation(uri).predict(hospital.head(5)),
        generation.predict(hospital.head(5)),
        check_exact=True,
    )


def test_a_state_other_than_the_registered_one_is_refused(logged):
    register(logged.model_uri, "swapped", "0" * 64)
    with pytest.raises(MLflowIntegrationError, match="not the state that was registered"):
        load_generation("models:/swapped/1")


@pytest.mark.parametrize(
    "uri", ["models:/nobody@champion", "models:/nobody/3", "/no/such/folder", "runs:/0/model"]
)
def test_an_absent_model_is_one_line_that_names_it(uri):
    with pytest.raises(MLflowIntegrationError, match="cannot be loaded") as caught:
        load_generation(uri)
    assert uri in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_somebody_else_is_refused(tmp_path):
    class Other(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
            return model_input

    with mlflow.start_run():
        uri = mlflow.pyfunc.log_model(
            name="other",
            python_model=Other(),
            pip_requirements=[],
            input_example=pd.DataFrame({"a": [1.0]}),
        ).model_uri
    with pytest.raises(MLflowIntegrationError, match="not a model of this package"):
        load_generation(uri)


@pytest.mark.parametrize("name", ["", ".dot", "a/b", "new\nline", "x" * 65, "a@b", "%2e"])
def test_impossible_model_names_are_refused(name):
    with pytest.raises(ConfigurationError, match="model_name is"):
        check_model_name(name)
