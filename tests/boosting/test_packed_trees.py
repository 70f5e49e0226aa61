from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from tsclust_model._kernels import rows as kernels
from tsclust_model.boosting.intervals import Calibration
from tsclust_model.boosting.output_model import Ensemble, FoldScores, NumberModel
from tsclust_model.boosting.packed_trees import Forest, is_packable
from tsclust_model.errors import PredictionError

# LightGBM takes what is closer to zero than the first of these for zero.
TINY = float(np.float32(1e-35))
TINIEST = [0.0, -0.0, TINY, -TINY, 1e-35, -1e-35, 1e-40, -1e-40, 5e-324, -5e-324]
TINIEST += [float(np.nextafter(TINY, 1)), -float(np.nextafter(TINY, 1)), 1e-34, -1e-34]
LARGEST = [1e300, -1e300, 1e308, -1e308, np.inf, -np.inf]
CODES = [-0.5, -0.999, -1.0, -1.5, -7.0, 2.7, 0.999, 31.0, 31.99, 32.0, 63.5, 64.0, 1e5]
CODES += [2.0**31 - 1, 2.0**31, 2.0**32 + 3, 2.0**63, 1e19, -(2.0**31), 1e300]

# With these a tree grows until its leaves are used up.
GREEDY = {"min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 1e-9, "min_data_in_bin": 1}
GREEDY_CATEGORIES = {"cat_smooth": 0.0, "cat_l2": 0.0, "min_data_per_group": 1}
PLAIN = ["regression", "regression_l1", "huber", "fair", "quantile", "mape"]


def gradients(forecast: np.ndarray, data: lgb.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """An objective that LightGBM does not know: the squared error."""
    return forecast - data.get_label(), np.ones(len(forecast))


def named(params: Mapping[str, Any]) -> str:
    """The same in every process: a function is shown by its name."""
    return str({key: getattr(value, "__name__", value) for key, value in params.items()})


def train(
    X: np.ndarray,
    y: np.ndarray,
    params: Mapping[str, Any] | None = None,
    rounds: int = 5,
    categorical: Sequence[int] = (),
) -> str:
    managed = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1}
    data = lgb.Dataset(X, y, categorical_feature=list(categorical))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM's, of parameters that come as arguments too
        booster = lgb.train(GREEDY | dict(params or {}) | managed, data, rounds)
    return booster.model_to_string()


def by_lightgbm(text: str, X: np.ndarray) -> np.ndarray:
    """The oracle."""
    return np.asarray(lgb.Booster(model_str=text).predict(X, num_threads=1), dtype=np.float64)


def by_forest(texts: Sequence[str], X: np.ndarray) -> np.ndarray:
    """Every model forecasts every row."""
    nobody = np.empty((1, 0), dtype=np.int64)
    labels = np.zeros(len(X), dtype=np.int64)
    return Forest.pack(texts).predict(X, labels, nobody, np.arange(len(texts)))


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal, with -0.0 unlike 0.0."""
    found, expected = np.ascontiguousarray(found), np.ascontiguousarray(expected)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found.view(np.int64), expected.view(np.int64))


def assert_same_as_lightgbm(texts: Sequence[str], X: np.ndarray) -> None:
    assert all(map(is_packable, texts))
    assert_same_bits(by_forest(texts, X), np.array([by_lightgbm(text, X) for text in texts]))


def lines(text: str, name: str) -> list[str]:
    """The values of a line, of all trees."""
    return [
        value
        for line in text.split("\n")
        if line.startswith(f"{name}=")
        for value in line.partition("=")[2].split()
    ]


def thresholds(text: str) -> np.ndarray:
    return np.array(lines(text, "threshold"), dtype=np.float64)


def leaves(text: str) -> int:
    """Of the largest tree."""
    return max(map(int, lines(text, "num_leaves")))


def missing_types(text: str) -> set[int]:
    """0 none, 1 zero, 2 NaN, of all tests."""
    return {int(decision) >> 2 & 3 for decision in lines(text, "decision_type")}


def column(rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
    if kind == "tiny":
        return rng.choice([*TINIEST, 1.0, -1.0], n)
    if kind == "huge":
        return rng.choice([*LARGEST[:4], 0.0, 1.0, 1e299, -1e299], n) * rng.uniform(0.5, 1, n)
    if kind == "round":
        return np.round(rng.normal(0, 2, n))
    if kind == "sparse":
        return np.where(rng.random(n) < 0.7, 0.0, rng.normal(0, 1, n))
    if kind == "positive":
        return rng.exponential(1.0, n) + 0.5
    if kind == "few":
        return rng.integers(0, 5, n).astype(float)
    if kind == "codes":
        return np.floor(rng.exponential(40, n))
    return rng.normal(0, 1, n)


CATEGORICAL = ("few", "codes")
KINDS = ("normal", "round", "sparse", "positive", "tiny", "huge", *CATEGORICAL)


def probes(rng: np.random.Generator, X: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """The rows of X, and rows mixed of thresholds, their neighbours and values at every edge."""
    known = np.concatenate([np.empty(0), *map(thresholds, texts)])
    if len(known) > 200:
        known = rng.choice(known, 200)
    with np.errstate(over="ignore"):  # next to the largest number is infinity
        beside = [np.nextafter(known, np.inf), np.nextafter(known, -np.inf)]
    edges = np.concatenate([known, *beside, -known])
    pool = np.concatenate([edges, TINIEST, LARGEST, CODES, np.full(8, np.nan)])
    mixed = rng.choice(pool, (150, X.shape[1]))
    from_rows = rng.random(mixed.shape) < 0.4
    mixed[from_rows] = rng.choice(X.ravel(), int(from_rows.sum()))
    return np.concatenate([X, mixed])


@st.composite
def models(draw: st.DrawFn, kinds: Sequence[str], nan: float, seed: int) -> tuple[str, np.ndarray]:
    """A model, and the rows it was trained on."""
    rng = np.random.default_rng([seed, draw(st.integers(0, 2**32 - 1))])
    n = draw(st.sampled_from([3, 30, 120, 300]))
    X = np.stack([column(rng, kind, n) for kind in kinds], axis=1)
    X[rng.random(X.shape) < nan] = np.nan
    y = np.where(np.isfinite(X), np.sign(X) * np.minimum(np.abs(X), 50), 3.0).sum(axis=1)
    y = y + rng.normal(0, 5, n)
    if draw(st.booleans()):
        y = np.round(y)
    categorical = [i for i, kind in enumerate(kinds) if kind in CATEGORICAL]
    if not draw(st.booleans()):
        categorical = []
    objective: Any = draw(st.sampled_from([*PLAIN, gradients]))
    boosting = draw(st.sampled_from(["gbdt", "gbdt", "gbdt", "dart", "goss"]))
    params: dict[str, Any] = {
        "objective": objective,
        "num_leaves": draw(st.sampled_from([2, 3, 8, 31, 64, 65, 128, 129, 200])),
        "learning_rate": draw(st.sampled_from([0.1, 1.0, 1e-3])),
        "max_bin": draw(st.sampled_from([3, 16, 255])),
        "use_missing": draw(st.sampled_from([True, True, False])),
        "zero_as_missing": draw(st.sampled_from([False, False, True])),
        "boosting": boosting,
        "extra_trees": draw(st.booleans()),
        "boost_from_average": draw(st.booleans()),
        "max_cat_to_onehot": draw(st.sampled_from([1, 4, 300])),
        "max_cat_threshold": draw(st.sampled_from([1, 32, 500])),
        "lambda_l1": draw(st.sampled_from([0.0, 0.0, 1.0])),
        "path_smooth": draw(st.sampled_from([0.0, 0.0, 2.0])),
        "enable_bundle": draw(st.booleans()),
        "seed": seed % 1000,
    }
    if boosting == "gbdt" and draw(st.booleans()):
        params |= {"bagging_fraction": 0.6, "bagging_freq": 1, "feature_fraction": 0.7}
    if draw(st.booleans()):
        params["min_data_in_leaf"] = 5
    if not categorical and objective == "regression" and draw(st.booleans()):
        params["monotone_constraints"] = rng.integers(-1, 2, len(kinds)).tolist()
    rounds = draw(st.sampled_from([1, 2, 7]))
    try:
        return train(X, y, GREEDY_CATEGORIES | params, rounds, categorical), X
    except lgb.basic.LightGBMError:  # some of these it cannot train
        reject()


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[str], np.ndarray]:
    """One to four models of the same columns, and rows to forecast."""
    seed = draw(st.integers(0, 2**32 - 1))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    shares = st.sampled_from([0.0, 0.0, 0.2])
    made = [draw(models(kinds, draw(shares), seed)) for _ in range(draw(st.integers(1, 4)))]
    texts = [text for text, _ in made]
    X = np.concatenate([rows for _, rows in made])
    return texts, probes(np.random.default_rng(seed), X, texts)


@given(forests())
def test_a_forest_forecasts_as_lightgbm_to_the_last_bit(forest):
    assert_same_as_lightgbm(*forest)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Numbers, numbers with zeros, codes of 200 categories, small numbers."""
    rng = np.random.default_rng(1)
    kinds = ("normal", "sparse", "codes", "tiny")
    return np.stack([column(rng, kind, 500) for kind in kinds], axis=1)


@pytest.fixture(scope="module")
def y(rows: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(2)
    effect = rng.normal(0, 2, 1000)[rows[:, 2].astype(int)]
    return 3 * rows[:, 0] + rows[:, 1] ** 2 + effect + rng.normal(0, 1, len(rows))


@pytest.fixture(scope="module")
def edges(rows: np.ndarray) -> np.ndarray:
    return probes(np.random.default_rng(3), rows, [])


@pytest.mark.parametrize("objective", [*PLAIN, gradients, "none"], ids=[*PLAIN, "own", "none"])
@pytest.mark.parametrize("boosting", ["gbdt", "dart", "goss"])
def test_each_plain_objective_is_a_sum_of_trees(rows, y, edges, objective, boosting):
    if objective == "none":  # written so where a text is edited, or of another version
        text = train(rows, y, {"boosting": boosting})
        text = text.replace("\nobjective=regression\n", "\nobjective=none\n")
    else:
        text = train(rows, y, {"objective": objective, "boosting": boosting})
    assert_same_as_lightgbm([text], edges)


@pytest.mark.parametrize(
    "params",
    [
        {"extra_trees": True},
        {"bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction": 0.5},
        {"monotone_constraints": [1, 1, 0, 0], "monotone_constraints_method": "advanced"},
        {"interaction_constraints": [[0, 1], [2, 3]]},
        {"linear_tree": False},
        {"max_depth": 2},
        {"path_smooth": 10.0},
        {"lambda_l1": 1e6},
        {"lambda_l2": 1e9},
        {"max_delta_step": 1e-3},
        {"use_quantized_grad": True},
        {"learning_rate": 1e-30},
        {"learning_rate": 1e30},
        {"boost_from_average": False},
        {"alpha": 0.99, "objective": "quantile"},
        {"pred_early_stop": True, "pred_early_stop_freq": 1, "pred_early_stop_margin": 1e-6},
        {"objective": gradients, "pred_early_stop": True, "pred_early_stop_margin": 1e-6},
        {"predict_raw_score": True},
        {"num_iteration_predict": 1, "start_iteration_predict": 2},
    ],
    ids=named,
)
def test_each_parameter_of_a_sum_of_trees_is_forecast_as_lightgbm_does(rows, y, edges, params):
    assert_same_as_lightgbm([train(rows, y, params, categorical=[])], edges)


@pytest.mark.parametrize(
    "params",
    [
        *({"objective": name} for name in ("poisson", "gamma", "tweedie", "binary")),
        *({"objective": name} for name in ("cross_entropy", "cross_entropy_lambda")),
        *({"objective": name, "num_class": 3} for name in ("multiclass", "multiclassova")),
        *({"objective": name, "reg_sqrt": True} for name in ("regression", "huber")),
        {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
        {"linear_tree": True},
        {"linear_tree": True, "objective": "quantile"},
        {"linear_tree": True, "num_leaves": 2},
        {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1, "objective": "poisson"},
        {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1, "objective": "quantile"},
    ],
    ids=named,
)
def test_a_model_that_is_not_its_sum_of_trees_is_not_packed(rows, y, params):
    objective = params.get("objective", "regression")
    if "class" in objective:
        y = np.digitize(y, [-1, 1])
    elif objective not in ("regression", "huber", "regression_l1", "quantile"):
        y = (y > 0).astype(float) + (objective == "gamma")
    text = train(rows, y, params)
    if is_packable(text):
        assert params == {"objective": "huber", "reg_sqrt": True}  # huber knows no root
        assert_same_as_lightgbm([text], rows)
    else:
        expected = by_lightgbm(text, rows)
        assert expected.ndim == 2 or (by_forest([text], rows)[0] != expected).any()


@pytest.mark.parametrize("num_leaves", [2, 63, 64, 65, 127, 128, 129, 192, 193, 400])
def test_a_tree_of_any_size_is_packed(rows, y, edges, num_leaves):
    text = train(rows, y, {"num_leaves": num_leaves, "max_bin": 255}, rounds=2)
    assert leaves(text) == num_leaves
    assert_same_as_lightgbm([text], edges)


def test_a_tree_as_deep_as_it_has_leaves_is_packed():
    X = np.arange(300.0)[:, None]
    y = np.exp2(np.arange(300) / 8)  # the last leaf is always the one to split
    for X_, name in ((X, "left"), (-X, "right")):
        text = train(X_, y, {"num_leaves": 200, "max_bin": 1000}, rounds=3)
        assert leaves(text) > 100, name
        assert_same_as_lightgbm([text], np.concatenate([X_, X_ + 0.5, X_ - 0.5, -X_]))


def test_a_value_at_a_threshold_goes_left_and_the_next_one_right(rows, y):
    text = train(rows[:, :1], y, {"num_leaves": 31})
    limits = np.unique(thresholds(text))
    X = np.concatenate([limits, np.nextafter(limits, np.inf), np.nextafter(limits, -np.inf)])
    assert_same_as_lightgbm([text], X[:, None])
    stump = train(rows[:, :1], y, {"num_leaves": 2}, rounds=1)
    (limit,) = thresholds(stump)
    at, above = by_forest([stump], np.array([[limit], [np.nextafter(limit, np.inf)]]))[0]
    low, high = np.array(lines(stump, "leaf_value"), dtype=np.float64)
    assert (at, above) == (low, high)


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
@pytest.mark.parametrize(
    ("share", "params", "kinds"),
    [
        (0.0, {}, {0}),
        (0.2, {}, {2}),
        (0.0, {"zero_as_missing": True}, {1}),
        (0.2, {"zero_as_missing": True}, {1}),
        (0.2, {"use_missing": False}, {0}),
        (0.2, {"use_missing": False, "zero_as_missing": True}, {0}),
    ],
    ids=str,
)
def test_what_is_missing_goes_where_lightgbm_sends_it(shift, share, params, kinds):
    rng = np.random.default_rng(4)
    X = np.where(rng.random((400, 3)) < 0.3, 0.0, rng.normal(shift, 1, (400, 3)))
    y = np.where(X == 0, 4.0, X).sum(axis=1) + rng.normal(0, 0.1, 400)
    X[rng.random(X.shape) < share] = np.nan
    text = train(X, y, params)
    assert missing_types(text) >= kinds
    known = np.resize([*TINIEST, np.nan, *LARGEST, shift], (60, 3))
    assert_same_as_lightgbm([text], np.concatenate([X, known, known[:, ::-1], probes(rng, X, [])]))


@pytest.mark.parametrize("zero", ["0.", "-0."])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_threshold_of_zero_is_packed(rows, y, zero, share):
    """LightGBM trains none."""
    X = np.where(np.random.default_rng(16).random((len(rows), 1)) < share, np.nan, rows[:, :1])
    text = train(X, y, {"num_leaves": 2}, rounds=1)
    (limit,) = lines(text, "threshold")
    text = text.replace(f"\nthreshold={limit}\n", f"\nthreshold={zero.ljust(len(limit), '0')}\n")
    assert thresholds(text) == [0.0]
    assert_same_as_lightgbm([text], np.array([[*TINIEST, *LARGEST, np.nan]]).T)


@pytest.mark.parametrize("value", [*TINIEST, *LARGEST, np.nan], ids=str)
@pytest.mark.parametrize("zero_as_missing", [False, True])
def test_each_value_at_an_edge_goes_where_lightgbm_sends_it(value, zero_as_missing):
    X = np.resize([*TINIEST, -1.0, 1.0, 2.0, 1e300, -1e300], 320)[:, None].copy()
    y = np.where(np.signbit(X[:, 0]), -1.0, 1.0) * np.log1p(np.abs(X[:, 0])) + (X[:, 0] == 0)
    text = train(X, y, {"zero_as_missing": zero_as_missing})
    assert_same_as_lightgbm([text], np.array([[value]]))


@pytest.mark.parametrize("onehot", [1, 300])
def test_each_code_goes_where_lightgbm_sends_it(onehot):
    rng = np.random.default_rng(5)
    X = np.stack([np.floor(rng.exponential(60, 900)), rng.normal(0, 1, 900)], axis=1)
    y = rng.normal(0, 5, 2000)[X[:, 0].astype(int)] + X[:, 1]
    params = GREEDY_CATEGORIES | {"max_cat_to_onehot": onehot, "max_cat_threshold": 500}
    text = train(X, y, params, categorical=[0])
    assert sum(map(int, lines(text, "num_cat"))) > 10
    assert np.diff(list(map(int, lines(text, "cat_boundaries")))).max() > 3  # words of 32 bits
    codes = np.concatenate([np.arange(-70, 1000, 0.5), CODES, LARGEST, TINIEST, [np.nan]])
    assert_same_as_lightgbm([text], np.stack([codes, np.zeros(len(codes))], axis=1))


def test_codes_far_apart_are_packed():
    rng = np.random.default_rng(6)
    codes = np.array([0, 31, 32, 63, 64, 1000, 99_999])
    X = codes[rng.integers(0, len(codes), 400)].astype(float)[:, None]
    y = np.sin(X[:, 0]) * 10 + rng.normal(0, 0.1, 400)
    text = train(X, y, GREEDY_CATEGORIES | {"max_cat_to_onehot": 1}, categorical=[0])
    asked = np.concatenate([codes, codes + 1, codes - 1, codes + 0.5, [100_000, 3_200_000]])
    assert_same_as_lightgbm([text], asked.astype(float)[:, None])


def test_trees_with_and_without_categories_are_packed_together(rows, y, edges):
    with_codes = train(rows, y, GREEDY_CATEGORIES | {"feature_fraction": 0.5}, 20, [2])
    assert set(lines(with_codes, "num_cat")) > {"0"}
    plain = train(rows, y, {}, 3)
    only_codes = train(rows[:, 2:3], y, GREEDY_CATEGORIES, 3, [0])
    assert_same_as_lightgbm([plain, with_codes, plain, with_codes], edges)
    assert_same_as_lightgbm([only_codes], edges[:, 2:3])


def test_a_constant_model_is_packed(rows, y, edges):
    few = train(rows[:3], y[:3], {"min_data_in_leaf": 20})
    same = train(rows, np.full(len(rows), 7.25))
    zero = train(rows, np.zeros(len(rows)))
    negative = train(rows, np.full(len(rows), -1e-3), {"objective": "quantile"})
    assert leaves(few) == leaves(same) == leaves(zero) == 1
    assert_same_as_lightgbm([few, same, zero, negative], edges)
    assert_same_as_lightgbm([zero], edges)
    assert by_forest([same], edges[:2]).tolist() == [[7.25, 7.25]]


@pytest.mark.parametrize("n_models", [1, 2, 3, 50])
def test_models_that_are_all_constant_are_packed(n_models):
    X = np.zeros((5, 1))
    made = [train(X, np.full(5, 1.5 * i)) for i in range(n_models)]
    assert set(map(leaves, made)) == {1}
    expected = np.repeat(1.5 * np.arange(n_models)[:, None], 5, axis=1)
    assert_same_bits(by_forest(made, X), expected)


def test_an_outcome_that_never_changes_is_forecast(batch):
    """As a whole, in each segment, and for a second output."""
    same = {c: train(batch[:50], np.full(50, 2.0 + c)) for c in (-1, 0, 1)}
    own = {c: text for c, text in same.items() if c >= 0}
    models = [output(same[-1], own, 0.5), output(same[0], own, 1.0)]
    labels = np.arange(-1, 3)
    found = Ensemble(models).predict(batch[:4], labels)
    assert [part.tolist() for parts in found for part in parts] == [
        [1.0, 1.5, 2.0, 1.0],
        [0.0, 0.5, 0.5, 0.0],
        [2.0, 2.0, 3.0, 2.0],
        [0.0, 1.0, 1.0, 0.0],
    ]


@pytest.mark.parametrize("beside", [0, 1])
def test_a_model_without_a_tree_forecasts_zero(rows, y, beside):
    booster = lgb.train({"verbose": -1, "num_threads": 1}, lgb.Dataset(rows, y), 3)
    whole, empty = booster.model_to_string(), booster.model_to_string(start_iteration=3)
    assert "Tree=" not in empty
    assert not by_lightgbm(empty, rows).any()
    models = [output(empty, {0: empty}, 0.5), output(whole, {0: empty}, 0.5)][: 1 + beside]
    assert_blended(models, rows, np.arange(len(rows)) % 2)


def test_a_part_of_a_model_is_packed(rows, y, edges):
    booster = lgb.train({"verbose": -1, "num_threads": 1}, lgb.Dataset(rows, y), 12)
    parts = [booster.model_to_string(num_iteration=5, start_iteration=i) for i in (0, 4, 9)]
    assert_same_as_lightgbm(parts, edges)


def test_a_model_that_was_changed_after_training_is_packed(rows, y, edges):
    data = lgb.Dataset(rows, y, free_raw_data=False)
    params = {"verbose": -1, "num_threads": 1, "deterministic": True}
    first = lgb.train(params, data, 5)
    refitted = first.refit(rows, y**2, decay_rate=0.3).model_to_string()
    continued = lgb.train(params, data, 5, init_model=first).model_to_string()
    shuffled = lgb.train(params, data, 9).shuffle_models().model_to_string()
    for leaf, value in enumerate([-0.0, 1e-320, 1e308, -1e308, 0.1]):
        first.set_leaf_output(1, leaf, value)
    assert_same_as_lightgbm([refitted, continued, shuffled, first.model_to_string()], edges)


def test_the_sum_of_a_forecast_is_taken_in_the_order_of_the_trees(rows, y):
    """Another order has other bits."""
    text = train(rows, y, {"learning_rate": 0.1}, rounds=60)
    booster = lgb.Booster(model_str=text)
    each = [booster.predict(rows, start_iteration=i, num_iteration=1) for i in range(60)]
    assert (sum(each) != sum(each[::-1])).mean() > 0.5
    assert_same_bits(by_forest([text], rows)[0], sum(each))
    assert_same_as_lightgbm([text], rows)


def test_columns_that_no_tree_asks_for_change_nothing(rows, y):
    X = np.concatenate([rows, np.zeros((len(rows), 3))], axis=1)
    text = train(X, y)
    noisy = X.copy()
    noisy[:, 4:] = np.nan
    assert_same_bits(by_forest([text], noisy), by_forest([text], X))
    assert_same_as_lightgbm([text], noisy)


@pytest.fixture(scope="module")
def texts(rows: np.ndarray, y: np.ndarray) -> list[str]:
    """Models of sizes from one leaf to 300, with missing values of each kind and with codes."""
    with_nan = np.where(np.random.default_rng(8).random(rows.shape) < 0.1, np.nan, rows)
    return [
        train(rows, y),
        train(rows, y, {"num_leaves": 300}, 3),
        train(with_nan, y, {"num_leaves": 70}),
        train(rows, y, GREEDY_CATEGORIES | {"zero_as_missing": True}, 5, [2]),
        train(rows[:4], y[:4], {"min_data_in_leaf": 20}),
        train(rows, y, {"num_leaves": 2, "objective": "quantile"}, 40),
    ]


@pytest.fixture(scope="module")
def batch(rows: np.ndarray, texts: list[str]) -> np.ndarray:
    """3,000 rows, enough for several threads."""
    rng = np.random.default_rng(9)
    return rng.permutation(np.concatenate([probes(rng, rows, texts) for _ in range(5)]))[:3000]


def by_label(
    texts: Sequence[str], X: np.ndarray, labels: np.ndarray, own: np.ndarray, everyone: np.ndarray
) -> np.ndarray:
    """The oracle of `Forest.predict`: one model after the other."""
    each = np.array([by_lightgbm(text, X) for text in texts])
    expected = np.zeros((len(everyone) + own.shape[1], len(X)))
    expected[: len(everyone)] = each[everyone]
    for i, label in enumerate(labels):
        for output, model in enumerate(own[label]):
            if model >= 0:
                expected[len(everyone) + output, i] = each[model, i]
    return expected


# Of six labels: one has no model at all, others miss one.
OWN = np.array([[0, 1], [1, 0], [-1, -1], [2, -1], [-1, 3], [4, 5]])
EVERYONE = np.array([5, 1])


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 499, 500, 501, 3000])
def test_a_batch_of_any_size_is_forecast(texts, batch, n):
    labels = np.random.default_rng(n).integers(0, 6, n)
    found = Forest.pack(texts).predict(batch[:n], labels, OWN, EVERYONE)
    assert (found.shape, found.dtype) == ((4, n), np.float64)
    if n > 0:  # LightGBM refuses no rows
        assert_same_bits(found, by_label(texts, batch[:n], labels, OWN, EVERYONE))


@pytest.mark.parametrize("n", [1, 63, 64, 65, 128, 129])
def test_groups_of_any_size_are_forecast(texts, batch, n):
    labels = np.repeat([4, 0, 2, 5], [n, 1, 64, n])
    for order in (np.arange(len(labels)), np.random.default_rng(n).permutation(len(labels))):
        X, shuffled = batch[: len(labels)], labels[order]
        found = Forest.pack(texts).predict(X, shuffled, OWN, EVERYONE)
        assert_same_bits(found, by_label(texts, X, shuffled, OWN, EVERYONE))


def test_many_labels_of_a_row_or_two_are_forecast(texts, batch):
    rng = np.random.default_rng(10)
    own = rng.integers(-1, len(texts), (2000, 3))
    labels = rng.integers(0, 2000, len(batch))
    found = Forest.pack(texts).predict(batch, labels, own, EVERYONE)
    assert_same_bits(found, by_label(texts, batch, labels, own, EVERYONE))


def test_the_order_of_the_rows_changes_no_bit(texts, batch):
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 6, len(batch))
    forest = Forest.pack(texts)
    found = forest.predict(batch, labels, OWN, EVERYONE)
    for order in (rng.permutation(len(batch)), np.arange(len(batch))[::-1], np.argsort(labels)):
        moved = forest.predict(batch[order], labels[order], OWN, EVERYONE)
        assert_same_bits(moved, found[:, order])


