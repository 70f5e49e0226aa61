from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, ks_2samp

from tests.support import REAL_DATA
from tsclust_model.data.synthetic import _VITALS, make_hospital
from tsclust_model.monitoring.detectors import (
    AccuracyDrift,
    Detector,
    DriftWindow,
    FeatureDrift,
    NoiseDrift,
    NoiseTrend,
)
from tsclust_model.monitoring.drift import DriftMonitor
from tsclust_model.monitoring.reference import (
    MIN_ROWS,
    FeatureCounts,
    FeatureReference,
    Reference,
    _false_discovery,
    _ks_p_values,
)
from tsclust_model.rows.model import Generation

NAMES = ("normal", "skewed", "count", "flag", "uniform")


def draw(rng: np.random.Generator, n_rows: int, missing: float = 0.0) -> np.ndarray:
    """Rows of five features of different kinds; some of the last one may be missing."""
    X = rng.normal(size=(n_rows, 5))
    X[:, 1] = np.exp(X[:, 1])
    X[:, 2] = rng.integers(0, 4, n_rows)
    X[:, 3] = rng.random(n_rows) < 0.05
    X[:, 4] = rng.random(n_rows)
    X[rng.random(n_rows) < missing, 4] = np.nan
    return X


def stream(
    rng: np.random.Generator, n_rows: int, noise: float = 0.06, missing: float = 0.0
) -> Iterator[DriftWindow]:
    while True:
        yield DriftWindow(
            draw(rng, n_rows, missing),
            rng.random(n_rows) < noise,
            np.square(rng.normal(size=n_rows)),
        )


def fitted_on(window: DriftWindow) -> Reference:
    assert window.losses is not None
    return Reference.fit(window.X, NAMES, window.is_noise, window.losses)


