from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import chain
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsclust_model.boosting.blend import fit_outputs
from tsclust_model.boosting.folds import Fold, time_ordered_folds
from tsclust_model.boosting.output_model import NumberModel
from tsclust_model.boosting.recipes import WEIGHTS, NumberRecipe, choose_weight
from tsclust_model.errors import (
    DataValidationError,
    ModelTrainingError,
)
from tsclust_model.results import NOISE

N_ROWS = 500
PARAMS: dict[str, Any] = {
    "objective": "regression",
    "num_leaves": 8,
    "learning_rate": 0.2,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "min_data_in_bin": 5,
    "random_state": 7,
    "n_estimators": 12,
}
RECIPE = NumberRecipe(PARAMS, [4])
# What the package sets for every model, written again: the oracle uses lightgbm alone.
MANAGED = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1}
ROUNDS = 12


def train(
    X: np.ndarray, y: np.ndarray, categorical: Sequence[int] = (), objective: str = "regression"
) -> lgb.Booster:
    """The oracle's model: a plain call of LightGBM."""
    params = {name: value for name, value in PARAMS.items() if name != "n_estimators"} | MANAGED
    data = lgb.Dataset(X, y, categorical_feature=list(categorical))
    return lgb.train(params | {"objective": objective}, data, num_boost_round=ROUNDS)


def rmse(y: np.ndarray, forecast: np.ndarray) -> float:
    return float(np.sqrt(np.mean((y - forecast) ** 2)))


@pytest.fixture(scope="module", name="X")
def rows() -> np.ndarray:
    """Four numbers, one of them with gaps, and a category."""
    rng = np.random.default_rng(31)
    X = np.column_stack([rng.normal(size=(N_ROWS, 4)), rng.integers(0, 6, N_ROWS)])
    X[rng.random(N_ROWS) < 0.1, 3] = np.nan
    return X


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Three large clusters, a small one (3) of 45 rows, and rows without a cluster."""
    rng = np.random.default_rng(32)
    found = rng.choice([0, 1, 2], N_ROWS, p=[0.5, 0.3, 0.2])
    found[rng.permutation(N_ROWS)[:60]] = NOISE
    found[rng.permutation(N_ROWS)[:45]] = 3
    return found


@pytest.fixture(scope="module")
def y(X: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Every cluster depends on the first two columns in its own way."""
    rng = np.random.default_rng(33)
    slopes = np.array([[3.0, 0.0], [-3.0, 1.0], [0.0, 4.0], [1.0, 1.0], [0.0, 0.0]])[labels]
    everywhere = 4 * X[:, 2] + X[:, 4] % 2
    return everywhere + (slopes * X[:, :2]).sum(axis=1) + rng.normal(0, 0.5, N_ROWS)


@pytest.fixture(scope="module")
def folds() -> list[Fold]:
    return time_ordered_folds(N_ROWS)


@pytest.fixture(scope="module")
def model(X: np.ndarray, y: np.ndarray, labels: np.ndarray, folds: list[Fold]) -> NumberModel:
    return fit_outputs(X, {"y": y}, labels, folds, RECIPE)["y"]


