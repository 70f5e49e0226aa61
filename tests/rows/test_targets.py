"""Classes: the models, their probabilities, and the whole chain from a table to a retrain."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from tests.support import QUICK, REAL_DATA, STAY_CONFIG, STAY_ROLES, VITALS
from tsclust_model.boosting.blend import fit_outputs
from tsclust_model.boosting.folds import Fold, time_ordered_folds
from tsclust_model.boosting.output_model import ClassModel, fit_temperature, tempered
from tsclust_model.boosting.recipes import ClassRecipe
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.errors import DataValidationError, RetrainingError
from tsclust_model.mlflow_integration.pyfunc import open_generation, seal_generation, signature
from tsclust_model.mlflow_integration.registry import load_generation
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.operations.maintenance import maintain
from tsclust_model.pipeline import TimeSeriesClusteringPipeline
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.model import Generation
from tsclust_model.rows.table import training_data
from tsclust_model.rows.targets import ClassTarget, NumberTarget
from tsclust_model.training.challenge import retrain_model

N = 900
SECRET = "Mrs-Secret-4711"
_numbers = count()


def fit(
    X: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold] | None = None,
    n_classes: int = 3,
    combine: str = "blend",
    params: dict = QUICK,
    final: bool = True,
) -> ClassModel:
    chosen = time_ordered_folds(len(y)) if folds is None else folds
    recipe = ClassRecipe(params, combine=combine, n_classes=n_classes)
    return fit_outputs(X, {"kind": y.astype(float)}, labels, chosen, recipe, final=final)["kind"]


@pytest.fixture(scope="module")
def X() -> np.ndarray:  # noqa: N802
    return np.random.default_rng(1).normal(size=(N, 3))


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Three clusters, and a few rows of none."""
    found = np.random.default_rng(2).integers(0, 3, N)
    found[::50] = -1
    return found


@pytest.fixture(scope="module")
def y(X, labels) -> np.ndarray:
    """What the class depends on differs from cluster to cluster."""
    column = X[np.arange(N), np.maximum(labels, 0)] * np.where(labels == 1, -1, 1)
    return np.digitize(column + np.random.default_rng(3).normal(scale=0.3, size=N), [-0.5, 0.5])


@pytest.fixture(scope="module")
def model(X, y, labels) -> ClassModel:
    return fit(X, y, labels)


def by_hand(model: ClassModel, X: np.ndarray, labels: np.ndarray, weight: float) -> np.ndarray:
    found = model.global_booster.predict(X)
    for cluster, booster in model.cluster_boosters.items():
        rows = labels == cluster
        found[rows] = (1 - weight) * found[rows] + weight * booster.predict(X[rows])
    powers = found ** (1 / model.temperature)
    return powers / powers.sum(axis=1, keepdims=True)


# -- naive forecasts ---------------------------------------------------------------------------


def test_the_naive_forecast_of_numbers_is_their_median():
    target = NumberTarget("y")
    naive = target.naive(np.array([1.0, 2.0, 10.0]))
    assert naive == {"median": 2.0}
    found = target.naive_figures(naive, np.array([2.0, 5.0]), np.array([np.nan, 4.0]))
    assert found == {
        "rmse_naive": math.sqrt(4.5),
        "mae_naive": 1.5,
        "rmse_last_value": math.sqrt(0.5),
        "mae_last_value": 0.5,
    }
    assert set(target.naive_figures(naive, np.array([2.0]))) == {"rmse_naive", "mae_naive"}


def test_the_naive_forecast_of_classes_is_their_shares():
    target = ClassTarget("y", "text", ("a", "b"))
    naive = target.naive(np.array([0.0, 0.0, 0.0, 1.0, -1.0]))
    assert naive == {"shares": [0.75, 0.25]}
    found = target.naive_figures(naive, np.array([0, 1, -1]), np.array([1.0, 1.0, -1.0]))
    assert found["accuracy_naive"] == 1 / 3
    assert found["accuracy_last_value"] == 1 / 3
    expected = -(math.log(0.75) + math.log(0.25) + math.log(1e-6)) / 3
    assert found["log_loss_naive"] == pytest.approx(expected)