@pytest.mark.parametrize("chunk", [1, 7, 64, 999])
def test_a_row_is_forecast_alone_as_in_a_batch(texts, batch, chunk):
    X = batch[: 3000 if chunk > 7 else 150]
    labels = np.random.default_rng(chunk).integers(0, 6, len(X))
    forest = Forest.pack(texts)
    parts = [
        forest.predict(X[i : i + chunk], labels[i : i + chunk], OWN, EVERYONE)
        for i in range(0, len(X), chunk)
    ]
    assert_same_bits(np.concatenate(parts, axis=1), forest.predict(X, labels, OWN, EVERYONE))


def test_several_threads_share_a_forest(texts, batch):
    forest = Forest.pack(texts)
    labels = np.random.default_rng(12).integers(0, 6, (4, len(batch)))
    expected = [forest.predict(batch, each, OWN, EVERYONE) for each in labels]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: forest.predict(batch, each, OWN, EVERYONE), labels))
    assert_same_bits(np.array(found), np.array(expected))


def test_no_output_for_everyone_or_none_for_labels(texts, batch):
    labels = np.random.default_rng(13).integers(0, 6, 200)
    nobody, none = np.empty(0, dtype=np.int64), np.empty((6, 0), dtype=np.int64)
    forest = Forest.pack(texts)
    whole = forest.predict(batch[:200], labels, OWN, EVERYONE)
    assert_same_bits(forest.predict(batch[:200], labels, OWN, nobody), whole[2:])
    assert_same_bits(forest.predict(batch[:200], labels, none, EVERYONE), whole[:2])
    assert forest.predict(batch[:200], labels, none, nobody).shape == (0, 200)


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda X: np.repeat(X, 2, axis=0)[::2],
        lambda X: np.concatenate([X, X], axis=1)[:, : X.shape[1]],
        lambda X: X[::-1].copy()[::-1],
        lambda X: X.astype(">f8"),
        lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),  # read-only
    ],
)
def test_the_layout_of_the_rows_changes_nothing(texts, batch, layout):
    labels = np.random.default_rng(14).integers(0, 6, 100)
    X = np.ascontiguousarray(batch[:100])
    forest = Forest.pack(texts)
    expected = forest.predict(X, labels, OWN, EVERYONE)
    own = np.asfortranarray(OWN)
    compiled = kernels.forecast.signatures
    assert_same_bits(forest.predict(layout(X), labels[::-1][::-1], own, EVERYONE), expected)
    assert kernels.forecast.signatures == compiled  # nothing waits for another compilation