def n_alarms(monitor: DriftMonitor | Detector, windows: Iterator[DriftWindow], n: int) -> int:
    return sum(monitor.update(next(windows)) for _ in range(n))


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Of 2,000 standard rows; the figures of noise and error are round."""
    found = fitted_on(next(stream(np.random.default_rng(1), 2000)))
    return replace(
        found, noise_ratio=0.06, usual_noise=0.1, loss_mean=1.0, loss_sd=1.4, usual_loss=1.2
    )


# The promise: no alarm without drift, and one soon after drift


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.06, 0.6])
@pytest.mark.parametrize("n_rows", [200, 1000])
def test_a_stationary_stream_of_1000_batches_has_at_most_one_alarm(
    n_rows: int, noise: float, seed: int
):
    rng = np.random.default_rng(seed)
    monitor = DriftMonitor(fitted_on(next(stream(rng, 2000, noise))))
    assert n_alarms(monitor, stream(rng, n_rows, noise), 1000) <= 1


@pytest.mark.integration
@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize(("n_train", "n_rows"), [(60, 200), (100, 200), (20_000, 50)])
def test_a_stationary_stream_has_at_most_one_alarm_whatever_the_number_of_training_rows(
    n_train: int, n_rows: int, seed: int
):
    rng = np.random.default_rng(seed)
    monitor = DriftMonitor(fitted_on(next(stream(rng, n_train))))
    assert n_alarms(monitor, stream(rng, n_rows), 1000) <= 1


@pytest.mark.integration
@pytest.mark.parametrize(("n_train", "missing"), [(2000, 0.3), (2000, 0.95), (20_000, 0.95)])
def test_a_stationary_stream_has_at_most_one_alarm_also_where_a_column_is_mostly_missing(
    n_train: int, missing: float
):
    rng = np.random.default_rng(2)
    monitor = DriftMonitor(fitted_on(next(stream(rng, n_train, missing=missing))))
    assert n_alarms(monitor, stream(rng, 200, missing=missing), 1000) <= 1


@pytest.mark.integration
def test_a_stationary_stream_of_many_features_has_at_most_one_alarm():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(2000, 60))
    names = [f"x{i}" for i in range(60)]
    detector = FeatureDrift(Reference.fit(X, names, np.zeros(2000, bool), np.ones(2000)))
    windows = (DriftWindow(rng.normal(size=(100, 60)), np.zeros(100, bool)) for _ in range(300))
    assert n_alarms(detector, windows, 300) <= 1


def test_a_fitted_generation_sees_no_drift_in_more_of_the_same_patients(generation: Generation):
    monitor = DriftMonitor(generation.reference)
    assert n_alarms(monitor, hospital_windows(generation, 0.0, seed=11), 40) <= 1


def hospital_windows(generation: Generation, drift: float, seed: int) -> Iterator[DriftWindow]:
    """Windows of 150 new patients, in the last quarter of two years with drift."""
    frame = make_hospital(24_000, drift=drift, random_state=seed)[18_000:]
    X = generation.schema.encode(frame).X
    for start in range(0, len(X), 150):
        part = X[start : start + 150]
        yield DriftWindow(part, generation.assign(part).is_noise)


@pytest.mark.parametrize("drift", [2.0, 4.0])
def test_a_fitted_generation_sees_the_jump_of_its_patients_within_3_windows(
    generation: Generation, drift: float
):
    monitor = DriftMonitor(generation.reference)
    windows = hospital_windows(generation, drift, seed=12)
    assert n_alarms(monitor, windows, 3) == 1


def vitals(n_rows: int, drift: float, seed: int) -> np.ndarray:
    return make_hospital(n_rows, drift=drift, random_state=seed)[list(_VITALS)].to_numpy(float)


def vitals_reference(X: np.ndarray) -> Reference:
    return Reference.fit(X, _VITALS, np.zeros(len(X), dtype=bool), np.ones(len(X)))


@pytest.mark.parametrize("seed", [3, 8, 21])
@pytest.mark.parametrize("drift", [2.0, 3.0, 6.0])
def test_a_jump_of_the_made_up_hospital_is_seen_within_3_windows(drift: float, seed: int):
    X = vitals(6000, drift, seed)
    monitor = DriftMonitor(vitals_reference(X[:3000]))
    windows = [X[start : start + 200] for start in range(5400, 6000, 200)]
    assert sum(monitor.update(DriftWindow(w, np.zeros(200, dtype=bool))) for w in windows) == 1


@pytest.mark.parametrize("seed", [3, 8])
def test_a_slow_drift_is_seen_within_3_windows_of_having_moved_by_half_a_deviation(seed: int):
    X = vitals(6000, 3.0, seed)
    before = X[:3000]
    monitor = DriftMonitor(vitals_reference(before))
    windows = [X[start : start + 200] for start in range(3000, 6000, 200)]
    shifts = [np.abs((w.mean(0) - before.mean(0)) / before.std(0)).max() for w in windows]
    clear = next(i for i, shift in enumerate(shifts) if shift > 0.5)
    alarms = [
        i
        for i, w in enumerate(windows)
        if monitor.update(DriftWindow(w, np.zeros(200, dtype=bool)))
    ]
    assert alarms[0] <= clear + 2


ELECTRICITY = REAL_DATA / "elec2_nsw.parquet"
COLUMNS = ["period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
WEEK, CHANGE = 336, 17_424


@pytest.mark.skipif(not ELECTRICITY.exists(), reason="../shared/data/elec2_nsw.parquet is absent")
@pytest.mark.parametrize("offset", [0, 144])
@pytest.mark.parametrize("weeks", [8, 13, 26])
def test_the_known_change_of_the_electricity_market_is_seen_within_3_weeks(weeks: int, offset: int):
    X = pd.read_parquet(ELECTRICITY, columns=COLUMNS)[COLUMNS].to_numpy(float)[offset:]
    n_train = weeks * WEEK
    reference = Reference.fit(X[:n_train], COLUMNS, np.zeros(n_train, bool), np.ones(n_train))
    monitor = DriftMonitor(reference)
    changed = (CHANGE - offset) // WEEK  # the window that holds the change
    alarms = [
        week
        for week in range(weeks, changed + 4)
        if monitor.update(DriftWindow(X[week * WEEK :][:WEEK], np.zeros(WEEK, dtype=bool)))
    ]
    before = [week for week in alarms if week < changed]
    assert len(before) <= 1
    assert next(week - changed for week in alarms if week >= changed) <= 2


# Distances against slow oracles


def psi_loop(window: np.ndarray, training: np.ndarray) -> float:
    """The population stability index over the training deciles, row by row."""
    edges = [np.quantile(training, i / 10) for i in range(1, 10)]

    def shares(values: np.ndarray) -> list[float]:
        counts = [0] * 10
        for value in values:
            counts[sum(value > edge for edge in edges)] += 1
        return [max(count / len(values), 0.001) for count in counts]

    return sum(
        (p - q) * math.log(p / q) for p, q in zip(shares(window), shares(training), strict=True)
    )


@pytest.mark.parametrize("n_rows", [1, 60, 512, 3000])
@pytest.mark.parametrize("moved", [0.0, 0.7])
def test_the_distances_are_those_of_slow_oracles(n_rows: int, moved: float):
    rng = np.random.default_rng(6)
    training, window = draw(rng, 512), draw(rng, n_rows) + moved
    found = FeatureReference.fit(training, NAMES).distances(window)
    for i in range(5):
        ks = ks_2samp(window[:, i], training[:, i]).statistic
        shift = abs(window[:, i].mean() - training[:, i].mean()) / training[:, i].std()
        psi = psi_loop(window[:, i], training[:, i])
        assert found[:, i] == pytest.approx([ks, psi, shift], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n_parts", [2, 7])
def test_counts_of_parts_add_up_to_the_distances_of_the_whole(n_parts: int):
    rng = np.random.default_rng(11)
    reference = FeatureReference.fit(draw(rng, 3000), NAMES)
    window = draw(rng, 900, missing=0.2) + 0.3
    parts = [reference.counts(part) for part in np.array_split(window, n_parts)]
    whole = functools.reduce(FeatureCounts.plus, parts)
    distances = reference.distances(window)
    assert np.array_equal(reference.distances(whole)[:2], distances[:2])
    assert reference.distances(whole)[2] == pytest.approx(distances[2], rel=1e-12)
    assert reference.shifted(whole) == reference.shifted(window) != []


@pytest.mark.parametrize("n_train", [513, 2000, 20_000])
def test_512_order_statistics_say_what_all_the_training_rows_say(n_train: int):
    rng = np.random.default_rng(7)
    training, window = rng.normal(size=(n_train, 1)), rng.normal(0.4, 1, size=(300, 1))
    found = FeatureReference.fit(training, ["x"]).distances(window)
    exact = ks_2samp(window[:, 0], training[:, 0]).statistic
    assert found[0, 0] == pytest.approx(exact, abs=2 / 512)


def test_rows_compared_with_themselves_are_at_distance_0():
    X = draw(np.random.default_rng(8), 512)
    distances = FeatureReference.fit(X, NAMES).distances(X[::-1])
    assert distances == pytest.approx(np.zeros((3, 5)), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(50, 512), (1000, 512), (100_000, 512)])
def test_the_p_values_are_those_of_the_kolmogorov_series(n: int, m: int):
    distances = np.array([0.02, 0.1, 0.2, 0.5, 1.0])
    x = distances * math.sqrt(n * m / (n + m))
    series = sum(2 * (-1.0) ** (k - 1) * np.exp(-2 * k**2 * x**2) for k in range(1, 100))
    assert _ks_p_values(distances, n, m) == pytest.approx(np.clip(series, 0, 1), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_the_discoveries_are_those_of_benjamini_and_hochberg(seed: int):
    rng = np.random.default_rng(seed)
    p = rng.random(int(rng.integers(1, 40))) ** rng.choice([1, 4, 12])
    assert _false_discovery(p).tolist() == (false_discovery_control(p) <= 0.001).tolist()


@pytest.mark.parametrize("p", [[], [0.5], [0.0], [1.0, 1.0], [0.0009, 0.0011]])
def test_the_discoveries_of_few_features_are_those_of_benjamini_and_hochberg(p: list[float]):
    expected = (false_discovery_control(p) <= 0.001).tolist() if p else []
    assert _false_discovery(np.array(p)).tolist() == expected


def test_the_training_rows_own_blocks_are_the_usual_distance():
    X = draw(np.random.default_rng(9), 2000)
    X[:, 0] += np.linspace(0, 3, 2000)  # a trend within training
    found = FeatureReference.fit(X, NAMES)
    blocks = [found.distances(X[start : start + 100]) for start in range(0, 2000, 100)]
    assert found.usual.tolist() == np.max(blocks, axis=0).tolist()
    assert found.shifted(X[:100]) == []


# Effect size, minimum n, columns of all kinds


def one_column(
    training: np.ndarray | Sequence[float], window: np.ndarray | Sequence[float]
) -> list[str]:
    reference = FeatureReference.fit(np.asarray(training, float)[:, None], ["x"])
    return reference.shifted(np.asarray(window, float)[:, None])


def test_a_significant_but_tiny_shift_is_no_drift_at_100000_rows():
    rng = np.random.default_rng(10)
    training, window = rng.normal(size=20_000), rng.normal(0.06, 1, size=100_000)
    assert ks_2samp(training, window).pvalue < 1e-9
    assert one_column(training, window) == []


def test_a_large_but_insignificant_shift_is_no_drift():
    rng = np.random.default_rng(11)
    training, window = rng.normal(size=20_000), np.array([0.8, 0.9, 1.0])
    assert ks_2samp(training, window).statistic > 0.7
    assert one_column(training, window) == []


def test_what_moved_most_is_named_first_with_its_figures():
    X = np.tile(np.arange(512.0), (3, 1)).T
    window = X[:400] + np.array([0.0, 300.0, 200.0])
    found = FeatureReference.fit(X, ["still", "far", "near"]).shifted(window)
    distances = FeatureReference.fit(X, ["still", "far", "near"]).distances(window)
    assert [text.split()[0] for text in found][:2] == ["far", "near"]
    ks, psi, shift = distances[:, 1]
    assert found[0] == f"far (KS {ks:.2f}, PSI {psi:.2f}, shift {shift:.2f} sd)"


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.7, 1e9 + 0.1])
def test_a_constant_column_that_stays_so_is_at_distance_0(value: float):
    reference = FeatureReference.fit(np.full((2000, 1), value), ["x"])
    assert reference.distances(np.full((333, 1), value)).tolist() == [[0.0], [0.0], [0.0]]
    assert reference.usual.tolist() == [[0.0], [0.0], [0.0]]
    assert reference.shifted(np.full((333, 1), value)) == []


def test_a_constant_column_that_changes_has_moved():
    (text,) = one_column(np.full(2000, 0.1), np.r_[np.full(100, 0.1), np.full(100, 0.2)])
    assert text == "x (KS 0.50, PSI 3.45, constant until now)"


def test_a_column_that_becomes_constant_has_moved():
    assert len(one_column(np.random.default_rng(0).normal(size=2000), np.zeros(200))) == 1


def test_missing_values_are_left_out_of_every_distance():
    rng = np.random.default_rng(12)
    training, window = rng.normal(size=512), rng.normal(0.5, 1, size=200)
    holes, more = np.full(88, np.nan), np.full(300, np.nan)
    plain = FeatureReference.fit(training[:, None], ["x"]).distances(window[:, None])
    holed = FeatureReference.fit(rng.permutation(np.r_[training, holes])[:, None], ["x"])
    found = holed.distances(rng.permutation(np.r_[window, more])[:, None])
    assert found == pytest.approx(plain, rel=1e-9)


def test_too_few_known_values_in_a_window_of_many_rows_are_no_drift():
    rng = np.random.default_rng(13)
    known = np.array([1.5, 1.6, 1.7])
    window = np.r_[known, np.full(997, np.nan)]
    assert ks_2samp(known, rng.normal(size=512)).pvalue > 0.001
    assert one_column(rng.normal(size=512), window) == []


def test_a_window_in_which_a_column_is_all_missing_is_at_distance_0_there():
    X = draw(np.random.default_rng(15), 1000)
    window = X[:200].copy()
    window[:, 2] = np.nan
    assert FeatureReference.fit(X, NAMES).distances(window)[:, 2].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("counts", "moved"),
    [
        ((100, 60, 40), []),
        ((110, 55, 35), []),
        ((40, 60, 100), ["x (KS 0.30"]),
        ((0, 0, 200), ["x (KS 0.80"]),
    ],
)
def test_categories_move_with_their_shares(counts: tuple[int, ...], moved: list[str]):
    rng = np.random.default_rng(16)
    training = rng.permutation(np.repeat([0, 1, 2], [256, 154, 102]))
    window = rng.permutation(np.repeat([0, 1, 2], counts))
    assert [text.split(",")[0] for text in one_column(training, window)] == moved


def test_fitting_and_comparing_change_nothing_in_the_callers_arrays():
    X = draw(np.random.default_rng(17), 600, missing=0.1)
    before = X.copy()
    FeatureReference.fit(X, NAMES).shifted(X[:100])
    np.testing.assert_array_equal(X, before)


# The reference lives in the model


def test_a_reference_comes_back_from_arrays_and_json_as_it_was(reference: Reference):
    arrays, values = reference.to_arrays()
    back = Reference.from_arrays(arrays, json.loads(json.dumps(values)))
    window = draw(np.random.default_rng(18), 300) + 0.5
    assert back.features.shifted(window) == reference.features.shifted(window) != []
    assert {k: v for k, v in vars(back).items() if k != "features"} == {
        "noise_ratio": 0.06,
        "usual_noise": 0.1,
        "loss_mean": 1.0,
        "loss_sd": 1.4,
        "loss_rows": 2000,
        "usual_loss": 1.2,
        "metric": "rmse",
    }
    for name, value in vars(reference.features).items():
        np.testing.assert_array_equal(getattr(back.features, name), value)


def test_a_reference_knows_the_worst_of_its_blocks():
    is_noise, losses = np.zeros(1000, dtype=bool), np.ones(1000)
    is_noise[100:125] = True
    losses[950:] = 3.0
    found = Reference.fit(np.zeros((1000, 1)), ["x"], is_noise, losses)
    assert (found.noise_ratio, found.usual_noise) == (0.025, 0.5)
    assert (found.loss_mean, found.usual_loss) == pytest.approx((1.1, 3.0))
    assert found.loss_sd == pytest.approx(losses.std())


def test_blocks_too_small_to_judge_leave_the_mean_as_the_usual():
    is_noise = np.arange(200) < 20
    found = Reference.fit(np.zeros((200, 1)), ["x"], is_noise, np.ones(200))
    assert (found.noise_ratio, found.usual_noise, found.usual_loss) == (0.1, 0.1, 1.0)


# Votes, cool-down and a pause at the start


class Scripted(Detector):
    """Has moved where the first value of a window is not 0."""

    def _change(self, window: DriftWindow) -> str:
        return "moved" if window.X[0, 0] else ""


def scripted(reference: Reference, moved: Sequence[int], **options: int) -> list[int]:
    """The windows at which there was an alarm."""
    detector = Scripted(reference, **options)
    alarms = []
    for i, value in enumerate(moved):
        alarm = detector.update(DriftWindow(np.full((50, 1), value), np.zeros(50, dtype=bool)))
        assert alarm is detector.drift_detected
        assert detector.reason == ("moved" if alarm else "")
        alarms += [i] * alarm
    return alarms


@pytest.mark.parametrize(
    ("moved", "options", "expected"),
    [
        ([1] * 13, {}, [1, 12]),
        ([1] * 13, {"cooldown": 3}, [1, 5, 9]),
        ([1] * 5, {"cooldown": 0}, [1, 2, 3, 4]),
        ([1, 0, 0, 1, 0, 0, 1], {}, []),
        ([1, 0, 1], {}, [2]),
        ([1, 1, 0, 0], {"cooldown": 0}, [1]),
        ([1, 1, 1, 0, 1], {"votes": 3, "of": 3}, [2]),
        ([1, 0, 1, 0, 1], {"votes": 3, "of": 5}, [4]),
        ([0, 1], {"votes": 1, "of": 1}, [1]),
        ([1] * 7, {"pause": 4, "cooldown": 0}, [4, 5, 6]),
        ([0] * 4 + [1, 0, 1], {"pause": 4}, [6]),
        ([1, 1, 1, 0, 0], {"pause": 3}, []),
    ],
)
def test_votes_cool_down_and_pause_at_the_start(
    reference: Reference, moved: list[int], options: dict[str, int], expected: list[int]
):
    assert scripted(reference, moved, **options) == expected


@pytest.mark.parametrize("seed", range(10))
def test_alarms_are_those_of_a_plain_loop(reference: Reference, seed: int):
    rng = np.random.default_rng(seed)
    moved = (rng.random(80) < 0.5).astype(int).tolist()
    votes, cooldown, pause = (int(rng.integers(low, 6)) for low in (1, 0, 0))
    of = votes + int(rng.integers(0, 3))
    expected: list[int] = []
    for i, now in enumerate(moved):
        enough = sum(moved[max(0, i - of + 1) : i + 1]) >= votes
        cool = not expected or i - expected[-1] > cooldown
        if now and enough and cool and i >= pause:
            expected.append(i)
    options = {"votes": votes, "of": of, "cooldown": cooldown, "pause": pause}
    assert scripted(reference, moved, **options) == expected


def test_the_windows_left_of_a_pause_are_counted_down(reference: Reference):
    detector = Scripted(reference, votes=1, of=1, cooldown=2, pause=2)
    left = [detector.pause_left]
    for _ in range(6):
        detector.update(DriftWindow(np.ones((50, 1)), np.zeros(50, dtype=bool)))
        left.append(detector.pause_left)
    assert left == [2, 1, 0, 2, 1, 0, 2]


def drifted(n_rows: int = 200) -> DriftWindow:
    """Everything has moved."""
    rng = np.random.default_rng(19)
    return DriftWindow(draw(rng, n_rows) + 2, np.ones(n_rows, dtype=bool), np.full(n_rows, 9.0))


@pytest.mark.parametrize("kind", [NoiseDrift, FeatureDrift, AccuracyDrift])
def test_a_window_below_the_minimum_of_rows_says_nothing(
    reference: Reference, kind: type[Detector]
):
    assert MIN_ROWS == 50
    small, enough = (kind(reference, votes=1, of=1) for _ in range(2))
    assert [small.update(drifted(49)) for _ in range(20)] == [False] * 20
    assert enough.update(drifted(50)) is True


@pytest.mark.parametrize("kind", [NoiseDrift, FeatureDrift, AccuracyDrift])
def test_windows_too_small_to_judge_do_not_outvote_those_that_are_not(
    reference: Reference, kind: type[Detector]
):
    detector = kind(reference)
    alarms = [detector.update(drifted(n)) for n in (200, 20, 20, 200)]
    assert alarms == [False, False, False, True]


def test_windows_without_outcomes_do_not_outvote_those_with(reference: Reference):
    detector = AccuracyDrift(reference)
    unlabelled = replace(drifted(), losses=None)
    windows = [drifted(), unlabelled, unlabelled, drifted()]
    assert [detector.update(window) for window in windows] == [False, False, False, True]


# Noise


def noisy(n_noise: int, n_rows: int = 200) -> DriftWindow:
    return DriftWindow(np.zeros((n_rows, 5)), np.arange(n_rows) < n_noise)


@pytest.mark.parametrize(
    ("threshold", "training", "n_noise", "reason"),
    [
        (0.3, 0.06, 60, ""),
        (0.3, 0.06, 80, "is over noise_threshold 0.30 and over 0.16, the most of the training"),
        (0.3, 0.6, 128, ""),
        (0.3, 0.6, 150, ""),  # 0.75 of 200 rows, where 0.70 is usual, may be chance
        (0.3, 0.6, 180, "is over noise_threshold 0.30 and over 0.70, the most of the training"),
        (0.5, 0.06, 90, ""),
        (0.5, 0.06, 101, "is over noise_threshold 0.50 and over 0.16, the most of the training"),
        (0.3, 0.95, 200, ""),
        (0.3, 1.0, 200, ""),
        (0.0, 0.0, 0, ""),
    ],
)
def test_noise_drifts_over_the_threshold_and_over_the_training_noise(
    reference: Reference, threshold: float, training: float, n_noise: int, reason: str
):
    known = replace(reference, noise_ratio=training, usual_noise=training)
    detector = NoiseDrift(known, votes=1, of=1, threshold=threshold)
    assert detector.update(noisy(n_noise)) is bool(reason)
    expected = f"noise ratio {n_noise / 200:.2f} {reason} rows" if reason else ""
    assert detector.reason == expected


def test_the_noisiest_block_of_training_is_no_drift(reference: Reference):
    detector = NoiseDrift(replace(reference, usual_noise=0.5), votes=1, of=1)
    assert detector.update(noisy(100)) is False
    assert detector.update(noisy(140)) is True


def trend(reference: Reference, shares: Sequence[float], **options: int) -> list[tuple[int, str]]:
    detector = NoiseTrend(reference, votes=1, of=1, **options)
    alarms = []
    for i, share in enumerate(shares):
        if detector.update(noisy(round(share * 1000), 1000)):
            alarms.append((i, detector.reason))
    return alarms


RISING = [0.05 * i for i in range(1, 9)]


def test_a_steady_rise_of_the_noise_is_seen_before_the_threshold_is_reached(reference: Reference):
    gentle = [0.02 + 0.03 * i for i in range(8)]
    assert max(gentle) < 0.3
    assert trend(reference, gentle) == [(7, "noise ratio rose by 0.21 over 8 windows to 0.23")]
    assert trend(reference, RISING) == [(7, "noise ratio rose by 0.35 over 8 windows to 0.40")]


@pytest.mark.parametrize(
    "shares",
    [
        [0.06] * 30,
        RISING[:7],
        RISING[::-1],
        [0.05 + 0.01 * i for i in range(8)],  # a rise of 0.07
        [0.01 + 0.016 * i for i in range(8)],  # to 0.122, which training had nearly
        [0.05, 0.45] * 8,
        [0.05] * 7 + [0.6],  # one outlier is no trend
    ],
)
def test_what_is_no_rise_of_the_noise(reference: Reference, shares: list[float]):
    assert trend(reference, shares) == []


def test_a_rise_within_what_training_had_is_no_trend(reference: Reference):
    assert trend(replace(reference, usual_noise=0.5), RISING) == []
    assert trend(replace(reference, noise_ratio=0.35), RISING) == []


# Accuracy


def with_losses(losses: np.ndarray) -> DriftWindow:
    return DriftWindow(np.zeros((len(losses), 5)), np.zeros(len(losses), dtype=bool), losses)


@pytest.mark.parametrize(
    ("rmse", "n_rows", "alarm"),
    [
        (1.0, 200, False),
        (0.5, 200, False),
        (1.15, 100_000, False),  # significant, but within the effect size
        (1.22, 100_000, False),  # 1.5 is within 1.25 times the worst block
        (1.23, 100_000, True),
        (1.23, 60, False),  # large enough, but may be chance
        (2.0, 60, True),
    ],
)
def test_accuracy_is_lost_when_the_error_is_significantly_and_much_higher(
    reference: Reference, rmse: float, n_rows: int, alarm: bool
):
    spread = np.where(np.arange(n_rows) % 2, 0.5, 1.5)
    detector = AccuracyDrift(reference, votes=1, of=1)
    assert detector.update(with_losses(rmse**2 * spread)) is alarm
    expected = f"RMSE {rmse:.4g} is over 1.225, the most of the training rows (mean 1)"
    assert detector.reason == (expected if alarm else "")


@pytest.mark.parametrize(("loss", "alarm"), [(1.19, False), (1.24, False), (1.26, True)])
def test_of_classes_the_log_loss_itself_is_watched(reference: Reference, loss: float, alarm: bool):
    detector = AccuracyDrift(replace(reference, metric="log_loss", usual_loss=1.0), votes=1, of=1)
    assert detector.update(with_losses(np.full(100_000, loss))) is alarm
    expected = "log-loss 1.26 is over 1.25, the most of the training rows (mean 1)"
    assert detector.reason == (expected if alarm else "")


@pytest.mark.parametrize("losses", [None, np.full(49, 1e6)])
def test_too_few_outcomes_say_nothing_about_the_accuracy(
    reference: Reference, losses: np.ndarray | None
):
    detector = AccuracyDrift(reference, votes=1, of=1)
    window = DriftWindow(np.zeros((200, 5)), np.zeros(200, dtype=bool), losses)
    assert detector.update(window) is False


def test_a_model_that_was_perfect_and_is_not_any_more_has_lost_accuracy(reference: Reference):
    perfect = replace(reference, loss_mean=0.0, loss_sd=0.0, usual_loss=0.0)
    detector = AccuracyDrift(perfect, votes=1, of=1, cooldown=0)
    assert detector.update(with_losses(np.zeros(100))) is False
    assert detector.update(with_losses(np.full(100, 0.25))) is True


# The monitor of them all


def test_the_monitor_joins_the_reasons_of_one_window(reference: Reference):
    monitor = DriftMonitor(reference)
    assert monitor.update(drifted()) is False
    assert (monitor.drift_detected, monitor.reason) == (False, "")
    assert monitor.update(drifted()) is True
    assert [text.split()[0] for text in monitor.reason.split("; ")] == ["noise", "5", "RMSE"]
    assert monitor.update(drifted()) is False
    assert monitor.reason == ""


def test_the_monitor_hands_its_settings_on(reference: Reference):
    monitor = DriftMonitor(reference, noise_threshold=0.9, cooldown=2, pause=3)
    quiet = replace(drifted(), X=next(stream(np.random.default_rng(1), 200)).X, losses=None)
    almost = replace(quiet, is_noise=np.arange(200) < 170)
    assert n_alarms(monitor, iter([almost] * 12), 12) == 0
    alarms = [monitor.update(quiet) for _ in range(7)]
    assert alarms == [False, True, False, False, True, False, False]
    early = DriftMonitor(reference, pause=3, cooldown=10)
    assert [early.update(drifted()) for _ in range(5)] == [False, False, False, True, False]


def worsening(n: int) -> list[DriftWindow]:
    """A stream that gets noisier, moves and loses accuracy, with ups and downs."""
    rng = np.random.default_rng(20)
    windows = []
    for i in range(n):
        level = 0.8 * (i / n) + 0.2 * (i % 7 == 0)
        windows.append(
            DriftWindow(
                draw(rng, 120) + level,
                rng.random(120) < 0.06 + 0.6 * level,
                np.square(rng.normal(0, 1 + level, 120)) if i % 3 else None,
            )
        )
    return windows


def watch(monitor: DriftMonitor, windows: Sequence[DriftWindow]) -> list[tuple]:
    return [
        (
            monitor.update(window),
            monitor.reason,
            [detector.pause_left for detector in monitor.detectors.values()],
        )
        for window in windows
    ]


@pytest.mark.parametrize("cut", [0, 1, 5, 8, 23, 24, 25, 30, 39, 40])
def test_a_restored_monitor_goes_on_like_one_that_never_stopped(reference: Reference, cut: int):
    windows, options = worsening(40), {"cooldown": 4, "pause": 2}
    whole = DriftMonitor(reference, **options)
    expected = watch(whole, windows)
    assert sum(alarm for alarm, _, _ in expected) >= 3
    first = DriftMonitor(reference, **options)
    before = watch(first, windows[:cut])
    second = DriftMonitor(reference, **options)
    second.restore(json.loads(json.dumps(first.state())))
    assert before + watch(second, windows[cut:]) == expected
    assert second.state() == whole.state()


@pytest.mark.parametrize("cut", [0, 1, 2, 30])
def test_restoring_forgets_what_the_monitor_saw_before(reference: Reference, cut: int):
    windows = worsening(40)
    first = DriftMonitor(reference)
    watch(first, windows[:cut])
    used, fresh = DriftMonitor(reference), DriftMonitor(reference)
    watch(used, [drifted()] * 9)
    used.restore(first.state())
    fresh.restore(first.state())
    assert used.state() == fresh.state() == first.state()
    assert watch(used, windows[cut:]) == watch(fresh, windows[cut:])


def test_a_detector_that_is_new_since_the_state_was_saved_starts_fresh(reference: Reference):
    monitor = DriftMonitor(reference)
    watch(monitor, worsening(10))
    state = monitor.state()
    del state["noise_trend"]
    other = DriftMonitor(reference)
    other.restore(state | {"gone": {}})
    assert other.state()["noise"] == monitor.state()["noise"]
    assert other.state()["noise_trend"]["ratios"] == []


def test_a_monitor_changes_nothing_in_the_windows_it_is_shown(reference: Reference):
    window = drifted()
    copies = [np.copy(part) for part in (window.X, window.is_noise, window.losses)]
    DriftMonitor(reference).update(window)
    for part, copy in zip((window.X, window.is_noise, window.losses), copies, strict=True):
        np.testing.assert_array_equal(part, copy)


# Thresholds that a user sets


@pytest.mark.parametrize(
    ("degradation", "rmse", "alarm"),
    [(0.2, 1.3, True), (1.0, 1.9, False), (1.0, 2.1, True), (0.0, 1.12, True), (0.2, 1.12, False)],
)
def test_performance_degradation_is_the_rise_of_the_metric_that_alarms(
    reference: Reference, degradation: float, rmse: float, alarm: bool
):
    monitor = DriftMonitor(reference)
    monitor.steer({"performance_degradation": degradation})
    losses = rmse**2 * np.where(np.arange(4000) % 2, 0.9, 1.1)
    for _ in range(2):
        monitor.accuracy.update(with_losses(losses))
    assert monitor.accuracy.drift_detected is alarm


@pytest.mark.parametrize(("rise", "alarm"), [(0.1, True), (0.3, False), (0.2, True)])
def test_noise_ratio_trend_is_the_rise_of_the_noise_ratio_that_alarms(
    reference: Reference, rise: float, alarm: bool
):
    monitor = DriftMonitor(reference)
    monitor.steer({"noise_ratio_trend": rise})
    found = [
        monitor.trend.update(DriftWindow(np.zeros((200, 5)), np.arange(200) < n_noise))
        for n_noise in range(12, 68, 7)  # 0.06 to 0.305, by 0.245 over eight windows
    ]
    assert found == [False] * 7 + [alarm]


def test_thresholds_that_are_not_named_stay(reference: Reference):
    monitor = DriftMonitor(reference)
    monitor.steer({"noise_ratio_trend": 0.5})
    monitor.steer({"performance_degradation": 0.4})
    assert (monitor.trend.rise, monitor.accuracy.degradation) == (0.5, 0.4)


# Small batches and late outcomes


def in_batches(window: DriftWindow, n: int, name: str = "v") -> Iterator[DriftWindow]:
    """A window in batches of n rows, each with its outcomes and its place in a history."""
    for start in range(0, len(window.X), n):
        part = slice(start, start + n)
        source = (f"{name}{start // n}", 0)
        yield DriftWindow(window.X[part], window.is_noise[part], window.losses[part], source)


def first_alarm(monitor: DriftMonitor, window: DriftWindow, n: int) -> int | None:
    """Rows of drift that were seen when the first alarm came, in batches of n."""
    seen = 0
    for batch in in_batches(window, n):
        seen += len(batch.X)
        if monitor.update(batch):
            return seen
    return None


@pytest.mark.parametrize("n", [1, 7, 40, 49])
def test_small_batches_collect_and_alarm_as_soon_in_rows_as_large_ones(
    reference: Reference, n: int
):
    assert first_alarm(DriftMonitor(reference), drifted(1200), 200) == 400
    found = first_alarm(DriftMonitor(reference), drifted(1200), n)
    assert found is not None
    assert found <= 400
    # Two windows, each of as many batches as make 50 rows.
    assert found == 2 * n * math.ceil(MIN_ROWS / n)


@pytest.mark.integration
def test_a_stationary_stream_in_batches_of_40_has_at_most_one_alarm():
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(fitted_on(next(stream(rng, 2000))))
    assert n_alarms(monitor, stream(rng, 40), 2000) <= 1


def test_outcomes_that_come_later_and_few_by_few_collect_too(reference: Reference):
    monitor = DriftMonitor(reference)
    alarms = [monitor.add_losses(np.full(10, 9.0)) for _ in range(10)]
    assert alarms == [False] * 9 + [True]
    assert "RMSE 3 is over" in monitor.reason


def test_what_collects_is_known_by_its_place_and_holds_no_rows_value(reference: Reference):
    monitor = DriftMonitor(reference)
    window = replace(drifted(30), source=("batch-a", 7))
    monitor.update(window)
    state = json.loads(json.dumps(monitor.state()))
    assert state["waiting"] == {
        "rows": [["batch-a", 7, 30]],
        "losses": [30, 9.0, 0.0, ["batch-a", 7]],
    }


@pytest.mark.parametrize("n", [30, 60])
def test_a_monitor_that_is_stored_after_every_batch_alarms_as_one_that_is_not(
    reference: Reference, n: int
):
    window = drifted(600)
    rows = {batch.source: batch for batch in in_batches(window, n)}

    def read(source: tuple[str, int], n_rows: int) -> DriftWindow:
        assert len(rows[source].X) == n_rows
        return rows[source]

    long, state, found = DriftMonitor(reference), None, []
    for batch in rows.values():
        short = DriftMonitor(reference)
        if state is not None:
            short.restore(json.loads(json.dumps(state)), read)
        found.append((short.update(batch), short.reason, short.since))
        assert found[-1] == (long.update(batch), long.reason, long.since)
        state = short.state()
    assert sum(alarm for alarm, _, _ in found) >= 1


def test_the_windows_that_voted_say_where_the_drift_began(reference: Reference):
    rng = np.random.default_rng(4)
    quiet = DriftWindow(draw(rng, 600), np.zeros(600, bool), np.ones(600))
    monitor = DriftMonitor(reference)
    for batch in in_batches(quiet, 100, "quiet-"):
        assert not monitor.update(batch)
    assert monitor.since == []
    batches = list(in_batches(drifted(300), 100, "late-"))
    assert [monitor.update(batch) for batch in batches] == [False, True, False]
    assert monitor.since == [("late-0", 0)]
    again = monitor.after_retrain(reference)
    assert [detector.pause_left for detector in again.detectors.values()] == [10] * 4
    again.update(batches[2])
    again.update(batches[2])
    assert again.since == [("late-0", 0)]
    for batch in in_batches(quiet, 100, "quiet-"):
        again.update(batch)
    assert again.since == []