@pytest.mark.parametrize("target", [NumberTarget("y"), ClassTarget("y", "text", ("a", "b"))])
def test_older_models_and_no_rows_have_no_naive_figures(target):
    assert target.naive_figures(None, np.array([1.0])) == {}
    assert target.naive_figures({"median": 1.0}, np.array([])) == {}


# -- the models ----------------------------------------------------------------------------------


def test_probabilities_are_the_calibrated_blend_of_both_models(model, X, labels):
    assert model.weight > 0
    P, share = model.predict(X, labels)
    np.testing.assert_allclose(P, by_hand(model, X, labels, model.weight), rtol=1e-9)
    np.testing.assert_allclose(P.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(share, np.where(labels >= 0, model.weight, 0.0))
    for weight in (0.0, 1.0):
        P, _ = model.predict(X, labels, weight)
        np.testing.assert_allclose(P, by_hand(model, X, labels, weight), rtol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 333])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_a_row_has_the_same_bits_in_any_batch(model, X, labels, size, temperature):
    model = replace(model, temperature=temperature)
    whole, _ = model.predict(X, labels)
    parts = [model.predict(X[i : i + size], labels[i : i + size])[0] for i in range(0, 350, size)]
    np.testing.assert_array_equal(np.concatenate(parts)[:350], whole[:350])
    assert model.predict(X[:0], labels[:0])[0].shape == (0, 3)


def test_clusters_are_blended_in_where_they_earn_it_and_shuffled_ones_are_not(model, X, y, labels):
    assert model.scores.errors["blend"] < 0.9 * model.scores.errors["global"]
    shuffled = np.random.default_rng(4).permutation(labels)
    control = fit(X, y, shuffled, final=False).scores.errors["blend"]
    assert control == pytest.approx(model.scores.errors["global"], rel=0.05)
    found = fit(X, y, labels, final=False).scores.errors["blend"]
    assert found == model.scores.errors["blend"]


def test_scores_are_those_of_rows_that_no_model_had_seen(X, y, labels):
    found = fit(X, y, labels, combine="global")
    forecasts = []
    for fold in time_ordered_folds(N):
        whole = fit(X[fold.train], y[fold.train], labels[fold.train], combine="global")
        forecasts.append(whole.global_booster.predict(X[fold.valid]))
    P = tempered(np.concatenate(forecasts), found.temperature)
    truth = np.concatenate([y[fold.valid] for fold in time_ordered_folds(N)])
    assert found.weight == 0.0
    assert found.scores.n_rows == len(truth) == len(found.fold_values)
    assert found.scores.errors["blend"] == pytest.approx(log_loss(truth, P), rel=1e-9)
    assert found.scores.errors["blend"] == found.scores.errors["global"]
    assert found.fold_losses["blend"].mean() == pytest.approx(
        found.scores.errors["blend"], rel=1e-12
    )
    assert found.scores.served["accuracy"] == accuracy_score(truth, P.argmax(axis=1))
    expected = roc_auc_score(truth, P, multi_class="ovr")
    assert found.scores.served["auc"] == pytest.approx(expected, rel=1e-9)
    assert sum(figures["n_rows"] for figures in found.scores.clusters.values()) == len(truth)


def test_two_classes_are_binary_with_both_columns(X, y, labels):
    found = fit(X, (y > 0).astype(int), labels, n_classes=2)
    assert "objective=binary" in found.global_text
    P, _ = found.predict(X, labels, 0.0)
    p = found.global_booster.predict(X)
    expected = tempered(np.column_stack([1 - p, p]), found.temperature)
    np.testing.assert_array_equal(P, expected)


def test_a_cluster_of_one_class_is_served_by_the_global_model(X, y, labels):
    found = fit(X, np.where(labels == 2, 0, y), labels)
    assert found.clusters == [0, 1]
    P, share = found.predict(X, labels)
    assert set(share[labels == 2]) == {0.0}
    np.testing.assert_array_equal(P[labels == 2], found.predict(X, labels, 0.0)[0][labels == 2])


def test_a_fold_that_knows_one_class_only_is_refused_in_one_line(X, y, labels):
    late = np.where(np.arange(N) < 0.7 * N, 0, y)
    message = "the oldest 540 of 900 rows hold one class of 'kind' only; give more rows"
    with pytest.raises(DataValidationError, match=message):
        fit(X, late, labels)


