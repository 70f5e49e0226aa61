from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsclust_model.boosting.intervals import (
    ENOUGH,
    Calibration,
    StepCalibration,
    Support,
    probabilities_of,
)

NOISE = -1
COVERAGES = ["0.5", "0.8", "0.9", "0.95", "0.99"]


def split_conformal(residuals: list[float], coverage: str) -> tuple[float, float]:
    """The textbook ranks, in exact fractions; a rank beyond the residuals takes the outermost."""
    ordered, n = sorted(residuals), len(residuals)
    tail = (1 - Fraction(coverage)) / 2
    low = max(math.floor((n + 1) * tail), 1)
    high = min(math.ceil((n + 1) * (1 - tail)), n)
    return min(ordered[low - 1], 0.0), max(ordered[high - 1], 0.0)


def offsets(
    calibration: Calibration, coverage: float, label: int = NOISE, prediction: float = 0.0
) -> tuple[float, float]:
    lower, upper = calibration.bounds(np.array([prediction]), np.array([label]), coverage)
    return lower[0], upper[0]


def calibrated(residuals: np.ndarray) -> Calibration:
    return Calibration.fit(residuals, np.full(len(residuals), NOISE))


def skewed(n: int, seed: int = 0) -> np.ndarray:
    """Residuals with a long right tail, as those of lengths of stay."""
    return np.random.default_rng(seed).gamma(2.0, size=n) - 1.7


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("n", [1, 2, 9, 19, 20, 99, 100, 199, 999, 1000])
def test_bounds_are_those_of_split_conformal_prediction(n: int, coverage: str):
    residuals = skewed(n)
    found = offsets(calibrated(residuals), float(coverage))
    assert found == split_conformal(residuals.tolist(), coverage)


@given(
    residuals=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=150),
    coverage=st.integers(1, 999).map(lambda thousandth: f"0.{thousandth:03d}"),
)
def test_bounds_are_those_of_split_conformal_prediction_at_any_coverage(
    residuals: list[float], coverage: str
):
    found = offsets(calibrated(np.array(residuals)), float(coverage))
    assert found == split_conformal(residuals, coverage)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_new_rows_lie_within_the_bounds_as_often_as_promised(coverage: float):
    inside = []
    for seed in range(300):
        rows = skewed(99 + 200, seed)
        lower, upper = offsets(calibrated(rows[:99]), coverage)
        inside.append(np.mean((rows[99:] >= lower) & (rows[99:] <= upper)))
    assert np.mean(inside) == pytest.approx(coverage, abs=0.01)


@pytest.mark.parametrize("n", [1001, 1999, 5000, 20_001])
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.999])
def test_thinned_residuals_cover_as_often_as_all_of_them(n: int, coverage: float):
    residuals = skewed(n)
    calibration = calibrated(residuals)
    lower, upper = offsets(calibration, coverage)
    share = np.mean((residuals >= lower) & (residuals <= upper))
    assert coverage <= share <= coverage + 0.01
    assert len(calibration.residuals[NOISE]) == 1000


def test_thinned_residuals_are_order_statistics_with_the_outermost_ones():
    residuals = skewed(5000)
    kept = calibrated(residuals).residuals[NOISE]
    assert set(kept) <= set(residuals)
    np.testing.assert_array_equal(kept, np.sort(kept))
    assert (kept[0], kept[-1]) == (residuals.min(), residuals.max())


@pytest.mark.parametrize(("n", "own"), [(ENOUGH - 1, False), (ENOUGH, True)])
def test_a_cluster_with_enough_residuals_is_calibrated_on_its_own(n: int, own: bool):
    wide, narrow = np.linspace(-50, 50, 500), np.linspace(-1, 1, n)
    calibration = Calibration.fit(np.concatenate([wide, narrow]), np.repeat([4, 7], [500, n]))
    assert sorted(calibration.residuals) == ([-1, 4, 7] if own else [-1, 4])
    both = np.concatenate([wide, narrow]).tolist()
    expected = split_conformal(narrow.tolist() if own else both, "0.9")
    assert offsets(calibration, 0.9, label=7) == expected


@pytest.mark.parametrize("label", [-1, 99])
def test_noise_and_unknown_clusters_use_all_residuals(label: int):
    residuals = skewed(400)
    calibration = Calibration.fit(residuals, np.repeat([0, 1, -1], [150, 150, 100]))
    assert offsets(calibration, 0.8, label) == split_conformal(residuals.tolist(), "0.8")


def test_noise_has_no_calibration_of_its_own():
    residuals = np.concatenate([skewed(300), 100 * skewed(300)])
    calibration = Calibration.fit(residuals, np.repeat([0, -1], 300))
    np.testing.assert_array_equal(calibration.residuals[NOISE], np.sort(residuals))