def out_of_fold(
    X: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    objective: str = "regression",
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Forecasts of each fold by the global model and by the clusters' models, in plain loops."""
    everyone, own = [], []
    for fold in folds:
        forecast = train(X[fold.train], y[fold.train], [4], objective).predict(X[fold.valid])
        alone = forecast.copy()
        for cluster in set(labels.tolist()) - {NOISE}:
            rows = [i for i in fold.train if labels[i] == cluster]
            # 40 of all rows: their share of what the fold trains on.
            if len(rows) >= 40 * len(fold.train) / len(y):
                booster = train(X[rows], y[rows], [4], objective)
                for position, row in enumerate(fold.valid):
                    if labels[row] == cluster:
                        alone[position] = booster.predict(X[[row]])[0]
        everyone.append(forecast)
        own.append(alone)
    return everyone, own


@pytest.fixture(scope="module")
def oracle(X, y, labels, folds) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return out_of_fold(X, y, labels, folds)


# The forecast


def test_a_forecast_is_the_blend_of_plain_lightgbm_models(X, y, labels, model):
    assert model.weight in (0.25, 0.5, 0.75)
    everyone = train(X, y, [4]).predict(X)
    expected = everyone.copy()
    for cluster in (0, 1, 2, 3):
        rows = labels == cluster
        own = train(X[rows], y[rows], [4]).predict(X[rows])
        expected[rows] = (1 - model.weight) * everyone[rows] + model.weight * own
    forecast, weights = model.predict(X, labels)
    np.testing.assert_array_equal(forecast, expected)
    np.testing.assert_array_equal(weights, np.where(labels == NOISE, 0.0, model.weight))


@pytest.mark.parametrize(("weight", "way"), [(0.0, "global"), (1.0, "cluster")])
def test_a_given_weight_replaces_the_fitted_one(X, labels, model, weight, way):
    rows = np.flatnonzero(labels == 2)
    booster = model.global_booster if way == "global" else model.cluster_boosters[2]
    forecast, weights = model.predict(X[rows], labels[rows], weight)
    np.testing.assert_array_equal(forecast, booster.predict(X[rows]))
    assert weights.tolist() == [weight] * len(rows)


@pytest.mark.parametrize("label", [NOISE, 99])
def test_a_row_of_no_known_cluster_is_served_by_the_global_model(X, model, label):
    forecast, weights = model.predict(X, np.full(N_ROWS, label), 1.0)
    np.testing.assert_array_equal(forecast, model.global_booster.predict(X))
    assert not weights.any()


@pytest.mark.parametrize("chunk", [1, 33])
def test_a_row_is_forecast_alone_as_in_a_batch(X, labels, model, chunk):
    parts = [
        model.predict(X[i : i + chunk], labels[i : i + chunk]) for i in range(0, N_ROWS, chunk)
    ]
    forecast, weights = model.predict(X, labels)
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), forecast)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), weights)


def test_an_empty_batch_has_an_empty_forecast(X, labels, model):
    forecast, weights = model.predict(X[:0], labels[:0])
    assert (forecast.shape, weights.shape) == ((0,), (0,))


def test_a_forecast_changes_no_argument(X, labels, model):
    given_X, given_labels = X.copy(), labels.copy()
    model.predict(given_X, given_labels)
    np.testing.assert_array_equal(given_X, X)
    np.testing.assert_array_equal(given_labels, labels)


# The fit


@pytest.mark.parametrize("n_cores", [1, 7, None])
def test_models_are_the_same_on_any_number_of_cores(
    X, y, labels, folds, model, n_cores, monkeypatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: n_cores)
    again = fit_outputs(X, {"y": y}, labels, folds, RECIPE)["y"]
    assert again.global_text == model.global_text
    assert again.cluster_texts == model.cluster_texts
    assert again.scores == model.scores
    assert again.weight == model.weight
    for cluster, residuals in model.calibration.residuals.items():
        np.testing.assert_array_equal(again.calibration.residuals[cluster], residuals)


def test_an_output_is_fitted_as_if_it_were_alone(X, y, labels, folds, model):
    both = fit_outputs(X, {"other": -2 * y, "y": y}, labels, folds, RECIPE)
    assert list(both) == ["other", "y"]
    assert both["y"].global_text == model.global_text
    assert both["y"].cluster_texts == model.cluster_texts
    assert both["y"].scores == model.scores
    assert both["other"].global_text != model.global_text


def test_no_output_gives_no_model(X, labels, folds):
    assert fit_outputs(X, {}, labels, folds, NumberRecipe(PARAMS)) == {}


def test_a_cluster_has_a_model_from_min_cluster_rows_on(X, y, labels, folds):
    size = int((labels == 3).sum())
    for limit, clusters in ((size, [0, 1, 2, 3]), (size + 1, [0, 1, 2])):
        fitted = fit_outputs(
            X, {"y": y}, labels, folds, NumberRecipe(PARAMS, (), "cluster", limit)
        )["y"]
        assert list(fitted.cluster_texts) == clusters
        _, weights = fitted.predict(X, labels)
        np.testing.assert_array_equal(weights, np.isin(labels, clusters).astype(float))


@pytest.mark.parametrize(("combine", "weight"), [("global", 0.0), ("cluster", 1.0)])
def test_combine_fixes_the_weight_of_what_is_served(
    X, y, labels, folds, model, oracle, combine, weight
):
    fixed = fit_outputs(X, {"y": y}, labels, folds, NumberRecipe(PARAMS, [4], combine))["y"]
    assert fixed.weight == weight
    assert (
        fixed.scores.errors["blend"] == fixed.scores.errors[combine] == model.scores.errors[combine]
    )
    np.testing.assert_array_equal(fixed.predict(X, labels)[0], model.predict(X, labels, weight)[0])


