"""Series through training, retraining and drift, in a real store."""

from __future__ import annotations

import json
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.support import WARD_ROLES
from tsclust_model.boosting.quantiles import DECILES
from tsclust_model.config import PipelineConfig
from tsclust_model.data.synthetic import make_ward_series
from tsclust_model.errors import ConfigurationError, DataValidationError, RetrainingError
from tsclust_model.mlflow_integration import registry
from tsclust_model.mlflow_integration.registry import load_generation
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.operations.maintenance import maintain
from tsclust_model.pipeline import TimeSeriesClusteringPipeline
from tsclust_model.rows import evaluation
from tsclust_model.series.evaluation import evaluate_series, newest_origins
from tsclust_model.series.fit import fit_series_generation
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.schema import series_rows
from tsclust_model.series.scoring import score_series
from tsclust_model.series.windows import series_challenge, series_data, series_window
from tsclust_model.training.challenge import retrain_model
from tsclust_model.training.out_of_sample import apart, evaluate_apart
from tsclust_model.training.train import train_table

CUT = pd.Timestamp("2023-07-01")


@pytest.fixture
def config(tmp_path) -> PipelineConfig:
    return PipelineConfig(history_dir=str(tmp_path / "history"))


@pytest.fixture(scope="module")
def trained(store_folder, wards, tmp_path_factory):
    """A model of the first 42 months with a history of its own, to retrain at will."""
    uri = f"sqlite:///{store_folder}/mlflow.db"
    settings = PipelineConfig(history_dir=str(tmp_path_factory.mktemp("history")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store_folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        found = train_table(
            wards[wards["month"] < CUT], WARD_ROLES, settings, model_name="wards-again"
        )
        mlflow.set_tracking_uri(before)
    return found, settings


def test_a_training_holds_the_newest_periods_back_and_reports_them(registered_wards):
    report = registered_wards.report
    held, folds = report["holdout"], report["folds"]
    assert held["n_rows"] == 60
    for way in ("global", "cluster", "bank", "theta", "seasonal_naive"):
        assert held[f"mase_{way}"] > 0
        assert folds[f"mase_{way}"] > 0
    assert {"mase_blend", "mase_control", "cluster_weight"} <= set(folds)
    assert 0 <= held["interval_coverage"] <= 1
    assert set(held["resources"]) == {"nursing_hours"}
    assert sum(found["n_rows"] for found in held["clusters"].values()) == 60
    assert report["gaps"]["n_series"] == 60


def test_a_training_leaves_a_parent_run_its_steps_and_a_champion(store, registered_wards):
    client = MlflowClient()
    run = client.get_run(registered_wards.run_id)
    children = client.search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    )
    assert {"Preprocessing", "HDBSCAN", "TimeSeries-LGB", "Performance-Report"} <= {
        child.info.run_name for child in children
    }
    assert run.data.metrics["holdout_mase"] == registered_wards.report["holdout"]["mase"]
    assert run.data.metrics["fold_mase_blend"] == registered_wards.report["folds"]["mase_blend"]
    assert load_generation(registered_wards.model_uri).info["kind"] == "series"


def test_a_share_of_the_periods_is_forecast_origin_by_origin(wards):
    panel = series_panel(wards, WARD_ROLES)
    known, held = newest_origins(panel, 0.3)  # 14 of 48 months: twice the horizon of 6
    assert (known.n_periods, len(held)) == (36, 120)
    np.testing.assert_array_equal(held.y[:60], panel.y[:, 36:42])
    np.testing.assert_array_equal(held.y[60:], panel.y[:, 42:])
    np.testing.assert_array_equal(held.panel.y[60:, -42:], panel.y[:, :42])


def test_the_rows_of_a_history_say_which_of_them_were_fitted(wards, config):
    data = series_data(wards.sample(frac=1, random_state=0), WARD_ROLES, config, holdout=0.1)
    assert data.n_known == 60 * 42
    assert data.rows["month"].head(data.n_known).max() < CUT
    assert data.rows["month"].tail(360).min() == CUT
    assert data.panel.n_periods == 42


def test_values_that_stand_alone_are_named_once_by_series_and_time(wards, config):
    name, other = sorted(wards["ward_id"].unique())[:2]
    slip = (wards["ward_id"] == name) & (wards["month"] == "2021-08-01")
    twice = (wards["ward_id"] == other) & (wards["month"] == "2020-03-01")
    frame = wards.assign(
        beds=wards["beds"].mask(slip, 90_000.0),
        nursing_hours=wards["nursing_hours"].mask(twice, -5e7),
    )
    expected = (
        r"^nothing is learned from values farther from all others of their series than ten times "
        rf"their range: beds of {name} at 2021-08-01, nursing_hours of {other} at 2020-03-01; "
        r"correct slips$"
    )
    with pytest.warns(UserWarning, match=expected):
        data = series_data(frame, WARD_ROLES, config)
    assert np.nanmax(data.panel.y) == 90_000.0  # what is stored is what was given


def test_a_holdout_is_a_share_of_each_series_own_end(wards, config):
    names = sorted(wards["ward_id"].unique())
    early = wards[
        ~(wards["ward_id"].isin(names[:30]) & (wards["month"] >= "2021-09-01"))
        & ~(wards["ward_id"].isin(names[:2]) & (wards["month"] >= "2020-07-01"))  # 6 months
    ]
    expected = (
        r"^2 of 60 series are left out of the training: "
        r"2 no longer than what holdout keeps back \(the horizon at least\)$"
    )
    with pytest.warns(UserWarning, match=expected):
        data = series_data(early, WARD_ROLES, config, holdout=0.3)
    lengths = dict(zip(data.panel.ids, data.panel.lengths, strict=True))
    assert names[0] not in lengths
    assert {lengths[name] for name in names[2:30]} == {14}  # 6 of 20 months: once the horizon
    assert {lengths[name] for name in names[30:]} == {36}
    assert len(data.held) == 28 + 2 * 30
    fitted = data.rows.head(data.n_known).groupby("ward_id").size()
    assert fitted.to_dict() == lengths


QUICK = {"n_estimators": 10}


def counted(wards: pd.DataFrame) -> pd.DataFrame:
    """The wards with months from 1 to 48 as whole numbers."""
    months = wards["month"].rank(method="dense").astype(int)
    return wards.assign(month=months)


def test_whole_numbers_count_periods_from_training_to_retraining(store, wards, tmp_path):
    settings = PipelineConfig(
        history_dir=str(tmp_path / "history"),
        lgb_timeseries_params=QUICK,
        lgb_resource_params=QUICK,
    )
    frame = counted(wards)
    roles = replace(WARD_ROLES, frequency="period/12")
    name = "counted-wards"
    training = train_table(frame[frame["month"] <= 42], roles, settings, model_name=name)
    generation = training.generation
    assert (generation.info["season"], generation.info["last_timestamp"]) == (12, "42")

    scored = score_series(generation, frame[frame["month"] <= 42])
    assert scored["month"].dtype == np.int64
    assert scored["month"].tolist() == [*range(43, 49)] * 60
    held = series_panel(frame, replace(roles, frequency="period/12")).held_back(6, 6)
    assert evaluate_series(generation, held)["mase"] < 1.2

    loaded = mlflow.pyfunc.load_model(training.model_uri)
    rows = series_rows(frame, model=loaded)
    assert rows["last_timestamp"].tolist() == [48] * 60
    answer = loaded.predict(rows)
    assert set(answer["status"]) == {"ok"}
    records = json.loads(rows.head(2).to_json(orient="records"))
    np.testing.assert_array_equal(
        loaded.predict(pd.DataFrame(records))["prediction"][0], answer["prediction"][0]
    )
    unknown = generation.predict(rows.head(2).assign(last_timestamp=["soon", 48]))
    assert unknown["status"].tolist() == ["missing: last_timestamp", "ok"]

    done = maintain(name, frame, config=settings, reason="new months", promote=False)
    assert "version 2" in done.message
    challenger = load_generation(f"models:/{name}/2")
    assert challenger.info["last_timestamp"] == "42"  # the last horizon is compared on


def test_rows_take_the_columns_and_the_gap_policy_of_their_model(ward_model, wards):
    with_gap = wards.drop(index=5)
    with pytest.raises(DataValidationError, match="1 of 60 series has gaps"):
        series_rows(with_gap, model=ward_model)
    own = ward_model.info | {"config": ward_model.info["config"] | {"gap_policy": "fill"}}
    rows = series_rows(with_gap, model=replace(ward_model, info=own))
    assert rows["y"].map(len).tolist() == [48] * 60
    expected = series_rows(
        with_gap, "ward_id", "month", "beds", ["nursing_hours"], ["temperature"], gap_policy="fill"
    )
    pd.testing.assert_frame_equal(rows, expected)
    with pytest.raises(ConfigurationError, match="needs id, time and target, or the model"):
        series_rows(wards, "ward_id")


def test_series_with_gaps_that_are_dropped_are_named_before_the_work(wards, config):
    settings = replace(config, gap_policy="drop")
    with pytest.warns(UserWarning, match=r"^1 of 60 series are left out of .*: 1 with gaps "):
        series_data(wards.drop(index=5), WARD_ROLES, settings)


def test_a_whole_panel_held_back_is_refused(wards, config):
    with pytest.raises(ConfigurationError, match="leaves no period of any series"):
        series_data(wards[wards["month"] < "2020-05-01"], WARD_ROLES, config, holdout=0.5)


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        (replace(WARD_ROLES, id=None), "needs id"),
        (replace(WARD_ROLES, time=None), "needs time"),
        (replace(WARD_ROLES, frequency="fortnight"), "frequency is 'fortnight'"),
        (replace(WARD_ROLES, horizon=0, frequency="MS"), "give a horizon too"),
    ],
)
def test_forgotten_roles_are_one_line_and_start_no_run(store, wards, config, roles, problem):
    with pytest.raises(ConfigurationError, match=problem):
        train_table(wards, roles, config, model_name="never")
    assert registry.alias_version("never", "champion") is None