def test_a_forecast_changes_no_argument(texts, batch):
    arguments = [batch[:300].copy(), np.arange(300) % 6, OWN.copy(), EVERYONE.copy()]
    before = [argument.copy() for argument in arguments]
    forest = Forest.pack(texts)
    first = forest.predict(*arguments)
    for argument, kept in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(argument, kept)
    assert_same_bits(forest.predict(*arguments), first)


def test_models_do_not_depend_on_those_packed_beside_them(texts, batch):
    alone = [by_forest([text], batch[:200])[0] for text in texts]
    assert_same_bits(by_forest(texts[::-1], batch[:200]), np.array(alone[::-1]))


def output(everyone: str, own: Mapping[int, str], weight: float) -> NumberModel:
    scores = FoldScores(n_rows=0, errors={}, clusters={})
    return NumberModel(
        texts={-1: everyone} | dict(own),
        weight=weight,
        scores=scores,
        calibration=Calibration({}),
    )


def blended(
    model: NumberModel, X: np.ndarray, labels: np.ndarray, weight: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The oracle: a booster a row's label at a time."""
    w = model.weight if weight is None else weight
    forecast, share = by_lightgbm(model.global_text, X), np.zeros(len(X))
    for cluster, text in model.cluster_texts.items():
        rows = np.flatnonzero(labels == cluster)
        if len(rows) and w > 0:
            with np.errstate(invalid="ignore"):
                forecast[rows] = (1 - w) * forecast[rows] + w * by_lightgbm(text, X[rows])
            share[rows] = w
    return forecast, share


def assert_blended(
    models: Sequence[NumberModel], X: np.ndarray, labels: np.ndarray, weight: float | None = None
) -> None:
    found = Ensemble(models).predict(X, labels, weight)
    assert len(found) == len(models)
    for model, (forecast, share) in zip(models, found, strict=True):
        expected_forecast, expected_share = blended(model, X, labels, weight)
        assert_same_bits(forecast, expected_forecast)
        assert_same_bits(share, expected_share)


@pytest.fixture(scope="module")
def unpacked(rows: np.ndarray, y: np.ndarray) -> list[str]:
    """Models that ask LightGBM."""
    return [
        train(rows, np.abs(y), {"objective": "poisson"}),
        train(rows, np.abs(y), {"reg_sqrt": True}),
        train(rows, y, {"linear_tree": True}),
        train(rows, y, {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}),
    ]


@st.composite
def ensembles(draw: st.DrawFn) -> tuple[list[tuple[int, dict[int, int], float]], int]:
    """Outputs as positions in the pool of models, of which the last four are not packable."""
    ids = st.sampled_from([0, 1, 2, 3, 7, 1000, 2**40])
    # Most outputs are of one sort, and some mix both within.
    pools = st.sampled_from([(0, 5), (0, 5), (6, 9), (0, 9)])
    made = []
    for _ in range(draw(st.integers(1, 4))):
        places = st.integers(*draw(pools))
        own = draw(st.dictionaries(ids, places, max_size=5))
        made.append((draw(places), own, draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))))
    return made, draw(st.integers(0, 2**32 - 1))