@pytest.mark.parametrize("place", ["oldest", "newest", "two rows"])
def test_a_class_that_is_rare_or_absent_from_a_fold_is_handled(X, y, labels, place):
    part = {
        "oldest": np.arange(N) > 0.5 * N,
        "newest": np.arange(N) < 0.5 * N,
        "two rows": np.isin(np.arange(N), [10, 890]),
    }[place]
    rare = np.where((y == 2) & ~part, 1, y)
    if place == "two rows":
        rare[[10, 890]] = 2
    found = fit(X, rare, labels)
    P, _ = found.predict(X, labels)
    assert P.shape == (N, 3)
    assert np.isfinite(P).all()
    assert (P >= 0).all()
    assert np.isfinite(list(found.scores.errors.values())).all()
    assert found.scores.errors["blend"] < log_loss(rare, np.full((N, 3), 1 / 3))


def test_one_in_a_hundred_is_not_lost(X, labels):
    rare = (X[:, 0] > 2.2).astype(int)
    assert 5 <= rare.sum() <= 20
    found = fit(X, rare, labels, n_classes=2)
    P, _ = found.predict(X, labels)
    assert P[:, 1].mean() == pytest.approx(rare.mean(), abs=0.01)
    assert found.scores.served["auc"] is None or found.scores.served["auc"] > 0.8


def test_forty_classes_are_handled():
    rng = np.random.default_rng(5)
    y = rng.integers(0, 40, 600)
    X = np.column_stack([y + rng.normal(scale=0.4, size=600), rng.normal(size=600)])
    params = {"n_estimators": 3, "num_leaves": 4, "min_data_in_leaf": 2}
    found = fit(X, y, np.zeros(600, dtype=np.int64), n_classes=40, params=params)
    assert found.predict(X, np.zeros(600, dtype=np.int64))[0].shape == (600, 40)


def test_renumbering_moves_models_and_scores(model, X, labels):
    moved = model.renumbered({0: 7, 2: 5})
    assert moved.clusters == [1, 5, 7]
    new = np.select([labels == 0, labels == 2], [7, 5], labels)
    np.testing.assert_array_equal(moved.predict(X, new)[0], model.predict(X, labels)[0])
    assert moved.scores.clusters[7] == model.scores.clusters[0]