def test_progress_counts_every_model_once(X, y, labels, folds):
    calls: list[tuple[int, int]] = []
    fit_outputs(
        X,
        {"a": y, "b": y},
        labels,
        folds,
        NumberRecipe(PARAMS),
        progress=lambda *call: calls.append(call),
    )
    parts = [folds[0].train, folds[1].train, np.arange(N_ROWS)]
    needed = [(rows, 40 * len(rows) / N_ROWS) for rows in parts]
    large = [(labels[rows] == c).sum() >= n for rows, n in needed for c in (0, 1, 2, 3)]
    total = 2 * (len(parts) + sum(large))
    assert calls == [(i, total) for i in range(1, total + 1)]


@pytest.mark.parametrize("kept", [0, 1])
def test_fewer_than_two_folds_are_refused(X, y, labels, folds, kept):
    with pytest.raises(DataValidationError, match="two folds"):
        fit_outputs(X, {"y": y}, labels, folds[:kept], NumberRecipe(PARAMS))


def test_what_lightgbm_refuses_is_a_training_error(X, y, labels, folds):
    with pytest.raises(ModelTrainingError, match=r"LightGBM refused .* negative"):
        fit_outputs(
            X, {"y": y - 100}, labels, folds, NumberRecipe(PARAMS | {"objective": "poisson"})
        )


def test_fitting_changes_no_argument(X, y, labels, folds):
    given = {"X": X.copy(), "y": y.copy(), "labels": labels.copy(), "params": dict(PARAMS)}
    fit_outputs(
        given["X"], {"y": given["y"]}, given["labels"], folds, NumberRecipe(given["params"])
    )
    np.testing.assert_array_equal(given["X"], X)
    np.testing.assert_array_equal(given["y"], y)
    np.testing.assert_array_equal(given["labels"], labels)
    assert given["params"] == PARAMS


# The folds


def test_fold_scores_are_those_of_models_trained_by_hand(y, labels, folds, model, oracle):
    everyone, own = (np.concatenate(parts) for parts in oracle)
    served = (1 - model.weight) * everyone + model.weight * own
    valid = np.concatenate([fold.valid for fold in folds])
    scores = model.scores
    assert scores.n_rows == len(valid) == 200
    assert scores.errors == {
        "global": pytest.approx(rmse(y[valid], everyone), rel=1e-12),
        "cluster": pytest.approx(rmse(y[valid], own), rel=1e-12),
        "blend": pytest.approx(rmse(y[valid], served), rel=1e-12),
    }
    assert sorted(scores.clusters) == [NOISE, 0, 1, 2, 3]
    for cluster, figures in scores.clusters.items():
        rows = labels[valid] == cluster
        error = y[valid][rows] - served[rows]
        spread = ((y[valid][rows] - y[valid][rows].mean()) ** 2).sum()
        assert figures == {
            "rmse": pytest.approx(math.sqrt((error**2).mean())),
            "mae": pytest.approx(np.abs(error).mean()),
            "r2": pytest.approx(1 - (error**2).sum() / spread),
            "n_rows": rows.sum(),
        }


def test_the_weight_is_chosen_on_the_folds(y, folds, model, oracle):
    assert model.weight == slow_choice([y[fold.valid] for fold in folds], *oracle, np.square)


@pytest.mark.parametrize("objective", ["regression_l1", "quantile", "huber"])
def test_absolute_objectives_choose_the_weight_by_absolute_loss(X, labels, folds, objective):
    # A few rows are so far off that squares see nothing else.
    rng = np.random.default_rng(34)
    y = X[:, 0] * np.where(labels == 0, 1, -1) + rng.standard_t(1.1, N_ROWS)
    truth = [y[fold.valid] for fold in folds]
    forecasts = out_of_fold(X, y, labels, folds, objective)
    by_loss = {loss: slow_choice(truth, *forecasts, loss) for loss in (np.abs, np.square)}
    assert by_loss[np.abs] != by_loss[np.square]
    params = PARAMS | {"objective": objective}
    fitted = fit_outputs(X, {"y": y}, labels, folds, NumberRecipe(params, [4]))["y"]
    assert fitted.weight == by_loss[np.square if objective == "huber" else np.abs]