# hypothesis writes a failing example out, and it holds whole models
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(max_examples=60)
@example(([(8, {}, 0.0)], 120), 1.0)  # a linear tree forecasts infinity, far outside
@given(ensembles(), st.sampled_from([None, None, 0.0, 0.25, 1.0]))
def test_an_ensemble_is_the_blend_of_plain_boosters(texts, unpacked, batch, ensemble, weight):
    made, seed = ensemble
    pool = [*texts, *unpacked]
    models = [
        output(pool[everyone], {c: pool[i] for c, i in own.items()}, share)
        for everyone, own, share in made
    ]
    rng = np.random.default_rng(seed)
    X = batch[rng.integers(0, len(batch), rng.integers(1, 200))]
    labels = rng.choice([-1, 0, 1, 2, 3, 4, 7, 8, 999, 1000, 1001, 2**40, -(2**40)], len(X))
    assert_blended(models, X, labels, weight)


@pytest.mark.parametrize("weight", [None, 0.0, 0.25, 1.0])
def test_outputs_that_are_packed_and_not_come_in_their_order(texts, unpacked, batch, weight):
    models = [
        output(unpacked[0], {0: unpacked[1], 3: unpacked[2]}, 0.25),
        output(texts[0], {3: texts[1], 0: texts[2], 9: texts[5]}, 0.5),
        output(texts[1], {0: unpacked[0], 5: texts[3]}, 1.0),
        output(texts[3], {}, 0.75),
        output(texts[4], {5: texts[3], -3: texts[0]}, 0.0),
    ]
    labels = np.random.default_rng(15).choice([-3, -1, 0, 3, 5, 9, 77], len(batch))
    assert_blended(models, batch, labels, weight)