def test_each_row_of_a_batch_is_answered_as_it_is_alone():
    rng = np.random.default_rng(0)
    calibration = Calibration.fit(skewed(600), rng.integers(-1, 3, 600))
    prediction, labels = rng.normal(5, 3, 50), rng.integers(-1, 5, 50)
    lower, upper = calibration.bounds(prediction, labels, 0.9)
    alone = [
        offsets(calibration, 0.9, label, value)
        for value, label in zip(prediction, labels.tolist(), strict=True)
    ]
    assert list(zip(lower, upper, strict=True)) == alone


@pytest.mark.parametrize("shift", [-100.0, 0.0, 100.0])
def test_bounds_enclose_the_prediction_even_of_a_biased_model(shift: float):
    calibration = calibrated(skewed(200) + shift)
    lower, upper = offsets(calibration, 0.9, prediction=3.0)
    assert lower <= 3.0 <= upper


def test_a_wider_coverage_is_never_narrower():
    calibration = calibrated(skewed(500))
    widths = [np.diff(offsets(calibration, c)).item() for c in np.linspace(0.01, 0.99, 50)]
    assert widths == sorted(widths)


def test_bounds_may_be_lopsided():
    lower, upper = offsets(calibrated(skewed(999)), 0.9)
    assert upper > 1.5 * -lower > 0


def test_an_empty_batch_has_no_bounds():
    calibration = calibrated(skewed(10))
    lower, upper = calibration.bounds(np.empty(0), np.empty(0, dtype=np.int64), 0.9)
    assert lower.shape == upper.shape == (0,)


def test_calibration_changes_none_of_its_inputs():
    residuals, labels = np.array([3.0, -1.0, 2.0]), np.array([0, 1, -1])
    prediction = np.array([1.0])
    Calibration.fit(residuals, labels).bounds(prediction, np.array([0]), 0.9)
    assert residuals.tolist() == [3.0, -1.0, 2.0]
    assert labels.tolist() == [0, 1, -1]
    assert prediction.tolist() == [1.0]


def test_step_intervals_widen_where_residuals_do():
    rng = np.random.default_rng(0)
    steps = np.tile([1, 2, 3], 500)
    residuals = rng.normal(0, 1, 1500) * steps
    none = np.full(1500, -1)
    fit = StepCalibration.fit(residuals, steps, none, np.ones(1500), 3)
    found = replace(fit, symmetry=0.0)
    low, high = found.offsets(np.array([-1, 4]), probabilities_of(0.8))
    assert low.shape == high.shape == (2, 3)
    np.testing.assert_array_equal(low[0], low[1])  # an unknown segment is served by all series
    for step in (1, 2, 3):
        inside = (residuals[steps == step] >= low[0, step - 1]) & (
            residuals[steps == step] <= high[0, step - 1]
        )
        assert inside.mean() == pytest.approx(0.8, abs=0.01)


def test_three_quarters_of_what_is_lopsided_is_taken_back():
    steps, labels = np.ones(999, dtype=int), np.full(999, -1)
    fit = StepCalibration.fit(np.linspace(-1, 4, 999), steps, labels, np.ones(999), 1)
    low, high = replace(fit, symmetry=0.0).offsets(labels[:1], [0.1, 0.9])[:, 0, 0]
    half = (high - low) / 2
    served = fit.offsets(labels[:1], [0.1, 0.9, 0.5])[:, 0, 0]
    np.testing.assert_allclose(served, [0.25 * low - 0.75 * half, 0.25 * high + 0.75 * half, 0.0])


def test_quantiles_never_cross_and_are_the_bounds_of_a_coverage():
    rng = np.random.default_rng(1)
    steps, labels = np.tile([1, 2], 300), np.repeat([0, 1, -1], 200)
    asked = np.sort(rng.uniform(0.001, 0.999, 40))
    by_step = StepCalibration.fit(rng.normal(0.3, 1, 600), steps, labels, np.ones(600), 2)
    of_rows = Calibration.fit(rng.normal(0.3, 1, 600), labels)
    prediction, own = rng.normal(0, 1, 4), np.array([0, 1, -1, 7])
    for found in (by_step.offsets(own, asked), of_rows.quantiles(prediction, own, asked)):
        assert (np.diff(found, axis=0) >= 0).all()
    assert (by_step.offsets(own, [0.5]) == 0).all()
    np.testing.assert_array_equal(of_rows.quantiles(prediction, own, [0.5])[0], prediction)
    np.testing.assert_array_equal(
        of_rows.quantiles(prediction, own, [0.9, 0.1])[::-1], of_rows.bounds(prediction, own, 0.8)
    )