def test_intervals_are_calibrated_on_what_is_served_out_of_fold(y, labels, folds, model, oracle):
    everyone, own = (np.concatenate(parts) for parts in oracle)
    valid = np.concatenate([fold.valid for fold in folds])
    residuals = y[valid] - ((1 - model.weight) * everyone + model.weight * own)
    assert len(residuals) == 200
    found = model.calibration.residuals
    np.testing.assert_allclose(found[NOISE], np.sort(residuals), rtol=1e-12)
    enough = [c for c in (0, 1, 2, 3) if (labels[valid] == c).sum() >= 100]
    assert sorted(found) == [NOISE, *enough]


def test_a_fold_forecasts_rows_that_none_of_its_models_was_trained_on(X, labels):
    seen, first, second = np.arange(300), np.arange(300, 400), np.arange(400, 500)
    y = np.where(np.arange(N_ROWS) < 300, 0.0, 1000.0)
    folds = [Fold(seen, first), Fold(seen, second)]
    scores = fit_outputs(X, {"y": y}, labels, folds, NumberRecipe(PARAMS))["y"].scores
    assert scores.errors == {"global": 1000.0, "cluster": 1000.0, "blend": 1000.0}
    assert {figures["mae"] for figures in scores.clusters.values()} == {1000.0}


def test_a_fold_blend_has_the_score_of_a_whole_fit(X, y, labels, folds, model):
    found = fit_outputs(X, {"y": y}, labels, folds, RECIPE, final=False)["y"]
    assert found.texts == {}
    assert found.scores.errors["blend"] == model.scores.errors["blend"]


def test_true_segments_beat_the_global_model_and_shuffled_ones_do_not(X, y, labels, folds):
    def errors(segments: np.ndarray) -> dict[str, float]:  # of the three large ones
        recipe = NumberRecipe(PARAMS, [4], min_cluster_rows=60)
        return fit_outputs(X, {"y": y}, segments, folds, recipe, final=False)["y"].scores.errors

    real = errors(labels)
    assert real["blend"] < 0.9 * real["global"]
    control = errors(np.random.default_rng(0).permutation(labels))["blend"]
    assert control == pytest.approx(real["global"], rel=0.01)


def test_without_clusters_all_ways_are_the_global_model(X, y, folds):
    fitted = fit_outputs(X, {"y": y}, np.full(N_ROWS, NOISE), folds, NumberRecipe(PARAMS))["y"]
    assert (fitted.weight, fitted.cluster_texts) == (0.0, {})
    assert len(set(fitted.scores.errors.values())) == 1
    assert list(fitted.scores.clusters) == [NOISE]


# The weight


def slow_choice(truth, everyone, own, loss) -> float:
    """The one-standard-error rule, row by row in plain Python."""

    def mean(values):
        return math.fsum(values) / len(values)

    def standard_error(values):
        if len(values) < 2:
            return 0.0
        center = mean(values)
        variance = math.fsum((v - center) ** 2 for v in values) / (len(values) - 1)
        return math.sqrt(variance / len(values))

    def losses(weight):
        return [
            [
                float(loss(y - ((1 - weight) * g + weight * c)))
                for y, g, c in zip(*fold, strict=True)
            ]
            for fold in zip(truth, everyone, own, strict=True)
        ]

    best = min(WEIGHTS, key=lambda weight: mean(list(chain(*losses(weight)))))
    for weight in WEIGHTS:
        paired = [
            [a - b for a, b in zip(*fold, strict=True)]
            for fold in zip(losses(weight), losses(best), strict=True)
        ]
        rows = list(chain(*paired))
        if mean(rows) <= max(standard_error(rows), standard_error([mean(f) for f in paired])):
            return weight
    raise AssertionError("the best weight is not worse than itself")


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.sampled_from([np.square, np.abs]),
)
def test_the_weight_is_that_of_a_plain_loop(seed, sizes, loss):
    rng = np.random.default_rng(seed)
    truth = [rng.normal(size=n) for n in sizes]
    spread_global, spread_own = rng.uniform(0, 2, (2, len(sizes)))
    everyone = [y + rng.normal(0, s, len(y)) for y, s in zip(truth, spread_global, strict=True)]
    own = [y + rng.normal(0, s, len(y)) for y, s in zip(truth, spread_own, strict=True)]
    assert choose_weight(truth, everyone, own, loss) == slow_choice(truth, everyone, own, loss)


