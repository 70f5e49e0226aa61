"""Baselines of scikit-learn: fitted, logged, compared and served like any model."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import Pipeline

from tsclust_model import (
    ModelRegistry,
    PipelineConfig,
    Roles,
    generate_synthetic_data,
    train_model,
)
from tsclust_model.errors import ConfigurationError, DataValidationError, MLflowIntegrationError
from tsclust_model.mlflow_integration.registry import alias_version, load_fitted, load_generation
from tsclust_model.rows.model import Generation
from tsclust_model.training.challenge import Champion, challenger_task, retrain
from tsclust_model.training.task import task_of
from tsclust_model.training.train import train

SECRET = "Mrs-Secret-4711"
DATA = generate_synthetic_data(300, 4, 1)
X, Y = DATA.drop(columns="target"), DATA["target"]
QUICK = {"num_leaves": 7, "n_estimators": 20, "learning_rate": 0.2}


# -- data --------------------------------------------------------------------------------------


def test_the_made_up_data_is_seeded_and_binary():
    again = generate_synthetic_data(300, 4, 1)
    pd.testing.assert_frame_equal(DATA, again)
    assert list(DATA) == ["feature_0", "feature_1", "feature_2", "feature_3", "target"]
    assert set(Y) == {0, 1}
    assert not DATA.equals(generate_synthetic_data(300, 4, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((5, 4), "n_samples is 5; make 10 or more"), ((50, 1), "n_features is 1; make 2 or more")],
)
def test_too_little_made_up_data_is_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        generate_synthetic_data(*arguments)


# -- one call for any model --------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["logistic", "random_forest"])
def test_a_baseline_learns_and_says_classes_as_texts(model_type):
    model = train_model(X[:200], Y[:200], {"training": {"model_type": model_type}})
    assert isinstance(model, Pipeline)
    assert model.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(
        model.predict(X[200:]),
        train_model(X[:200], Y[:200], {"model_type": model_type}).predict(X[200:]),
    )
    assert model.score(X[200:], Y[200:]) == (model.predict(X[200:]) == Y[200:]).mean() > 0.85
    assert model.predict_proba(X[200:]).shape == (100, 2)


CLASSES = {
    "whole": np.where(X["feature_0"] > 0.5, 7, np.where(X["feature_1"] > 0.5, 3, 1)),
    "strings": np.where(Y == 1, "yes", "no"),
    "booleans": Y.to_numpy() == 1,
    "categories": pd.Categorical(np.where(Y == 1, "b", "a")),
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> ModelRegistry:
    return ModelRegistry(tmp_path_factory.mktemp("registry"))


@pytest.mark.integration
@pytest.mark.parametrize("y", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("of", [X, X.to_numpy()], ids=["table", "array"])
def test_an_estimator_has_the_classes_of_its_outcomes_and_the_registry_keeps_it(
    of, y, registry, request
):
    model = train_model(of, y, {"training": {"model_type": "logistic"}})
    assert model.classes_.tolist() == sorted(set(np.asarray(y).tolist()))
    name = request.node.callspec.id
    registry.save(model, name)
    loaded, _ = registry.load(name)
    np.testing.assert_array_equal(loaded.predict(of), model.predict(of))
    np.testing.assert_array_equal(loaded.predict_proba(of), model.predict_proba(of))


def test_strings_and_numbers_of_a_table_are_told_apart(visits):
    X, y = visits[["ward", "urgent", "age"]], visits["risk"]
    config = {"training": {"model_type": "random_forest", "holdout": 0.1}, "data": {"path": "x"}}
    model = train_model(X, y, config | {"model": {"missing_values": "impute"}})
    assert model.score(X, y) > 0.9


def test_lightgbm_is_a_generation():
    config = PipelineConfig(lgb_timeseries_params=QUICK, hdbscan_params={"min_cluster_size": 15})
    model = train_model(X[:200], Y[:200], config)
    assert isinstance(model, Generation)
    found = model.predict(X[200:])["prediction"]
    assert (found == Y[200:].astype(str)).mean() > 0.85


def test_a_forest_of_numbers_is_a_regression():
    y = 3.0 * X["feature_0"] + X["feature_1"]
    model = train_model(X, y, {"model_type": "random_forest", "params": {"n_estimators": 20}})
    assert isinstance(model["model"], RandomForestRegressor)
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize(
    ("config", "y", "error", "message"),
    [
        pytest.param(
            {"model_type": "logistic"}, X["feature_0"], ConfigurationError,
            "a logistic regression needs a target of classes", id="numbers",
        ),
        pytest.param(
            {"model_type": "svm"}, Y, ConfigurationError,
            "model_type is 'svm'; it must be one of lightgbm, logistic, random_forest", id="type",
        ),
        pytest.param(
            {"model_type": "random_forest", "params": {"n_tree": 3}}, Y, ConfigurationError,
            "RandomForestClassifier has no argument n_tree", id="argument",
        ),
        pytest.param({}, Y[:10], DataValidationError, "10 outcomes for 300 rows", id="length"),
        pytest.param({"modle_type": "x"}, Y, ConfigurationError, "unknown config", id="key"),
        pytest.param(
            {"training": {"modle_type": "x"}}, Y, ConfigurationError, "unknown config", id="inner"
        ),
        pytest.param(
            {"training": {}, "modle": {}}, Y, ConfigurationError,
            "unknown section 'modle' \\(did you mean 'model'", id="section",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_said(config, y, error, message):
    with pytest.raises(error, match=message):
        train_model(X, y, config)


# -- registered and served ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def visits() -> pd.DataFrame:
    """Texts, gaps and a boolean beside numbers; the class depends on a text and a number."""
    rng = np.random.default_rng(0)
    n = 240
    ward = rng.choice(["north", "south", "east"], n)
    age = rng.normal(50, 10, n)
    risk = np.where((age > 50) ^ (ward == "north"), "high", "low")
    return pd.DataFrame(
        {
            "ward": pd.Series(ward).mask(rng.random(n) < 0.1),
            "urgent": rng.random(n) < 0.5,
            "age": pd.Series(age).mask(rng.random(n) < 0.05),
            "risk": risk,
        }
    )


CONFIG = PipelineConfig(missing_values="impute")
FOREST = ("random_forest", {"n_estimators": 30})


@pytest.fixture(scope="module")
def trained_once() -> list[tuple]:
    return []


@pytest.fixture
def trained(store, visits, trained_once, tmp_path_factory):
    """``visits@champion``, which no test replaces, and its configuration."""
    if not trained_once:
        folder = tmp_path_factory.mktemp("visits")
        config = PipelineConfig(missing_values="impute", history_dir=str(folder))
        task = task_of(Roles("risk"), config, *FOREST)
        training = train(task, visits, holdout=0.25, model_name="visits", trigger="test")
        trained_once.append((training, config))
    return trained_once[0]


def test_a_registered_baseline_comes_back_with_the_same_answers(trained, visits):
    training, _ = trained
    uri = f"models:/visits/{training.version}"
    again = load_fitted(uri)
    pd.testing.assert_frame_equal(again.predict(visits), training.generation.predict(visits))
    assert again.info == json.loads(json.dumps(training.generation.info))
    assert again.roles == Roles("risk", features=("ward", "urgent", "age"))
    assert again.evaluate(visits)["accuracy"] > 0.8
    tags = mlflow.MlflowClient().get_model_version("visits", training.version).tags
    assert tags["model_type"] == "random_forest"


def test_mlflow_serves_it_by_names_in_any_order(trained, visits):
    training, _ = trained
    served = mlflow.pyfunc.load_model("models:/visits@champion")
    rows = training.generation.canonical_rows(visits)[["age", "urgent", "ward"]]
    pd.testing.assert_frame_equal(served.predict(rows), training.generation.predict(visits))


def test_a_row_it_cannot_score_is_null_with_a_status_and_its_values_are_in_no_reply(
    trained, visits, monkeypatch
):
    training, _ = trained
    monkeypatch.setattr(scoring_server, "invocations", scoring_server.invocations)
    served = mlflow.pyfunc.load_model("models:/visits@champion")
    rows = training.generation.canonical_rows(visits)[["ward", "urgent", "age"]].head(3)
    rows["age"] = [40.0, np.inf, 1e60]  # no float32 holds the last one
    answer = served.predict(rows)
    assert answer["status"].tolist() == ["ok", "infinite: age", "out of range"]
    assert answer["prediction"].isna().tolist() == [False, True, True]
    assert answer["prediction"][0] == training.generation.estimator.predict(rows.head(1))[0]
    body = json.dumps({"dataframe_records": [{"ward": "north", "urgent": "true", "age": SECRET}]})
    with pytest.raises(MlflowException) as refused:
        scoring_server.invocations(
            body, "application/json", served, served.metadata.get_input_schema()
        )
    assert SECRET not in refused.value.message
    assert "column age" in refused.value.message


def test_a_challenger_takes_over_only_if_it_is_better(trained):
    training, config = trained
    champion = Champion(training.generation, training.version, "visits")
    task = challenger_task(training.generation, config, "logistic", {"C": 1e-9})
    worse = retrain(task, champion, "a look")
    assert (worse.promoted, worse.comparison.better) == (False, False)
    assert "log-loss" in worse.comparison.reason
    assert worse.comparison.n_rows == 48
    assert alias_version("visits", "champion") == training.version
    assert alias_version("visits", "challenger") == worse.version


@pytest.mark.usefixtures("trained")
def test_a_baseline_is_no_model_of_segments_and_the_error_says_who_takes_it():
    with pytest.raises(
        MLflowIntegrationError, match="is a scikit-learn baseline: tsclust pipeline"
    ):
        load_generation("models:/visits@champion")


def test_a_state_without_a_model_is_said(store):
    with pytest.raises(MLflowIntegrationError, match="cannot be loaded"):
        load_fitted("models:/nobody/1")
