"""Models by version id, in a folder and behind a tracking URI."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from tsclust_model import ModelRegistry
from tsclust_model.errors import MLflowIntegrationError


@pytest.fixture(scope="module")
def logistic() -> LogisticRegression:
    X = pd.DataFrame({"age": [30.0, 40.0, 60.0, 80.0]})
    return LogisticRegression().fit(X, [0, 0, 1, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, generation, logistic):
    """A registry in a folder of its own, with a segments model and a baseline."""
    base_dir = tmp_path_factory.mktemp("registry")
    registry = ModelRegistry(base_dir / "new")
    assert (registry.list_versions(), registry.get_latest_version()) == ([], None)
    registry.save(generation, "week-1", {"accuracy": 0.5, "rows": 1500})
    registry.save(logistic, "week-2")
    return base_dir / "new"


def test_versions_are_listed_newest_first(folder):
    registry = ModelRegistry(folder)
    assert registry.list_versions() == ["week-2", "week-1"]
    assert registry.get_latest_version() == "week-2"


def test_a_segments_model_comes_back_with_its_metadata_and_the_same_bits(
    folder, generation, hospital
):
    model, metadata = ModelRegistry(folder).load("week-1")
    assert metadata["accuracy"] == 0.5
    assert metadata["rows"] == 1500
    assert metadata["version_id"] == "week-1"
    pd.testing.assert_frame_equal(
        model.predict(hospital.head(20)), generation.predict(hospital.head(20))
    )


def test_a_scikit_learn_model_comes_back(folder, logistic):
    model, metadata = ModelRegistry(folder).load("week-2")
    np.testing.assert_array_equal(model.coef_, logistic.coef_)
    assert set(metadata) == {"version_id", "saved_at"}


def test_the_store_of_the_process_is_left_alone(folder, store):
    ModelRegistry(folder).load("week-2")
    assert mlflow.get_tracking_uri() == store
    assert "models" not in {m.name for m in mlflow.MlflowClient().search_registered_models()}


@pytest.mark.parametrize(
    ("version_id", "metadata", "message"),
    [
        ("week-2", None, "version 'week-2' holds another model"),
        ("../up", None, "cannot be used; give 1 to 64 characters"),
        ("week-3", {"x": object()}, "the metadata is not JSON"),
    ],
)
def test_what_cannot_be_saved_is_said(folder, logistic, version_id, metadata, message):
    registry = ModelRegistry(folder)
    with pytest.raises(MLflowIntegrationError, match=message):
        registry.save(logistic, version_id, metadata)
    assert registry.list_versions() == ["week-2", "week-1"]


def test_a_thing_that_is_no_model_is_refused(folder):
    with pytest.raises(MLflowIntegrationError, match="a dict cannot be stored as plain data"):
        ModelRegistry(folder).save({}, "week-3")


def test_an_unknown_version_is_said(folder):
    with pytest.raises(MLflowIntegrationError, match="there is no version 'week-9'"):
        ModelRegistry(folder).load("week-9")


def test_a_tracking_uri_keeps_them_too(store, logistic):
    registry = ModelRegistry(store, model_name="by-uri")
    assert registry.save(logistic, "a", {"n": 1}) == "a"
    model, metadata = ModelRegistry(store, model_name="by-uri").load("a")
    assert json.dumps(metadata["n"]) == "1"
    np.testing.assert_array_equal(model.coef_, logistic.coef_)
    (version,) = mlflow.MlflowClient().search_model_versions("name = 'by-uri'")
    np.testing.assert_array_equal(
        mlflow.pyfunc.load_model(f"models:/by-uri/{version.version}").predict(
            pd.DataFrame({"age": [20.0, 90.0]})
        ),
        [0, 1],
    )