def test_labels_that_were_never_seen_are_served_by_the_global_model(texts, unpacked, batch):
    models = [output(texts[0], {2: texts[1]}, 1.0), output(unpacked[0], {2: unpacked[1]}, 1.0)]
    labels = np.resize([-1, 0, 1, 3, 2**62, -(2**62)], 100)
    for model, (forecast, share) in zip(
        models, Ensemble(models).predict(batch[:100], labels), strict=True
    ):
        assert_same_bits(forecast, by_lightgbm(model.global_text, batch[:100]))
        assert share.tolist() == [0.0] * 100


@pytest.mark.parametrize("n", [0, 1])
def test_an_ensemble_forecasts_no_rows_and_one(texts, unpacked, batch, n):
    models = [output(texts[0], {2: texts[1]}, 1.0), output(unpacked[0], {2: unpacked[1]}, 1.0)]
    found = Ensemble(models).predict(batch[:n], np.full(n, 2))
    assert [part.shape for parts in found for part in parts] == [(n,)] * 4
    if n > 0:
        assert_blended(models, batch[:n], np.full(n, 2))


def test_an_ensemble_of_no_output_forecasts_none(batch):
    assert Ensemble([]).predict(batch[:5], np.zeros(5, dtype=np.int64)) == []


def test_an_ensemble_changes_no_argument(texts, unpacked, batch):
    models = [output(texts[0], {2: texts[1]}, 0.5), output(unpacked[0], {2: unpacked[1]}, 0.5)]
    X, labels = batch[:100].copy(), np.arange(100) % 3
    X.setflags(write=False)
    labels.setflags(write=False)
    assert_blended(models, X, labels)
    np.testing.assert_array_equal(X, batch[:100])
    np.testing.assert_array_equal(labels, np.arange(100) % 3)


def test_rows_that_are_too_narrow_are_refused():
    X = np.arange(40.0).reshape(20, 2)
    forest = Forest.pack([train(X, X[:, 1])])
    with pytest.raises(PredictionError, match="have 0 columns and the models read"):
        forest.predict(X[:, :0], np.zeros(20, np.int64), np.empty((1, 0), np.int64), np.arange(1))