# -- calibration -------------------------------------------------------------------------------


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities of three classes, and classes drawn from them."""
    rng = np.random.default_rng(seed)
    powers = np.exp(rng.normal(size=(n, 3)))
    P = powers / powers.sum(axis=1, keepdims=True)
    return P, (rng.random((n, 1)) > P.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("truth", [0.5, 2.5])
def test_the_temperature_of_forecasts_too_sure_or_unsure_is_found(truth):
    parts = [drawn(3000, seed) for seed in (1, 2)]
    sharp = [tempered(P, 1 / truth) for P, _ in parts]
    found = fit_temperature(sharp, [codes for _, codes in parts])
    assert found == pytest.approx(truth, rel=0.1)
    fresh, codes = drawn(3000, 3)
    wrong = tempered(fresh, 1 / truth)
    assert log_loss(codes, tempered(wrong, found)) < log_loss(codes, wrong) - 0.02


def test_what_is_calibrated_stays_as_it_is():
    parts = [drawn(3000, seed) for seed in (1, 2)]
    assert fit_temperature([P for P, _ in parts], [codes for _, codes in parts]) == 1.0
    P, _ = parts[0]
    assert tempered(P, 1.0) is P


def test_folds_that_disagree_on_the_temperature_leave_it_at_1():
    (first, one), (second, two) = drawn(3000, 1), drawn(3000, 2)
    assert fit_temperature([tempered(first, 0.5), tempered(second, 2.0)], [one, two]) == 1.0
    nearest = fit_temperature([tempered(first, 0.5), tempered(second, 0.8)], [one, two])
    assert nearest == pytest.approx(1 / 0.8, rel=0.1)


def test_folds_in_which_nothing_happened_calibrate_nothing():
    P = np.tile([0.9, 0.1], (200, 1))
    assert fit_temperature([P, P], [np.zeros(200, dtype=int)] * 2) == 1.0


def test_models_that_are_too_sure_of_noise_are_calibrated(X, labels):
    noise = np.random.default_rng(6).integers(0, 2, N)
    bold = {"n_estimators": 200, "num_leaves": 31, "min_data_in_leaf": 3, "learning_rate": 0.2}
    found = fit(X, noise, labels, n_classes=2, combine="global", params=bold)
    assert found.temperature > 2
    assert found.scores.errors["blend"] < 0.9


# -- the generation ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generation(registered_classes) -> Generation:
    return registered_classes.generation


@pytest.fixture(scope="module")
def unseen(stays) -> pd.DataFrame:
    return stays.tail(300).reset_index(drop=True)


def test_a_row_gets_its_class_and_the_probability_of_each(generation, unseen):
    found = generation.predict(unseen)
    assert list(found.columns) == [
        "prediction",
        "probability_länger, 日本",
        'probability_say "mid" day',
        "probability_short",
        "cluster",
        "cluster_source",
        "cluster_strength",
        "cluster_weight",
        "resource_nursing_hours",
        "status",
    ]
    P = found.filter(like="probability_").to_numpy(dtype=float)
    assert found["prediction"].tolist() == [
        generation.outcome.classes[code] for code in P.argmax(axis=1)
    ]
    np.testing.assert_allclose(P.sum(axis=1), 1.0)
    assert (found["prediction"] == unseen["stay"]).mean() > 0.7


def test_a_row_that_cannot_be_scored_is_null_and_a_gap_is_imputed(generation, unseen):
    rows = unseen.head(5).copy()
    rows.loc[1, "age"] = np.inf
    rows.loc[2, list(VITALS)] = np.nan
    found = generation.predict(rows)
    assert found["status"].tolist() == ["ok", "infinite: age", "ok", "ok", "ok"]
    assert found.drop(columns="status").loc[1].isna().all()
    assert found.loc[2].notna().all()
    pd.testing.assert_frame_equal(found.loc[[3]], generation.predict(rows.loc[[3]]))
    assert generation.predict(rows.loc[[1]])["prediction"].isna().all()


def test_the_state_brings_the_bits_back(generation, unseen):
    back = open_generation(seal_generation(generation))
    pd.testing.assert_frame_equal(back.predict(unseen), generation.predict(unseen))
    assert back.target.scores == generation.target.scores
    assert (back.metric, back.outcome) == (generation.metric, generation.outcome)
    np.testing.assert_array_equal(back.losses(unseen), generation.losses(unseen))


def test_the_signature_declares_a_class_its_probabilities_and_no_coverage(generation):
    # `quantiles` is declared to be refused: mlflow ignores what is not declared.
    found = signature(generation)
    kinds = {item.name: item.type.name for item in found.outputs.inputs}
    assert list(kinds) == generation.output_columns
    assert [name for name, kind in kinds.items() if kind == "string"] == [
        "prediction",
        "cluster_source",
        "status",
    ]
    assert [parameter.name for parameter in found.params.params] == ["quantiles"]


def test_evaluation_gives_the_figures_of_what_is_served(generation, unseen):
    found = generation.predict(unseen)
    P = found.filter(like="probability_").to_numpy(dtype=float)
    codes = generation.outcome.codes(unseen["stay"].to_numpy())
    figures = evaluate_generation(generation, unseen)
    assert figures["accuracy"] == (found["prediction"] == unseen["stay"]).mean()
    assert figures["log_loss"] == pytest.approx(log_loss(codes, P), rel=1e-9)
    assert figures["auc"] == pytest.approx(roc_auc_score(codes, P, multi_class="ovr"), rel=1e-9)
    assert figures["log_loss"] == generation.losses(unseen).mean()
    assert {"log_loss_global", "log_loss_cluster"} <= set(figures)
    assert not {"coverage", "interval_coverage", "rmse"} & set(figures)
    for cluster, of_cluster in figures["clusters"].items():
        rows = (found["cluster"] == cluster).to_numpy(dtype=bool)
        assert of_cluster["log_loss"] == pytest.approx(
            log_loss(codes[rows], P[rows], labels=[0, 1, 2])
        )
    assert set(figures["resources"]["nursing_hours"]) == {"rmse", "mae", "r2"}


def test_a_class_the_model_has_never_seen_costs_much_and_not_everything(generation, unseen):
    new = unseen.head(2).assign(stay=[SECRET, unseen["stay"][1]])
    losses = generation.losses(new)
    assert losses[0] == -np.log(1e-6)
    assert losses[1] == generation.losses(unseen)[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="stay"), "no target column 'stay'"),
        (lambda f: f.assign(stay=[None, *f["stay"][1:]]), "stay is missing or infinite in 1 row"),
    ],
    ids=["absent", "missing"],
)
def test_rows_without_their_class_cannot_be_evaluated(generation, unseen, change, message):
    with pytest.raises(DataValidationError, match=message):
        evaluate_generation(generation, change(unseen))


@pytest.mark.usefixtures("store")
def test_report_and_run_hold_the_figures_of_classes(registered_classes):
    report = registered_classes.report
    metrics = mlflow.get_run(registered_classes.run_id).data.metrics
    for name in ("global", "cluster", "blend", "control"):
        assert metrics[f"fold_log_loss_{name}"] == report["folds"][f"log_loss_{name}"]
    assert 0.7 < metrics["fold_accuracy_blend"] <= 1
    assert 0.8 < metrics["fold_auc_blend"] <= 1
    assert metrics["holdout_accuracy"] == report["holdout"]["accuracy"]
    assert metrics["holdout_log_loss"] == report["holdout"]["log_loss"]
    assert all(
        set(figures) == {"accuracy", "log_loss", "auc", "n_rows"}
        for figures in report["clusters"].values()
    )


def test_numbers_are_classes_where_the_task_says_so(stays):
    frame = stays.head(400).assign(stay=(stays["stay"] == "short").head(400).astype(float))
    config = replace(STAY_CONFIG, task="classification", missing_values="error")
    data = training_data(frame, STAY_ROLES, config)
    found = fit_generation(data, config, {"roles": vars(STAY_ROLES)}).generation
    answer = found.predict(frame)
    assert answer.columns[1:3].tolist() == ["probability_0", "probability_1"]
    assert set(answer["prediction"]) == {"0", "1"}
    expected = found.losses(frame)
    for same in (frame["stay"].astype(int), frame["stay"].astype(str), frame["stay"] == 1):
        np.testing.assert_array_equal(found.losses(frame.assign(stay=same)), expected)
    assert "stay" not in found.text_columns


@pytest.mark.skipif(not REAL_DATA.exists(), reason=f"the real data is not at {REAL_DATA}")
def test_on_real_prices_probabilities_are_worth_more_than_the_base_rate():
    frame = pd.read_parquet(REAL_DATA / "elec2_nsw.parquet").iloc[20000:26000]
    frame = frame.assign(before=frame["class"].shift())[1:]
    known, newest = frame[:4200], frame[4200:]
    columns = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer", "before")
    roles = Roles("class", columns, time="t")
    config = PipelineConfig(
        hdbscan_params={"min_cluster_size": 100}, lgb_timeseries_params=QUICK, task="classification"
    )
    data = training_data(known, roles, config)
    found = fit_generation(data, config, {"roles": vars(roles)}).generation
    figures = evaluate_generation(found, newest)
    share = known["class"].mean()
    y = newest["class"].to_numpy()
    base = log_loss(y, np.tile([1 - share, share], (len(y), 1)))
    assert figures["log_loss"] < 0.75 * base
    # Prices rise for hours on end: nothing here is better than "as half an hour ago".
    assert figures["accuracy"] > (newest["before"] == newest["class"]).mean() - 0.03
    assert set(found.predict(newest)["prediction"]) == {"0", "1"}


# -- the loop ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("store")
def test_the_pipeline_lives_on_classes(stays):
    X, y = stays[list(VITALS)], stays["stay"]
    config = replace(STAY_CONFIG, model_registry_prefix=f"classes-{next(_numbers)}", batch_size=64)
    pipeline = TimeSeriesClusteringPipeline(config)
    pipeline.fit_initial(X[:500], y[:500])
    result = pipeline.process_batch(X[500:700])
    assert set(result.timeseries_predictions) <= set(y)
    assert list(result.probabilities) == pipeline._serving.generation.outcome.class_columns
    assert all(len(p) == 200 for p in result.probabilities.values())
    pipeline.record_outcomes(result.version_id, y[500:700])
    single = pipeline.process_batch(X[700:701], y[700:701])
    assert single.timeseries_predictions.shape == (1,)
    late, now = (entry["value"] for entry in pipeline.get_performance_metrics()["log_loss"])
    generation = pipeline._serving.generation
    assert late == generation.losses(stays[500:700]).mean()
    assert now == generation.losses(stays[700:701]).mean()
    done = pipeline.retrain("new rows")
    assert done.comparison.metric == "log_loss"
    assert done.comparison.n_rows == 140
    tags = MlflowClient().get_model_version(done.model_name, done.version).tags
    assert tags["log_loss_challenger"] == str(done.comparison.challenger)
    assert done.report["comparison"]["log_loss_champion"] == done.comparison.champion
    assert all("accuracy" in v for v in pipeline.get_performance_report().model_metrics.values())
    assert "fold_log_loss" in pipeline.get_model_info()["timeseries_models"]
    pipeline.close()
    with pytest.raises(RetrainingError, match="task is classification and the configuration's reg"):
        retrain_model(
            generation, "1", done.model_name, replace(config, task="regression"), "by mistake"
        )


@pytest.mark.usefixtures("store")
def test_a_challenger_keeps_the_classes_and_learns_new_ones(registered_classes, stays):
    name = f"class-copy-{next(_numbers)}"
    client = MlflowClient()
    version = client.copy_model_version("models:/stays/1", name).version
    client.set_registered_model_alias(name, "champion", version)
    champion = load_generation(f"models:/{name}@champion")
    newer = stays.tail(300).assign(stay=lambda f: f["stay"].replace({"short": "at once"}))
    config = replace(STAY_CONFIG, expanding_window_size=300)
    done = maintain(name, newer, config=config, promote=False).retraining
    assert done.comparison.n_rows == 60
    assert champion.outcome.classes == ("länger, 日本", 'say "mid"\n day', "short")
    assert done.generation.outcome.classes == (
        *("at once", "länger, 日本", 'say "mid"\n day', "short"),
    )
    history = open_storage(config, name).history
    rows, _ = history.load(history.get_latest_version())
    assert set(rows["stay"]) == set(newer["stay"])
    assert done.comparison.better


@pytest.mark.usefixtures("store")
def test_a_jump_of_the_log_loss_is_drift(registered_classes, stays):
    name = f"class-copy-{next(_numbers)}"
    client = MlflowClient()
    version = client.copy_model_version("models:/stays/1", name).version
    client.set_registered_model_alias(name, "champion", version)
    kept = (open_storage(STAY_CONFIG, one).history.base_dir for one in ("stays", name))
    shutil.copytree(*kept)
    usual = stays.tail(400)
    wrong = usual.assign(stay=usual["stay"].to_numpy()[::-1])
    config = replace(STAY_CONFIG, batch_size=100)
    assert maintain(name, usual, config=config, if_due=True).message.startswith("nothing is due")
    found = maintain(name, wrong, config=config, if_due=True, promote=False).message
    assert found.startswith("retrained (log-loss ")
    assert " is over " in found


def test_arrays_without_names_and_lists_of_classes_are_accepted(store):
    rng = np.random.default_rng(8)
    X = np.concatenate([rng.normal(size=(100, 2)), rng.normal(8, 1, size=(100, 2))])
    X = X[rng.permutation(200)]
    y = pd.Categorical(np.where(X[:, 0] + rng.normal(size=200) > 4, "right", "left"))
    config = replace(STAY_CONFIG, model_registry_prefix=f"lists-{next(_numbers)}")
    pipeline = TimeSeriesClusteringPipeline(config)
    pipeline.fit_initial(X, y)
    assert set(pipeline.process_batch(X[:50], list(y[:50])).timeseries_predictions) == {
        "left",
        "right",
    }
    with pytest.raises(DataValidationError, match="target has 3 values for 50 rows"):
        pipeline.process_batch(X[:50], y[:3])
    pipeline.close()


def test_the_id_may_not_be_named_as_a_probability(stays):
    frame = stays.rename(columns={"patient_id": "probability_short"})
    roles = Roles("stay", (), (), "admission_time", "probability_short")
    with pytest.raises(
        DataValidationError, match="'probability_short' is a column of the forecast"
    ):
        training_data(frame, roles, STAY_CONFIG)