def test_whole_quantiles_keep_their_side_of_the_prediction():
    support, prediction = Support(never_negative=True, whole=True), np.array([2.5, 4.0])
    found = [support.quantile(prediction, prediction + d, p) for d, p in ((-1.2, 0.2), (1.2, 0.8))]
    assert [q.tolist() for q in found] == [[2.0, 3.0], [3.0, 5.0]]
    assert support.quantile(prediction, prediction, 0.5).tolist() == [2.5, 4.0]
    near = [
        support.quantile(prediction, prediction + d, p, nearest=True)
        for d, p in ((-1.2, 0.2), (-0.1, 0.4), (0.1, 0.6), (1.2, 0.8))
    ]
    assert [q.tolist() for q in near] == [[1.0, 3.0], [2.0, 4.0], [3.0, 4.0], [4.0, 5.0]]


def test_a_segment_is_shrunk_towards_all_series_by_its_size():
    steps = np.ones(300, dtype=int)
    labels = np.repeat([0, 1], [200, 100])
    residuals = np.concatenate([np.linspace(-1, 1, 200), np.linspace(-4, 4, 100)])
    fit = StepCalibration.fit(residuals, steps, labels, np.ones(300), 1)
    own = StepCalibration.fit(residuals[200:], steps[200:], labels[200:], np.ones(100), 1)
    everyone = fit.offsets(np.array([-1]), [0.95])[0]
    alone = own.offsets(np.array([-1]), [0.95])[0]
    served = fit.offsets(np.array([1]), [0.95])[0]
    np.testing.assert_allclose(served, alone / 3 + everyone * 2 / 3)
    assert fit.renumbered({1: 9}).offsets(np.array([9]), [0.95])[0] == served


def test_older_residuals_count_less():
    steps, labels = np.ones(400, dtype=int), np.full(400, -1)
    residuals = np.concatenate([np.linspace(-10, 10, 200), np.linspace(-1, 1, 200)])
    weights = np.repeat([0.001, 1.0], 200)
    fit = StepCalibration.fit(residuals, steps, labels, weights, 1)
    assert fit.offsets(labels[:1], [0.95]).item() == pytest.approx(0.9, abs=0.03)


def test_steps_with_few_residuals_ask_their_neighbours():
    steps = np.tile([1, 2, 3, 4], 15)
    residuals = np.repeat(np.arange(15.0), 4) - 7
    labels = np.full(60, -1)
    found = StepCalibration.fit(residuals, steps, labels, np.ones(60), 4)
    low, high = found.offsets(np.array([-1]), probabilities_of(0.8))
    assert (np.ptp(low), np.ptp(high)) == (0, 0)
    assert high[0, 0] == 6


@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.floats(0.01, 30),
    st.integers(0, 50),
)
def test_bounds_within_the_support_hold_the_same_outcomes_and_enclose(seed, shift, spread, base):
    rng = np.random.default_rng(seed)
    y = np.maximum(np.round(rng.normal(base, spread, 40)), 0.0)
    prediction = y + rng.normal(0, spread, 40) - 3.0 * shift
    support = Support.of(y)
    assert support == Support(True, True)
    clipped = support.clipped(prediction)
    assert (np.abs(y - clipped) <= np.abs(y - prediction)).all()
    lower, upper = clipped - rng.gamma(1.0, spread, 40), clipped + rng.gamma(1.0, spread, 40)
    low, high = support.bounds(clipped, lower, upper)
    inside = (lower <= y) & (y <= upper)
    assert ((low <= y) & (y <= high))[inside].all()
    assert ((low >= 0) & (low <= clipped) & (clipped <= high)).all()
    np.testing.assert_array_equal([low, high], np.round([low, high]))
    assert not np.signbit([low, high, clipped]).any()


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0.0, 3.0], {}, (True, True)),
        ([0.0, 3.5], {}, (True, False)),
        ([-1.0, 3.0], {}, (False, True)),
        ([0.0, 3.0], {"clip": False}, (False, True)),
        ([0.0, 3.0], {"whole": False}, (True, False)),
    ],
)
def test_a_support_is_that_of_the_known_outcomes(values, options, expected):
    support = Support.of(np.array(values), **options)
    assert (support.never_negative, support.whole) == expected


def test_whole_bounds_are_the_outermost_whole_numbers_between():
    prediction = np.array([3.4, 3.4, 0.2, 7.0])
    lower, upper = np.array([0.3, 3.2, -2.0, 7.0 + 1e-13]), np.array([9.7, 3.7, -0.5, 8.0 - 1e-13])
    low, high = Support(True, True).bounds(prediction, lower, upper)
    assert low.tolist() == [1.0, 3.0, 0.0, 7.0]  # 3.4 is enclosed where no whole number is between
    assert high.tolist() == [9.0, 4.0, 1.0, 8.0]
    low, high = Support().bounds(prediction, lower, upper)
    np.testing.assert_array_equal([low, high], [lower, upper])