def test_gaps_fail_the_training_and_leave_nothing_behind(store, wards, config):
    with pytest.raises(DataValidationError, match="1 of 60 series has gaps"):
        train_table(wards.drop(index=5), WARD_ROLES, config, model_name="never")
    assert not open_storage(config, "never").history.list_versions()


def test_the_figures_are_those_of_their_formulas(ward_model, wards):
    held = series_panel(wards, WARD_ROLES).held_back(6, 6)
    report = evaluate_series(ward_model, held)
    served = ward_model.forecast(held.panel, 0.9).target
    errors = np.abs(held.y - served.prediction)
    history = held.panel.y
    scale = np.nanmean(np.abs(history[:, 12:] - history[:, :-12]), axis=1)
    assert report["mase"] == pytest.approx((errors.mean(axis=1) / scale).mean())
    assert report["wape"] == pytest.approx(errors.sum() / np.abs(held.y).sum())
    assert report["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()))
    naive = np.abs(held.y - history[:, -12:-6])
    assert report["mase_seasonal_naive"] == pytest.approx((naive.mean(axis=1) / scale).mean())
    inside = (served.lower <= held.y) & (held.y <= served.upper)
    assert report["interval_coverage"] == pytest.approx(inside.mean())
    quantiles = ward_model.forecast(held.panel, 0.9, DECILES).target.quantiles
    losses = np.zeros(held.y.shape)
    for p, quantile in zip(DECILES, quantiles, strict=True):
        missed = held.y - quantile
        losses += 2 * np.where(missed > 0, p * missed, (p - 1) * missed) / 9
    assert report["wql"] == pytest.approx(losses.sum() / np.abs(held.y).sum())
    assert report["sql"] == pytest.approx((losses.mean(axis=1) / scale).mean())


def test_constant_series_have_no_scale_and_do_not_count(ward_model, wards):
    flat = wards["ward_id"] == wards["ward_id"].iloc[0]
    held = series_panel(wards.assign(beds=wards["beds"].mask(flat, 7.0)), WARD_ROLES).held_back(
        6, 6
    )
    report = evaluate_series(ward_model, held)
    assert (report["n_rows"], report["n_not_scored"]) == (60, 1)
    assert np.isfinite(report["mase"])


def test_the_long_form_is_what_the_rows_say(ward_model, wards):
    scored = score_series(ward_model, wards)
    assert list(scored.columns)[:4] == ["ward_id", "month", "step", "prediction"]
    assert len(scored) == 60 * 6
    first = scored.head(6)
    assert first["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert first["month"].tolist() == list(pd.date_range("2024-01-01", periods=6, freq="MS"))
    rows = pd.DataFrame(
        {
            "series_id": ["x"],
            "last_timestamp": [pd.NaT],
            "y": [[1.0]],
            "nursing_hours": [[1.0]],
            "temperature": [[1.0]],
        }
    )
    refused = score_series(ward_model, rows)
    assert refused["status"].tolist() == ["missing: last_timestamp"] * 6
    assert refused[["prediction", "month", "cluster"]].isna().all().all()


def test_scoring_fills_gaps_whatever_the_policy_of_the_training(ward_model, wards):
    scored = score_series(ward_model, wards.drop(index=5))
    assert set(scored["status"]) == {"ok"}


def test_overlapping_exports_count_once_and_the_newest_value_wins(store, trained, wards, tmp_path):
    found, settings = trained
    own = replace(settings, history_dir=str(tmp_path))
    history = open_storage(own, found.model_name).history
    data = series_data(wards[wards["month"] < CUT], WARD_ROLES, own)
    assert history.register(data.rows) in found.generation.info["trained_on"]
    revised = series_data(wards[wards["month"] >= "2023-06-01"], WARD_ROLES, own).rows
    is_june = revised["month"] == "2023-06-01"
    history.register(revised.assign(beds=revised["beds"] + is_june * 1000))
    merged = series_window(found.generation, history, own)
    assert len(merged.frame) == 60 * 48
    june = merged.frame["month"] == "2023-06-01"
    assert (merged.frame.loc[june, "beds"] >= 1000).all()
    fresh = merged.outside(found.generation.info["trained_on"])
    assert sorted(set(merged.frame["month"][fresh])) == list(
        pd.date_range("2023-07-01", periods=6, freq="MS")
    )
    short = series_window(found.generation, history, replace(own, expanding_window_size=10))
    assert len(short.frame) == 600
    assert short.frame["month"].min() == pd.Timestamp("2023-03-01")


def test_a_challenger_meets_the_champion_on_what_neither_has_seen(store, trained, wards, tmp_path):
    found, settings = trained
    own = replace(settings, history_dir=str(tmp_path))
    history = open_storage(own, found.model_name).history
    history.register(series_data(wards[wards["month"] < CUT], WARD_ROLES, own).rows)
    history.register(
        series_data(wards[wards["month"].between("2023-07-01", "2023-09-30")], WARD_ROLES, own).rows
    )
    merged = series_window(found.generation, history, own)
    parts = series_challenge(found.generation, merged, own)
    panel = series_panel(wards[wards["month"] < "2023-10-01"], WARD_ROLES)
    np.testing.assert_array_equal(parts.data.panel.y, panel.y[:, :-6])
    assert np.isnan(parts.held.y[:, :3]).all()  # the champion was fitted on these months
    np.testing.assert_array_equal(parts.held.y[:, 3:], panel.y[:, -3:])
    assert parts.held.panel.covariates == ("temperature",)
    assert set(parts.held.panel.values) == {"beds", "nursing_hours", "temperature"}
    assert parts.window.frame["month"].max() == pd.Timestamp("2023-03-01")


def test_a_scheduler_adds_months_once_and_retrains(store, trained, wards):
    found, settings = trained
    later = wards[wards["month"] >= "2023-06-01"]
    first = maintain("wards-again", later, config=settings, if_due=True).message
    assert first.startswith("nothing is due: batch ")
    assert "of 420 rows" in first
    again = maintain(
        "wards-again", later.sample(frac=1, random_state=1), config=settings, if_due=True
    )
    assert "was seen before" in again.message
    done = maintain("wards-again", config=settings)
    assert "MASE" in done.message
    comparison = done.retraining.comparison
    assert (comparison.metric, comparison.n_rows) == ("mase", 60)
    assert done.retraining.report["lineage"]["next_id"] >= len(found.generation.cluster_ids)
    kept = set(map(int, done.retraining.report["lineage"]["kept"]))
    assert kept <= set(found.generation.cluster_ids)
    tags = MlflowClient().get_model_version("wards-again", done.retraining.version).tags
    assert {"mase_champion", "mase_challenger", "comparison"} <= set(tags)


def test_drift_sees_that_series_go_on_as_others(store, trained, wards, tmp_path):
    found, settings = trained
    own = replace(settings, history_dir=str(tmp_path))
    history = open_storage(own, found.model_name).history
    history.register(series_data(wards[wards["month"] < CUT], WARD_ROLES, own).rows)
    rng = np.random.default_rng(0)
    done = []
    for first in ("2023-07-01", "2024-07-01"):
        batch = pd.DataFrame(
            {
                "ward_id": np.repeat(wards["ward_id"].unique(), 12),
                "month": np.tile(pd.date_range(first, periods=12, freq="MS"), 60),
                "beds": rng.gamma(1, 400, 720),
                "nursing_hours": 1.0,
                "temperature": 10.0,
            }
        )
        done.append(maintain("wards-again", batch, config=own, if_due=True, promote=False))
    assert done[0].message.startswith("nothing is due")
    assert "MASE" in done[1].retraining.reason
    assert not done[1].retraining.promoted


def test_a_batch_that_cannot_be_read_joins_no_history(store, trained, wards):
    settings = trained[1]
    history = open_storage(settings, "wards-again").history
    before = history.list_versions()
    broken = wards.tail(3).assign(month="soon")
    with pytest.raises(DataValidationError, match="is not ISO 8601"):
        maintain("wards-again", broken, config=settings)
    assert history.list_versions() == before


def test_a_window_no_longer_than_the_horizon_is_no_retrain(store, trained):
    tiny = replace(trained[1], expanding_window_size=6)
    champion = load_generation("models:/wards-again@champion")
    with pytest.raises(RetrainingError, match="no series of the window is longer than the horizon"):
        retrain_model(champion, "1", "wards-again", tiny, "why")


def test_the_facade_of_rows_says_where_series_go(store, registered_wards):
    with pytest.raises(ConfigurationError, match=r"is a model of series.*series_rows"):
        TimeSeriesClusteringPipeline.load(registered_wards.model_uri)


@pytest.mark.filterwarnings("ignore:no cluster was found")
def test_series_without_a_shape_at_the_folds_have_a_reference_of_their_ends():
    panel = series_panel(make_ward_series(24, 27, random_state=2), WARD_ROLES)
    fitted = fit_series_generation(panel, WARD_ROLES, PipelineConfig(), {"roles": vars(WARD_ROLES)})
    reference = fitted.generation.reference
    assert reference.metric == "mase"
    assert reference.loss_mean > 0
    assert np.isfinite(reference.features.quantiles).all()


def test_series_of_which_none_varies_have_no_figures(ward_model, wards):
    held = series_panel(wards.assign(beds=7.0), WARD_ROLES).held_back(6, 6)
    with pytest.raises(DataValidationError, match="so that errors have no scale"):
        evaluate_series(ward_model, held)


def test_rows_are_still_evaluated_as_rows(generation, hospital):
    assert "wape" not in evaluation.evaluate_generation(generation, hospital)


@pytest.mark.parametrize(
    ("end", "n_fresh", "n_values"),
    [("2023-07-01", 60, 6), ("2023-04-01", 60, 3), ("2023-01-01", 0, 0)],
)
def test_series_are_out_of_sample_after_their_last_fitted_period(
    ward_model, wards, end, n_fresh, n_values
):
    panel = series_panel(wards[wards["month"] < end], replace(WARD_ROLES, frequency="MS"))
    parts = apart(ward_model, panel.held_back(6, 6))
    assert (len(parts.fresh), parts.n_trained_on) == (n_fresh, 60 - n_fresh)
    if n_fresh:
        assert (~np.isnan(parts.fresh.y)).sum(axis=1).tolist() == [n_values] * 60
    report = evaluate_apart(ward_model, parts)
    assert report["n_rows"] == n_fresh
    assert (report["mase"] is None) == (n_fresh == 0)
    assert (report["in_sample"] is None) == (n_values == 6)
    older = replace(ward_model, fitted=None)
    assert evaluate_apart(older, apart(older, parts.all))["n_trained_on"] is None
    kept = SeriesGeneration.from_parts(ward_model.to_parts())
    assert len(apart(kept, parts.all).fresh) == n_fresh
