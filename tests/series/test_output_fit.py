"""What a fit of series chooses, and that it never sees what it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.errors import DataValidationError, ModelTrainingError
from tsclust_model.results import NOISE, silent
from tsclust_model.series.ces import ces_forecasts
from tsclust_model.series.covariates import Covariates
from tsclust_model.series.examples import make_examples, rolling_origins
from tsclust_model.series.features import least_scale, shape_features
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.output_fit import SeriesFit, changed_params, fit_series
from tsclust_model.series.output_model import WAYS, SeriesModel
from tsclust_model.series.panel import Panel, row_means
from tsclust_model.series.segments import assign_shapes, density_params

ROLES = Roles("y", (), (), "month", "ward", horizon=6)


def table(n_series: int, n_periods: int, seed: int = 0) -> pd.DataFrame:
    """Half of the wards follow the seasons, half grow."""
    rng, t = np.random.default_rng(seed), np.arange(n_periods)
    months = pd.date_range("2020-01-01", periods=n_periods, freq="MS")
    parts = []
    for i in range(n_series):
        level = np.exp(rng.normal(4, 0.7))
        shape = 0.4 * np.sin(2 * np.pi * t / 12) if i % 2 else 0.8 * t / n_periods
        y = level * (1 + shape + rng.normal(0, 0.08, n_periods))
        parts.append(pd.DataFrame({"ward": f"w{i:03}", "month": months, "y": y}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def panel():
    return series_panel(table(60, 48), ROLES)


@pytest.fixture(scope="module")
def fit(panel) -> SeriesFit:
    return fit_series(panel, PipelineConfig(), silent)


@pytest.mark.parametrize(
    ("n_periods", "horizon", "season", "expected"),
    [
        (84, 12, 12, (48, 60, 72)),
        (72, 12, 12, (36, 48, 60)),
        (48, 12, 12, (24, 36)),
        (30, 12, 12, (18, 24)),
        (20, 12, 12, (13, 17)),
        (25, 4, 1, (13, 17, 21)),
        (6, 3, 1, (3, 5)),
        (200, 14, 7, (158, 172, 186)),
    ],
)
def test_origins_roll_back_from_the_end(n_periods, horizon, season, expected):
    assert rolling_origins(n_periods, horizon, season) == expected


def test_a_panel_too_short_for_two_origins_says_how_long_it_must_be():
    with pytest.raises(DataValidationError, match=r"14 periods.*12 periods in a season; give 15"):
        rolling_origins(14, 12, 12)
    assert rolling_origins(15, 12, 12) == (13, 14)


def test_examples_are_judged_only_after_their_folds_and_learned_from_before(panel):
    folds = rolling_origins(48, 6, 12)
    examples = make_examples(panel, "y", folds, 42)
    for fold in folds:
        known = examples.known_at(fold)
        assert (examples.origins[known] + examples.steps[known] <= fold).all()
        judged = examples.evaluated_at(fold)
        assert (examples.origins[judged] == fold).all()
        assert len(judged) == 60 * 6
    truth = panel.y[examples.series, examples.origins + examples.steps - 1]
    scaled = (truth - examples.rows.level) / examples.rows.scale
    np.testing.assert_array_equal(examples.truth, scaled)
    assert [examples.weight_of(fold) for fold in folds] == [0.25, 0.5, 1.0]


def test_many_series_are_read_in_chunks_that_change_nothing(panel, monkeypatch):
    folds = rolling_origins(48, 6, 12)
    whole = make_examples(panel, "y", folds, 42)
    monkeypatch.setattr("tsclust_model.series.examples._CELLS_AT_ONCE", 24 * 6 * 7)
    parts = make_examples(panel, "y", folds, 42)

    def by_key(found):
        order = np.lexsort((found.steps, found.origins, found.series))
        return found.rows.X[order], found.truth[order]

    for a, b in zip(by_key(whole), by_key(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_newest_values_change_no_example_of_an_older_fold(panel):
    folds = rolling_origins(48, 6, 12)
    changed = panel.y.copy()
    changed[:, 36:] += 50
    other = panel.__class__(**(vars(panel) | {"values": {"y": changed}}))
    before, after = (make_examples(p, "y", folds, 42) for p in (panel, other))
    known = before.known_at(36)
    # The usual scale is a fact of the whole panel, and only short histories use it; whether the
    # filters have a prior is chosen on the folds.
    np.testing.assert_array_equal(before.scaling.filters, after.scaling.filters)
    np.testing.assert_array_equal(before.rows.X[known], after.rows.X[known])
    np.testing.assert_array_equal(before.truth[known], after.truth[known])


def test_kinds_of_series_become_segments(panel, fit):
    labels = fit.assignment.labels
    assert fit.clustering.metrics["n_clusters"] >= 2
    seasonal, growing = set(labels[1::2]), set(labels[::2])
    assert not seasonal & growing
    found = assign_shapes(fit.segmentation, shape_features(panel.y, 12))
    np.testing.assert_array_equal(found.labels, labels)


def test_what_is_served_is_no_worse_than_the_bases_and_the_models_of_all(fit):
    mase = fit.scores["mase"]
    assert set(mase) == {*WAYS, "blend", "seasonal_naive", "control"}
    assert mase["blend"] <= 1.01 * mase["global"]
    assert mase["blend"] <= min(mase["bank"], mase["theta"], mase["seasonal_naive"])
    for shares in fit.models["y"].shares.values():
        assert sum(shares) == pytest.approx(1)
    assert fit.models["y"].shares[NOISE][1] == 0  # without a segment, no segment's models
    assert fit.scores["origins"] == [30, 36, 42]


def test_segments_of_series_are_credited_beyond_their_shuffled_control(fit):
    gain, mase = fit.scores["gain"], fit.scores["mase"]
    assert (gain["saved"], gain["control"]) == (None, None)  # the bases are blended in, too
    assert gain["beyond"] == pytest.approx((mase["control"] - mase["blend"]) / mase["global"])
    assert 0 < gain["error"] < gain["beyond"] < 0.1
    assert gain["earned"]


def test_intervals_cover_about_as_much_as_they_say(panel, fit):
    held = series_panel(table(60, 54), ROLES)
    np.testing.assert_array_equal(held.y[:, :48].shape, panel.y.shape)
    model, known = fit.models["y"], held.y[:, :48].copy()
    made = model.forecast(known, panel.ends, {}, fit.assignment.labels, 0.8)
    inside = (made.lower <= held.y[:, 48:]) & (held.y[:, 48:] <= made.upper)
    assert inside.mean() == pytest.approx(0.8, abs=0.1)
    assert (made.lower <= made.prediction).all()
    assert (made.prediction <= made.upper).all()


def test_the_same_seed_fits_the_same_models(panel, fit):
    again = fit_series(panel, PipelineConfig(), silent)
    assert again.models["y"].texts == fit.models["y"].texts
    assert again.scores == fit.scores


def test_series_of_four_seasons_are_served_with_the_share_of_complex_smoothing(panel, fit):
    model, (n, n_periods) = fit.models["y"], panel.y.shape
    share = model.ces_share
    assert 0 < share == fit.scores["ces_share"] <= 0.2
    arguments = (panel.y, panel.ends, Covariates(), fit.assignment.labels, 0.9)
    without = replace(model, ces_share=0.0).forecast(*arguments)
    pairs = np.repeat(np.arange(n), 6), np.full(6 * n, n_periods)
    own = ces_forecasts(panel.y, *pairs, np.tile(np.arange(1, 7), n), 12, 6).forecast
    served = model.forecast(*arguments)
    expected = (1 - share) * without.prediction + share * own.reshape(n, 6)
    np.testing.assert_allclose(served.prediction, expected, rtol=1e-9)
    np.testing.assert_allclose(served.weight, (1 - share) * without.weight)


def test_a_model_comes_back_from_its_parts_with_the_same_bits(panel, fit):
    model = fit.models["y"]
    again = SeriesModel.from_parts(model.to_parts("target"), "target")
    assert again.filters is not None  # the panel has a prior of its filters
    np.testing.assert_array_equal(again.filters, model.filters)
    arguments = (panel.y, panel.ends, {}, fit.assignment.labels, 0.9)
    for a, b in zip(
        vars(model.forecast(*arguments)).values(),
        vars(again.forecast(*arguments)).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def quarter_days() -> Panel:
    """Wards of 55 days in steps of six hours: a day is a season, a week the longer one."""
    rng, t = np.random.default_rng(5), np.arange(220)
    weekend = 30.0 * (t % 28 >= 20)
    days = 10 * np.sin(np.pi * t / 2)
    times = pd.date_range("2024-01-01", periods=220, freq="6h")
    tables = [
        {"ward": f"w{i}", "month": times, "y": 80 + i + days + weekend + rng.normal(0, 1, 220)}
        for i in range(12)
    ]
    return series_panel(pd.concat(map(pd.DataFrame, tables)), ROLES)


@pytest.mark.filterwarnings("ignore:no cluster was found")
def test_a_week_of_quarter_days_is_learned_beside_the_day_and_survives_its_parts(quarter_days):
    whole = quarter_days
    fit = fit_series(whole.known(6), QUICK, silent)
    model = fit.models["y"]
    assert (model.season, model.longer_season) == (4, 28)
    assert {27, 28, 29, 32} <= set(model.prior.lags.tolist())
    again = SeriesModel.from_parts(model.to_parts("target"), "target")
    held = whole.held_back(6, 6).panel
    arguments = (held.y, held.ends, {}, fit.assignment.labels, 0.9)
    made = again.forecast(*arguments).prediction
    np.testing.assert_array_equal(made, model.forecast(*arguments).prediction)
    truth = whole.y[:, -6:]  # it is the night before the weekend ends
    naive = np.abs(held.y[:, -4:].mean(axis=1, keepdims=True) - truth).mean()
    assert np.abs(made - truth).mean() < 0.3 * naive


@pytest.mark.filterwarnings("ignore:no cluster was found")
def test_more_trees_are_tried_with_a_longer_season_only(panel, quarter_days, monkeypatch):
    monkeypatch.setattr("tsclust_model.series.output_fit._ROUNDS", (1, 2))
    monkeypatch.setattr("tsclust_model.series.output_fit._MORE_ROUNDS", (4, 6))

    def n_trees(whole: Panel, **params: int) -> int:
        config = PipelineConfig(lgb_timeseries_params=params)
        return fit_series(whole, config, silent).scores["n_trees"]

    assert (n_trees(panel), n_trees(quarter_days)) == (2, 6)
    assert n_trees(quarter_days, n_estimators=2) == 2  # as somebody says


@pytest.mark.parametrize("combine", ["global", "cluster"])
def test_the_combination_can_be_dictated(panel, combine, monkeypatch):
    monkeypatch.setattr("tsclust_model.series.output_fit._CLUSTER_ROWS", 200)
    quick = {"n_estimators": 5}
    config = PipelineConfig(combine=combine, lgb_timeseries_params=quick)
    fit = fit_series(panel, config, silent)
    model = fit.models["y"]
    segments = {cluster: shares for cluster, shares in model.shares.items() if cluster != NOISE}
    if combine == "global":
        assert set(model.texts) == {NOISE}
        assert all(shares[1] == 0 for shares in segments.values())
    else:
        assert len(model.texts) > 1
        assert all(model.shares[c][0] == 0 for c in model.texts if c != NOISE)
    assert fit.scores["n_trees"] == 5


def test_few_rows_leave_the_bases_alone():
    panel = series_panel(table(6, 27), ROLES)
    with pytest.warns(UserWarning, match="(no series apart|series are noise)"):
        fit = fit_series(panel, PipelineConfig(), silent)
    model = fit.models["y"]
    assert model.texts == {}
    assert model.shares[NOISE][:2] == (0.0, 0.0)
    made = model.forecast(panel.y, panel.ends, {}, fit.assignment.labels, 0.9)
    assert np.isfinite(made.prediction).all()
    again = SeriesModel.from_parts(model.to_parts("target"), "target")
    np.testing.assert_array_equal(
        again.forecast(panel.y, panel.ends, {}, fit.assignment.labels, 0.9).prediction,
        made.prediction,
    )


QUICK = PipelineConfig(lgb_timeseries_params={"n_estimators": 20})


def with_woken_wards(n_series: int, n_periods: int, asleep: int) -> pd.DataFrame:
    """A fifth of the wards are zero for `asleep` months and open then."""
    frame = table(n_series, n_periods)
    number = frame["ward"].str[1:].astype(int)
    opened = frame["month"] < frame["month"].min() + pd.DateOffset(months=asleep)
    return frame.assign(y=frame["y"].where(~(opened & (number % 5 == 0)), 0.0))


def test_wards_that_were_zero_for_seasons_do_not_reach_the_others():
    frame = with_woken_wards(60, 60, 26)
    panel = series_panel(frame, ROLES)
    fit = fit_series(panel, QUICK, silent)
    made = fit.models["y"].forecast(panel.y, panel.ends, {}, fit.assignment.labels, 0.9)
    assert fit.scores["mase"]["blend"] < fit.scores["mase"]["seasonal_naive"]
    assert (made.prediction <= 2 * panel.y.max(axis=1, keepdims=True)).all()
    assert (made.upper <= 3 * panel.y.max(axis=1, keepdims=True)).all()
    assert not made.replaced.any()
    assert fit.losses.max() <= 10.0


def test_what_a_ward_without_any_scale_wakes_up_to_is_measured_by_the_panel():
    frame = with_woken_wards(60, 60, 55)  # they open between the last two origins
    panel = series_panel(frame, ROLES)
    fit = fit_series(panel, QUICK, silent)
    least = least_scale(panel.y, 12)
    scales = np.abs(panel.y[:, 12:] - panel.y[:, :-12]).mean(axis=1)
    assert least == pytest.approx(0.1 * np.quantile(scales, 0.05))
    assert fit.models["y"].least_scale == least
    assert max(fit.scores["mase"].values()) < panel.y.max() / least
    assert fit.scores["clipped"]["blend"] == pytest.approx(12 / 180)
    assert fit.scores["n_series_clipped"] == 12
    mean, clipped = fit.scores["mase"]["blend"], fit.scores["clipped_mase"]["blend"]
    assert clipped < 2.0 < 10.0 < mean  # a plain mean beside one with 10 at most of each series
    made = fit.models["y"].forecast(panel.y, panel.ends, {}, fit.assignment.labels, 0.9)
    assert (made.prediction <= 2 * panel.y.max(axis=1, keepdims=True)).all()


def test_targets_are_clipped_for_training_and_not_for_judging():
    panel = series_panel(with_woken_wards(60, 60, 26), ROLES)
    examples = make_examples(panel, "y", rolling_origins(60, 6, 12), 42)
    assert np.abs(examples.truth).max() > 100
    for target in examples.targets.values():
        assert np.abs(target).max() == 10.0


def test_models_whose_error_leaves_all_reason_are_not_served_and_say_why(panel):
    wild = {"learning_rate": 20.0, "n_estimators": 60}
    config = PipelineConfig(lgb_timeseries_params=wild)
    with pytest.warns(UserWarning, match=r"^the LightGBM models of 'y' are left out.*on the folds"):
        fit = fit_series(panel, config, silent)
    model = fit.models["y"]
    assert model.texts == {}
    assert "on the folds" in fit.scores["left_out"]
    assert fit.scores["mase"]["blend"] <= fit.scores["mase"]["seasonal_naive"]
    made = model.forecast(panel.y, panel.ends, {}, fit.assignment.labels, 0.9)
    assert (made.prediction <= 2 * panel.y.max(axis=1, keepdims=True)).all()


def test_a_forecast_outside_a_ward_s_own_range_becomes_the_seasonal_naive_one(panel, fit):
    model = fit.models["y"]
    far = replace(model, shares={NOISE: (0.0, 0.0, 1e3, 0.0)})
    made = far.forecast(panel.y, panel.ends, {}, np.full(60, NOISE), 0.9)
    assert made.replaced.all()
    np.testing.assert_allclose(made.prediction, panel.y[:, -12:-6])
    span = np.ptp(panel.y, axis=1, keepdims=True)
    scale = np.abs(panel.y[:, 12:] - panel.y[:, :-12]).mean(axis=1, keepdims=True)
    assert (made.upper <= panel.y.max(axis=1, keepdims=True) + 2 * span + 10 * scale + 1e-9).all()


def with_a_slip(frame: pd.DataFrame, ward: str, months_before_the_end: int) -> pd.DataFrame:
    """One value of a ward typed 4,000 times too large."""
    at = frame.index[frame["ward"] == ward][-months_before_the_end]
    return frame.assign(y=frame["y"].mask(frame.index == at, 90_000.0))


def test_one_slip_of_the_keyboard_reaches_no_forecast_and_no_score():
    frame = table(40, 60)
    clean = series_panel(frame, ROLES)
    slipped = series_panel(with_a_slip(frame, "w003", 29), ROLES)
    fits = [fit_series(panel, QUICK, silent) for panel in (clean, slipped)]
    assert fits[1].scores["mase"] == pytest.approx(fits[0].scores["mase"], rel=0.05)
    made, wanted = (
        fits[1].models["y"].forecast(panel.y, panel.ends, {}, fits[1].assignment.labels, 0.9)
        for panel in (slipped, clean)
    )
    np.testing.assert_array_equal(np.flatnonzero(made.set_aside), [3])
    assert not wanted.set_aside.any()
    assert not made.replaced.any()
    for name in ("prediction", "lower", "upper"):
        np.testing.assert_allclose(getattr(made, name), getattr(wanted, name), rtol=0.15)


def shapes_of_trouble(n_periods: int) -> dict[str, np.ndarray]:
    """Series that real exports hold."""
    rng, t = np.random.default_rng(5), np.arange(n_periods)
    usual = 50 + 10 * np.sin(2 * np.pi * t / 12) + rng.normal(0, 3, n_periods)
    half = n_periods // 2
    outlier = usual.copy()
    outlier[half] = 1e6
    late = usual.copy()
    late[-1] = 1e6
    return {
        "zeros_first": np.where(t < half, 0.0, usual),
        "zeros_last": np.where(t < half, usual, 0.0),
        "constant": np.full(n_periods, 7.0),
        "all_zero": np.zeros(n_periods),
        "rare": np.where(rng.random(n_periods) < 0.9, 0.0, usual),
        "negative": usual - 100,
        "outlier": outlier,
        "outlier_last": late,
        "growing": np.exp(t / 8.0),
        "tiny": usual * 1e-9,
        "huge": usual * 1e9,
        "one_value": np.where(t == n_periods - 1, 3.0, np.nan),
        "three_values": np.where(t >= n_periods - 3, usual, np.nan),
    }


def test_odd_series_are_forecast_within_their_own_range():
    frame, trouble = table(30, 60), shapes_of_trouble(60)
    months = frame["month"].unique()
    odd = [
        pd.DataFrame({"ward": name, "month": months, "y": y}).dropna()
        for name, y in trouble.items()
    ]
    panel = series_panel(pd.concat([frame, *odd]), ROLES)
    fit = fit_series(panel, QUICK, silent)
    model = fit.models["y"]
    made = model.forecast(panel.y, panel.ends, {}, fit.assignment.labels, 0.9)
    low, high = np.nanmin(panel.y, axis=1), np.nanmax(panel.y, axis=1)
    scale = row_means(np.abs(panel.y[:, 12:] - panel.y[:, :-12]))
    typical = model.usual_scale * np.abs(high)
    margin = 2 * (high - low) + 10 * np.fmax(scale, np.fmax(typical, model.least_scale))
    for found in (made.prediction, made.lower, made.upper):
        assert (found >= (low - margin)[:, None] - 1e-9).all()
        assert (found <= (high + margin)[:, None] + 1e-9).all()
    by_name = dict(zip(panel.ids, made.prediction, strict=True))
    np.testing.assert_allclose(by_name["all_zero"], 0.0, atol=0.5)
    np.testing.assert_allclose(by_name["constant"], 7.0, atol=0.5)
    np.testing.assert_allclose(by_name["tiny"], by_name["huge"] * 1e-18, rtol=0.2)


def test_a_series_that_goes_on_for_years_does_not_decide_alone():
    frame = table(40, 48)
    months = pd.date_range("2020-01-01", periods=140, freq="MS")
    y = 50 + 10 * np.sin(np.arange(140) / 2)
    late = pd.DataFrame({"ward": "late", "month": months, "y": y})
    panel = series_panel(pd.concat([frame, late]), ROLES)
    fit = fit_series(panel, QUICK, silent)
    origins = fit.scores["origins"]
    assert origins == [122, 128, 134]
    assert fit.scores["folds"] == [
        {"origin": origin, "n_series": 41, "n_forecasts": 41 * 6} for origin in origins
    ]
    assert fit.scores["n_forecasts"] == 3 * 41
    assert panel.n_periods == 140  # the caller's panel stays on its calendar


def test_origins_stay_on_the_calendar_where_series_end_within_a_horizon():
    frame = table(12, 40)
    early = (frame["ward"] < "w006") & (frame["month"] > "2022-11-01")  # 5 months less
    panel = series_panel(frame[~early], ROLES)
    assert panel.with_own_ends() is panel
    early = (frame["ward"] < "w006") & (frame["month"] > "2022-10-01")
    own = series_panel(frame[~early], ROLES).with_own_ends()
    np.testing.assert_array_equal(own.ends, panel.ends - np.repeat([6, 0], 6))
    np.testing.assert_array_equal(own.y[:6, 6:], frame["y"].to_numpy().reshape(12, 40)[:6, :34])
    np.testing.assert_array_equal(own.y[6:], frame["y"].to_numpy().reshape(12, 40)[6:])


@pytest.mark.filterwarnings("ignore:no cluster was found")
def test_a_fold_with_few_series_says_so():
    frame, young = table(12, 60), table(120, 6, seed=2)
    young["ward"] = "young" + young["ward"]
    panel = series_panel(pd.concat([frame, young]), replace(ROLES, horizon=12))
    with pytest.warns(UserWarning, match=r"^only 12 of 132 series have values before and after"):
        fit_series(panel, QUICK, silent)


@pytest.mark.filterwarnings("ignore:no cluster was found")
@pytest.mark.filterwarnings("ignore:one cluster was found")
def test_a_horizon_that_no_origin_can_test_says_how_many_steps_were():
    panel = series_panel(table(12, 28), replace(ROLES, horizon=40))
    expected = (
        r"^only 15 of the 40 steps of the horizon could be tested: the longest series has 28 "
        r"periods; errors are of those steps and later ones have their intervals; give horizon 15 "
        r"or less, or 53 periods or more$"
    )
    with pytest.warns(UserWarning, match=expected):
        fit = fit_series(panel, QUICK, silent)
    assert fit.scores["origins"][0] == 13


def test_too_few_series_are_one_line():
    with pytest.raises(DataValidationError, match=r"^5 series are too few.*give 6 or more$"):
        fit_series(series_panel(table(5, 48), ROLES), PipelineConfig(), silent)


def test_models_that_are_no_sums_of_trees_are_refused(panel):
    params = {"objective": "l2", "linear_tree": True, "n_estimators": 3}
    config = PipelineConfig(lgb_timeseries_params=params)
    with pytest.raises(ModelTrainingError, match="plain sums of trees"):
        fit_series(panel, config, silent)


def test_only_changed_parameters_replace_those_of_series():
    config = PipelineConfig(lgb_timeseries_params={"num_leaves": 5})
    assert changed_params(config, True) == {"num_leaves": 5, "seed": 42}
    assert changed_params(config, False) == {"seed": 42}


def test_density_follows_the_number_of_series_unless_somebody_chose():
    X = np.concatenate([np.random.default_rng(i).normal(5 * i, 0.3, (50, 3)) for i in range(4)])
    chosen = density_params(X, PipelineConfig())
    assert chosen["min_cluster_size"] >= 6
    own = PipelineConfig(hdbscan_params={"min_cluster_size": 7})
    assert density_params(X, own) == own.hdbscan_params