def fold_forecasts(*errors: tuple[float, float]) -> tuple[list[np.ndarray], ...]:
    """Truth, global and cluster forecasts of folds with these (global, cluster) errors."""
    rng = np.random.default_rng(41)
    truth = [rng.normal(size=200) for _ in errors]
    signs = [rng.choice([-1.0, 1.0], size=(2, 200)) for _ in errors]
    everyone = [y + e[0] * s[0] for y, e, s in zip(truth, errors, signs, strict=True)]
    own = [y + e[1] * s[1] for y, e, s in zip(truth, errors, signs, strict=True)]
    return truth, everyone, own


@pytest.mark.parametrize(
    ("errors", "weight"),
    [
        (((5.0, 0.01), (5.0, 0.01)), 1.0),  # clusters clearly better
        (((0.01, 5.0), (0.01, 5.0)), 0.0),  # clearly worse
        (((5.0, 5.0), (5.0, 5.0)), 0.5),  # independent errors of one size
        (((3.0, 1.0), (1.0, 3.0)), 0.0),  # the folds disagree
        (((5.0, 0.01), (0.01, 5.0)), 0.0),
    ],
)
def test_the_weight_is_what_clusters_are_worth(errors, weight):
    assert choose_weight(*fold_forecasts(*errors)) == weight


def test_forecasts_that_are_alike_need_no_clusters():
    truth = [np.arange(10.0), np.arange(20.0)]
    assert choose_weight(truth, truth, truth) == 0.0


def test_a_gain_within_its_error_goes_to_the_global_model():
    # Clusters are better on average, but for one row of forty.
    truth = [np.zeros(20), np.zeros(20)]
    everyone = [np.r_[np.full(19, 1.0), 3.0], np.full(20, 1.0)]
    own = [np.r_[np.full(19, 1.05), 0.0], np.full(20, 1.05)]
    assert np.mean(np.square(own)) < np.mean(np.square(everyone))
    assert choose_weight(truth, everyone, own) == 0.0


def levels(n_rows: int = 300, n_segments: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A resource that is a level of each of six segments of 50 rows, which no feature tells."""
    rng = np.random.default_rng(47)
    labels = np.arange(n_rows) % n_segments
    level = np.array([0.13, 0.02, 0.16, 0.05, 0.11, 0.08])[labels]
    return rng.normal(size=(n_rows, 3)), level + rng.normal(0, 0.02, n_rows), labels


def test_segments_that_halve_the_error_have_weight_though_the_folds_hold_fewer_of_their_rows():
    # 50 rows a segment are 30 and 40 of those that the two folds train on.
    X, y, labels = levels()
    folds = time_ordered_folds(len(y))
    model = fit_outputs(X, {"y": y}, labels, folds, NumberRecipe(PARAMS))["y"]
    errors = model.scores.errors
    assert errors["cluster"] < 0.55 * errors["global"]
    assert (model.weight, model.clusters) == (1.0, [0, 1, 2, 3, 4, 5])
    shuffled = np.random.default_rng(48).permutation(labels)
    control = fit_outputs(X, {"y": y}, shuffled, folds, NumberRecipe(PARAMS), final=False)["y"]
    assert control.weight == 0.0


def test_folds_judge_the_models_of_the_clusters_that_are_kept():
    X, y, labels = levels()
    labels[labels == 5] = np.where(np.flatnonzero(labels == 5) < 234, 5, NOISE)  # 39 rows: too few
    folds = time_ordered_folds(len(y))
    model = fit_outputs(X, {"y": y}, labels, folds, NumberRecipe(PARAMS, combine="cluster"))["y"]
    assert model.clusters == [0, 1, 2, 3, 4]
    everyone = fit_outputs(X, {"y": y}, labels, folds, NumberRecipe(PARAMS, combine="global"))["y"]
    served = np.concatenate([labels[fold.valid] for fold in folds])
    same = model.fold_values == everyone.fold_values
    np.testing.assert_array_equal(np.unique(served[~same]), [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(np.unique(served[same]), [NOISE, 5])
