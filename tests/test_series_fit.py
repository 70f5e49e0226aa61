"""What a fit of series chooses, and that it never sees what it must not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import DataValidationError, ModelTrainingError
from tsclust_model.results import NOISE
from tsclust_model.series_examples import make_examples, rolling_origins
from tsclust_model.series_fit import SeriesFit, changed_params, fit_series
from tsclust_model.series_models import WAYS, SeriesModel
from tsclust_model.series_segments import assign_shapes, density_params
from tsclust_model.series_table import series_panel
from tsclust_model.stages import silent
from tsclust_model.validation import Roles
from tsclust_model.windows import shape_features

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
        judged = examples.judged_at(fold)
        assert (examples.origins[judged] == fold).all()
        assert len(judged) == 60 * 6
    truth = panel.y[examples.series, examples.origins + examples.steps - 1]
    scaled = (truth - examples.rows.level) / examples.rows.scale
    np.testing.assert_array_equal(examples.truth, scaled)
    assert [examples.weight_of(fold) for fold in folds] == [0.0625, 0.25, 1.0]


def test_many_series_are_read_in_chunks_that_change_nothing(panel, monkeypatch):
    folds = rolling_origins(48, 6, 12)
    whole = make_examples(panel, "y", folds, 42)
    monkeypatch.setattr("tsclust_model.series_examples._CELLS_AT_ONCE", 24 * 6 * 7)
    parts = make_examples(panel, "y", folds, 42)

    def by_key(found):
        order = np.lexsort((found.steps, found.origins, found.series))
        return found.rows.X[order], found.truth[order]

    for a, b in zip(by_key(whole), by_key(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_newest_values_change_no_example_of_an_older_fold(panel):
    folds = rolling_origins(48, 6, 12)
    changed = panel.y.copy()
    changed[:, 36:] *= 3
    other = panel.__class__(**(vars(panel) | {"values": {"y": changed}}))
    before, after = (make_examples(p, "y", folds, 42) for p in (panel, other))
    known = before.known_at(36)
    # The usual scale is a fact of the whole panel, and only short histories use it.
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


def test_a_model_comes_back_from_its_parts_with_the_same_bits(panel, fit):
    model = fit.models["y"]
    again = SeriesModel.from_parts(model.to_parts("target"), "target")
    arguments = (panel.y, panel.ends, {}, fit.assignment.labels, 0.9)
    for a, b in zip(
        vars(model.forecast(*arguments)).values(),
        vars(again.forecast(*arguments)).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("combine", ["global", "cluster"])
def test_the_combination_can_be_dictated(panel, combine, monkeypatch):
    monkeypatch.setattr("tsclust_model.series_fit._CLUSTER_ROWS", 200)
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
    with pytest.warns(UserWarning, match="cluster"):
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
