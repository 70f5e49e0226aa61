"""Covariates of series: known in the future, of a calendar, static."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.support import PLAN_DAYS, PLAN_ROLES, planned_wards
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.series.covariates import Covariates, Effects, slopes
from tsclust_model.series.evaluation import evaluate_series, newest_origins
from tsclust_model.series.fit import fit_series_generation
from tsclust_model.series.frequency import Frequency
from tsclust_model.series.holidays import HolidayCalendar, check_country
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.panel import HeldBack, Panel
from tsclust_model.series.schema import series_rows
from tsclust_model.series.scoring import score_series
from tsclust_model.series.windows import series_data
from tsclust_model.training.task import task_of

pytestmark = pytest.mark.filterwarnings("ignore:no cluster was found")

HORIZON, DAYS = PLAN_ROLES.horizon, PLAN_DAYS
WITH = PLAN_ROLES
ROLES = replace(PLAN_ROLES, future=(), static=(), holidays=None)
QUICK = PipelineConfig(lgb_timeseries_params={"n_estimators": 10, "num_leaves": 4})


def fitted(frame: pd.DataFrame, roles: Roles, config: PipelineConfig = QUICK) -> SeriesGeneration:
    panel = series_panel(frame, roles)
    return fit_series_generation(panel, roles, config, {"roles": vars(roles)}).generation


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return planned_wards()


@pytest.fixture(scope="module")
def model(plan_model: SeriesGeneration) -> SeriesGeneration:
    return plan_model


@pytest.fixture(scope="module")
def rows(table: pd.DataFrame, model: SeriesGeneration) -> pd.DataFrame:
    return series_rows(table, model=model)


# -- what they are worth ---------------------------------------------------------------------------


def test_a_plan_that_moves_the_target_more_than_halves_the_error(table):
    known, held = newest_origins(series_panel(table, ROLES))
    without = fit_series_generation(known, ROLES, QUICK, {"roles": vars(ROLES)}).generation
    roles = replace(ROLES, future=("planned",))
    known, held_with = newest_origins(series_panel(table, roles))
    planned = fit_series_generation(known, roles, QUICK, {"roles": vars(roles)}).generation
    errors = [
        evaluate_series(generation, cases)["mase"]
        for generation, cases in ((without, held), (planned, held_with))
    ]
    assert errors == pytest.approx([0.902, 0.148], abs=0.01)  # a sixth; the bar is a half


def test_the_effect_is_forecast_where_it_is_planned(model, rows):
    other = rows.head(1).copy()
    other["planned"] = [[*rows["planned"][0][:-HORIZON], 1.0, *[0.0] * (HORIZON - 1)]]
    forecast = model.predict(other)["prediction"][0]
    assert forecast[0] == pytest.approx(60, abs=1)
    np.testing.assert_allclose(forecast[1:], 50, atol=1)


def test_the_packed_models_say_what_lightgbm_says_of_the_same_columns(model, table):
    panel = model.schema.laid_out(series_panel(table, WITH).right_aligned())
    labels, known = np.full(len(panel), -1), model.schema.covariates_of(panel)
    for unseen in (known, replace(known, static=known.static | {"kind": np.full(12, np.nan)})):
        bases, ways = model.target._ways(panel.y, panel.ends, unseen, labels)
        boosters = model.target.global_booster
        missed = [booster.predict(bases.X, num_threads=1) for booster in boosters]
        expected = (bases.bank + bases.moved) / 2 + np.mean(missed, axis=0)
        np.testing.assert_array_equal(ways[0], expected)


def test_slopes_are_those_of_seasonal_changes_and_0_where_nothing_is_explained():
    rng = np.random.default_rng(0)
    x, season = rng.normal(size=(2, 60)), 7
    values = 3 * np.arange(60) + 20 * np.sin(2 * np.pi * np.arange(60) / 7) + [[4.0], [0.0]] * x
    noisy = values + 0.01 * rng.normal(size=values.shape)
    found = slopes(noisy, [x], np.array([8, 30, 60]), season)
    assert found.shape == (2, 3, 1)
    np.testing.assert_allclose(found[0, 1:, 0], 4.0, atol=0.01)
    assert found[0, 0] == 0.0  # one change says nothing
    np.testing.assert_allclose(found[1, 1:, 0], 0.0, atol=0.01)
    constant = slopes(noisy, [np.ones((2, 60))], np.array([60]), season)
    np.testing.assert_array_equal(constant, 0.0)


def test_plans_that_are_noise_have_hardly_any_slope():
    x, values = np.random.default_rng(2).normal(size=(2, 300, 60))
    found = slopes(values, [x], np.array([60]), 7)
    assert (found == 0).mean() > 0.85
    assert np.abs(found).mean() < 0.02


def test_a_plan_after_the_origin_changes_no_slope_and_an_unknown_one_has_no_effect():
    rng = np.random.default_rng(1)
    planned = rng.integers(0, 2, (1, 67)).astype(float)
    values = 5 * planned[:, :60] + rng.normal(size=(1, 60))
    series, origins, steps = np.zeros(7, dtype=int), np.full(7, 40), np.arange(1, 8)
    at = np.array([40])
    before = Effects(values, {"planned": planned}, at, 7, 7).of(series, origins, steps)
    changed = values.copy()
    changed[:, 40:] += 100.0
    after = Effects(changed, {"planned": planned}, at, 7, 7).of(series, origins, steps)
    for one, other in zip(before[:2], after[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    planned[:, 41] = np.nan
    smooth, naive, _ = Effects(values, {"planned": planned}, at, 7, 7).of(series, origins, steps)
    assert (smooth[1], naive[1]) == (0.0, 0.0)


# -- serving ---------------------------------------------------------------------------------------


def test_a_row_holds_plans_to_the_end_of_the_horizon_and_one_value_of_what_is_static(model, rows):
    kinds = dict.fromkeys(("y", "planned"), "array")
    assert model.input_columns == {
        "series_id": "string",
        "last_timestamp": "datetime",
        **kinds,
        "size": "double",
        "kind": "string",
    }
    assert list(rows.columns) == ["series_id", "last_timestamp", "y", "planned", "kind", "size"]
    assert {len(cell) for cell in rows["planned"]} == {DAYS + HORIZON}
    kinds_of = {"future": ["planned"], "static": ["kind", "size"], "horizon": HORIZON}
    by_name = series_rows(planned_wards(), "ward", "day", "beds", **kinds_of)
    pd.testing.assert_frame_equal(by_name, rows)
    assert set(model.predict(rows)["status"]) == {"ok"}
    assert model.labelled_example()["planned"].notna().all()


@pytest.mark.parametrize(
    ("cell", "status"),
    [
        (lambda plan: [*plan[:-2], None, plan[-1]], "missing: planned"),
        (lambda plan: plan[:-1], "another length than y and the horizon: planned"),
        (lambda plan: [*plan[:-1], float("inf")], "out of range: planned"),
        (lambda plan: "soon", "no list of numbers: planned"),
        (lambda plan: [], "another length than y and the horizon: planned"),
    ],
)
def test_a_plan_that_does_not_fit_makes_its_row_null(model, rows, cell, status):
    some = rows.head(3).copy()
    some.at[1, "planned"] = cell(some["planned"][1])
    answer, usual = model.predict(some), model.predict(rows.head(3))
    assert answer["status"].tolist() == ["ok", status, "ok"]
    assert answer.loc[1].drop("status").isna().all()
    np.testing.assert_array_equal(answer["prediction"][2], usual["prediction"][2])


def test_a_static_number_out_of_range_makes_its_row_null(model, rows):
    answer = model.predict(rows.head(2).assign(size=[np.inf, 10.0]))
    assert answer["status"].tolist() == ["out of range: size", "ok"]


def test_an_unknown_category_counts_as_missing_and_the_row_is_scored(model, rows):
    new, none = (rows.head(2).assign(kind=value, size=np.nan) for value in ("new", None))
    found = [model.predict(some)["prediction"] for some in (new, none)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_splitting_a_batch_changes_no_bit(model, rows):
    whole = model.predict(rows)
    parts = pd.concat([model.predict(rows.iloc[i : i + 5]) for i in range(0, len(rows), 5)])
    for name in ("prediction", "prediction_lower", "prediction_upper"):
        for one, other in zip(whole[name], parts[name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_state_gives_the_same_bits_again(model, rows):
    again = SeriesGeneration.from_parts(model.to_parts())
    assert again.schema == model.schema
    assert again.to_parts() == model.to_parts()
    for one, other in zip(
        again.predict(rows)["prediction"], model.predict(rows)["prediction"], strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_table_is_scored_with_the_plans_after_its_end(model, table):
    scored = score_series(model, table)
    assert len(scored) == 12 * HORIZON
    assert scored["day"].min() == pd.Timestamp("2024-01-01") + pd.Timedelta(days=DAYS)
    assert set(scored["status"]) == {"ok"}
    short = table.drop(index=DAYS + 2)  # the third planned day of the first ward
    with pytest.raises(DataValidationError) as caught:
        score_series(model, short)
    assert str(caught.value) == (
        "future column 'planned' has no value at 2024-04-10 of series w00; give one for every "
        "period of a series and of its horizon"
    )


def test_plans_stay_beside_their_periods_however_a_panel_is_cut():
    days = pd.date_range("2024-01-01", periods=23)
    number = np.arange(23.0)
    long = pd.DataFrame({"ward": "a", "day": days, "beds": number, "planned": number})
    short = long.assign(ward="b", beds=long["beds"].where(number < 12))
    long["beds"] = long["beds"].where(number < 16)
    roles = replace(ROLES, future=("planned",))
    panel = series_panel(pd.concat([long, short]), roles)
    assert (panel.n_periods, panel.future["planned"].shape) == (16, (2, 23))

    def beside(part: Panel) -> None:
        """A series is counted as its plans are: behind its values the plans go on."""
        known, width = np.isfinite(part.y), part.n_periods
        planned = part.future["planned"]
        assert planned.shape[1] == width + HORIZON
        np.testing.assert_array_equal(planned[:, :width][known], part.y[known])

    held = panel.held_back(3, 3)
    for part in (panel, panel.right_aligned(), panel.with_own_ends(), panel.known(5), held.panel):
        beside(part)
    beside(HeldBack.joined([held, panel.held_back(2, 3)]).panel)
    steps = np.arange(HORIZON)
    np.testing.assert_array_equal(held.panel.future["planned"][0, 16:], 13 + steps)
    np.testing.assert_array_equal(held.panel.future["planned"][1, 16:], 9 + steps)
    np.testing.assert_array_equal(panel.right_aligned().future["planned"][1, 16:], 12 + steps)


# -- a table that does not fit ---------------------------------------------------------------------


def test_a_plan_with_gaps_names_the_column_and_the_first_time(table):
    gaps = pd.to_datetime(["2024-02-03", "2024-02-01"])
    planned = table["planned"].mask(table["day"].isin(gaps))
    with pytest.raises(DataValidationError) as caught:
        series_panel(table.assign(planned=planned), WITH)
    assert str(caught.value) == (
        "future column 'planned' has no value at 2024-02-01 of series w00 and of 11 more series; "
        "give one for every period of a series and of its horizon"
    )
    filled = series_panel(table.assign(planned=planned), WITH, "fill")
    assert np.isfinite(filled.future["planned"]).all()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.drop(columns="planned"), "no column 'planned'"),
        (lambda t: t.drop(columns="kind"), "no column 'kind'"),
        (lambda t: t.assign(planned="soon"), "'planned' holds something that is not a number"),
        (
            lambda t: t.assign(kind=np.where(t.index == 5, "z", t["kind"])),
            "static column 'kind' has more than one value in w00",
        ),
        (lambda t: t.assign(planned=t["planned"].replace(1.0, np.inf)), "'planned' has infinite"),
        (lambda t: t.assign(size=t["size"].replace(10.0, np.inf)), "'size' has infinite"),
    ],
)
def test_what_cannot_be_a_covariate_is_one_line(table, change, error):
    with pytest.raises(DataValidationError, match=error) as caught:
        series_panel(change(table), WITH)
    assert "\n" not in str(caught.value)


def test_roles_must_fit_each_other(table):
    with pytest.raises(DataValidationError, match="'planned' has two roles"):
        series_panel(table, replace(WITH, features=("planned",)))
    with pytest.raises(DataValidationError, match="'holidays' has two roles"):
        series_panel(table, replace(WITH, future=("holidays",)))
    with pytest.raises(ConfigurationError, match="future, static and holidays are of series"):
        task_of(Roles("beds", static=("kind",)), QUICK)
    numbered = table.assign(day=(table["day"] - table["day"].min()).dt.days)
    with pytest.raises(ConfigurationError, match="holidays need dates"):
        fitted(numbered, replace(WITH, frequency="period/7"))


def test_covariates_that_are_constant_are_warned_of(table):
    flat = table.assign(planned=1.0, size=3.0)
    with pytest.warns(UserWarning, match="one value only say nothing: planned, size; leave them"):
        series_data(flat, WITH, QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        series_data(table, WITH, QUICK)


# -- holidays --------------------------------------------------------------------------------------


def test_a_country_without_a_calendar_is_one_line_that_names_the_nearest():
    for country, near in (("AU-NSX", "'AU-NSW'"), ("Austri", "'AT'"), ("Portugall", "'PT'")):
        with pytest.raises(ConfigurationError, match=f"no calendar of '{country}'.*{near}"):
            check_country(country)
    with pytest.raises(ConfigurationError, match=r"no calendar of 'AU-XYZ'.*give the code"):
        check_country("AU-XYZ")
    check_country("AU-NSW")


def test_holidays_are_counted_by_period():
    calendar = HolidayCalendar.of("AU", *np.array(["2024-01-01", "2024-12-31"], "M8[s]"))
    assert calendar == HolidayCalendar.from_dict(json.loads(json.dumps(calendar.to_dict())))
    for name, time, expected in (
        ("D", "2024-01-26", 1),
        ("D", "2024-01-25", 0),
        ("MS", "2024-01-01", 2),  # New Year and Australia Day
        ("YS", "2024-01-01", 7),
        ("h", "2024-12-25T13:00", 1),
        ("D", "2034-12-25", 1),
    ):
        frequency = Frequency.parse(name)
        period = frequency.ordinals(np.array([time], dtype="M8[s]"))
        assert calendar.counts(frequency, period).tolist() == [expected], (name, time)
    late = Frequency.parse("D").ordinals(np.array(["2035-01-01"], dtype="M8[s]"))
    assert np.isnan(calendar.counts(Frequency.parse("D"), late)).all()


def test_the_calendar_stands_in_the_state_and_ends_with_a_status(model, rows):
    assert model.schema.holidays.country == "AU"
    late = rows.head(2).copy()
    late["last_timestamp"] = [pd.Timestamp("2034-12-30"), rows["last_timestamp"][1]]
    assert model.predict(late)["status"].tolist() == [
        "after the last year of holidays: last_timestamp",
        "ok",
    ]


def test_holidays_reach_the_models_as_a_future_covariate(model, table):
    panel = series_panel(table, WITH)
    found = model.schema.covariates_of(panel)
    assert isinstance(found, Covariates)
    assert list(found.future) == ["planned", "holidays"]
    days = np.flatnonzero(found.future["holidays"][0])
    dates = np.datetime64("2024-01-01") + days
    expected = ["2024-01-01", "2024-01-26", "2024-03-29", "2024-04-01"]
    assert dates.astype(str).tolist() == expected
    assert (list(found.static), found.n_categories) == (["size", "kind"], 1)
    assert found.static["kind"].tolist() == [0.0, 1.0] * 6
