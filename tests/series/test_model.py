from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.support import WARD_ROLES
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import DataValidationError, MLflowIntegrationError, PredictionError
from tsclust_model.mlflow_integration.kinds import generation_of_parts
from tsclust_model.models.state import pack_json, unpack_json
from tsclust_model.rows.model import Generation
from tsclust_model.series.fit import fit_series_generation
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.model import PanelForecast, SeriesGeneration
from tsclust_model.series.schema import panel_rows, series_rows

ARRAYS = ["prediction", "prediction_lower", "prediction_upper", "resource_nursing_hours"]


@pytest.fixture(scope="session")
def rows(wards: pd.DataFrame) -> pd.DataFrame:
    return series_rows(wards, "ward_id", "month", "beds", ["nursing_hours"], ["temperature"])


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found.columns) == list(expected.columns)
    for name in expected:
        for got, want in zip(found[name], expected[name], strict=True):
            if isinstance(want, np.ndarray):
                np.testing.assert_array_equal(got, want, err_msg=name)
            else:
                assert (pd.isna(got) and pd.isna(want)) or got == want, name


def test_a_row_gets_arrays_of_the_horizon_and_its_segment(ward_model, rows):
    answer = ward_model.predict(rows)
    assert list(answer.columns) == ward_model.output_columns
    assert set(answer["status"]) == {"ok"}
    for name in ARRAYS:
        assert {cell.shape for cell in answer[name]} == {(6,)}
        assert np.isfinite(np.concatenate(list(answer[name]))).all()
    lower, served, upper = (
        np.stack(list(answer[name]))
        for name in ("prediction_lower", *ARRAYS[:1], "prediction_upper")
    )
    assert (lower <= served).all()
    assert (served <= upper).all()
    assert set(answer["cluster_source"]) <= {"hdbscan", "knn", "none"}
    assert set(answer["cluster"]) <= {-1, *ward_model.cluster_ids}


@pytest.mark.parametrize("size", [1, 7])
def test_splitting_a_batch_changes_no_bit(ward_model, rows, size):
    whole = ward_model.predict(rows)
    few = rows.head(14)
    parts = [ward_model.predict(few.iloc[i : i + size]) for i in range(0, len(few), size)]
    assert_same(pd.concat(parts), whole.head(14))


def test_the_company_of_a_long_series_changes_no_bit(ward_model, rows):
    long = rows.head(1).copy()
    for name in ("y", "nursing_hours", "temperature"):
        long[name] = [long[name].iloc[0] * 20]
    together = ward_model.predict(pd.concat([rows.head(5), long], ignore_index=True))
    assert_same(together.head(5), ward_model.predict(rows.head(5)))


def test_many_rows_are_scored_in_chunks_that_change_no_bit(ward_model, rows, monkeypatch):
    expected = ward_model.predict(rows)
    monkeypatch.setattr("tsclust_model.series.model._CELLS_A_CHUNK", ward_model.schema.width * 8)
    shuffled = rows.sample(frac=1, random_state=0)
    found = ward_model.predict(shuffled)
    assert found.index.tolist() == shuffled.index.tolist()
    assert_same(found.sort_index(), expected)


def test_a_row_that_cannot_be_scored_is_null_with_a_status(ward_model, rows):
    some = rows.head(3).copy()
    some.at[1, "y"] = []
    answer = ward_model.predict(some)
    assert (
        answer.loc[1, "status"].startswith("missing: y") or "missing: y" in answer.loc[1, "status"]
    )
    assert answer.loc[1].drop("status").isna().all()
    assert_same(answer.iloc[[0, 2]], ward_model.predict(rows.iloc[[0, 2]]))


def test_a_forecast_out_of_reach_becomes_the_seasonal_naive_one_and_the_status_says_so(
    ward_model, rows
):
    far = {-1: (0.0, 0.0, 1e3, 0.0)}
    wild = replace(ward_model, target=replace(ward_model.target, shares=far))
    answer = wild.predict(rows.head(3))
    assert set(answer["status"]) == {"seasonal naive, as the forecast was out of reach: y"}
    for cell, y in zip(answer["prediction"], rows["y"].head(3), strict=True):
        np.testing.assert_allclose(cell, y[-12:-6])
    assert (answer["cluster_weight"] == 0).all()
    usual = ward_model.predict(rows.head(3))
    assert_same(answer[["resource_nursing_hours"]], usual[["resource_nursing_hours"]])


def test_a_value_that_stands_alone_is_not_looked_at_and_the_status_says_so(ward_model, rows):
    usual = ward_model.predict(rows.head(3))
    slipped = rows.head(3).copy()
    slipped.at[1, "y"] = [90_000.0 if i == 20 else y for i, y in enumerate(slipped["y"][1])]
    answer = ward_model.predict(slipped)
    assert answer["status"].tolist() == [
        "ok",
        "forecast without a value that stands far apart from all others: y",
        "ok",
    ]
    for name in ("prediction", "prediction_lower", "prediction_upper"):
        np.testing.assert_allclose(answer[name][1], usual[name][1], rtol=0.25)
    assert_same(answer.iloc[[0, 2]], usual.iloc[[0, 2]])


def test_a_series_with_negative_values_is_not_raised_to_zero(ward_model, rows):
    one = rows.head(2).copy()
    one["y"] = [[-50.0 + (i % 12) for i in range(36)], one["y"].iloc[1]]
    one["nursing_hours"] = [[5.0] * 36, one["nursing_hours"].iloc[1]]
    one["temperature"] = [[5.0] * 36, one["temperature"].iloc[1]]
    answer = ward_model.predict(one)
    assert (answer["prediction"][0] < -30).all()
    assert (answer["prediction_lower"][0] <= answer["prediction"][0]).all()
    assert (answer["prediction"][0] <= answer["prediction_upper"][0]).all()
    np.testing.assert_array_equal(
        answer["prediction"][1], ward_model.predict(rows.head(2))["prediction"][1]
    )


def test_a_state_from_before_the_floor_of_scales_still_loads(ward_model, rows):
    parts = ward_model.to_parts()
    values = unpack_json(parts["target.json"])
    del values["least_scale"]
    parts["target.json"] = pack_json(values)
    older = SeriesGeneration.from_parts(parts)
    assert older.target.least_scale == 1e-12
    assert_same(older.predict(rows.head(3)), ward_model.predict(rows.head(3)))


def test_an_empty_batch_gives_an_empty_answer(ward_model, rows):
    answer = ward_model.predict(rows.head(0))
    assert (len(answer), list(answer.columns)) == (0, ward_model.output_columns)


@pytest.mark.parametrize(
    "values",
    [[7.0], [3.0, 4.0], [0.0] * 30, [5.0] * 30, [-3.0, 2.0] * 15, [1.0] * 11],
    ids=["one", "two", "zeros", "constant", "negative", "shorter than a season"],
)
def test_odd_series_get_a_forecast_whose_source_is_named(ward_model, values):
    frame = pd.DataFrame(
        {
            "series_id": ["new"],
            "last_timestamp": [pd.Timestamp("2023-12-01")],
            "y": [values],
            "nursing_hours": [values],
            "temperature": [values],
        }
    )
    (answer,) = ward_model.predict(frame).to_dict("records")
    assert answer["status"] == "ok"
    assert answer["cluster_source"] in {"hdbscan", "knn", "none"}
    assert np.isfinite(answer["prediction"]).all()
    if len(values) < 12:
        assert (answer["cluster_source"], answer["cluster"]) == ("none", -1)


def as_rows(*series: list[float]) -> pd.DataFrame:
    lists = pd.Series(list(series), dtype=object)
    columns = dict.fromkeys(("y", "nursing_hours", "temperature"), lists)
    ids = [f"new {i}" for i in range(len(series))]
    return pd.DataFrame({"series_id": ids, "last_timestamp": pd.Timestamp("2023-12-01"), **columns})


def test_a_ward_that_has_stood_still_for_two_seasons_goes_on_so(ward_model):
    closed, constant = [30.0, 34.0] * 12 + [0.0] * 24, [5.0] * 30
    answer = ward_model.predict(as_rows(closed, constant))
    assert [set(cells) for cells in answer["prediction"]] == [{0.0}, {5.0}]
    assert answer["cluster_weight"].tolist() == [0.0, 0.0]
    assert (np.stack(list(answer["prediction_lower"])) <= [[0.0], [5.0]]).all()
    assert (np.stack(list(answer["prediction_upper"])) <= [[6.0], [6.0]]).all()


def test_a_jump_at_the_last_value_leaves_the_old_and_the_new_level_open(ward_model):
    season = (30 + 8 * np.sin(np.arange(47) * np.pi / 6)).tolist()
    (answer,) = ward_model.predict(as_rows([*season, 200.0])).to_dict("records")
    assert (answer["prediction_lower"] <= 40).all()
    assert (answer["prediction_upper"] >= 200).all()


def test_the_coverage_widens_the_intervals_and_must_be_possible(ward_model, rows):
    def width(coverage: float) -> float:
        found = ward_model.predict(rows, coverage)
        return float(
            np.concatenate(list(found["prediction_upper"] - found["prediction_lower"])).sum()
        )

    assert width(0.5) < width(0.8) < width(0.95)
    with pytest.raises(PredictionError, match="coverage must be above 0 and below 1"):
        ward_model.predict(rows, 1.0)


def test_quantiles_of_series_never_cross_and_are_the_bounds_of_a_coverage(ward_model, wards):
    panel = series_panel(wards, WARD_ROLES).right_aligned()
    asked = [0.95, 0.05, 0.5, 0.1, 0.9, 0.7]
    for found in ward_model.forecast(panel, 0.8, asked).outputs.values():
        assert found.quantiles.shape == (6, *found.prediction.shape)
        by_rank = found.quantiles[np.argsort(asked)]
        assert (np.diff(by_rank, axis=0) >= 0).all()
        np.testing.assert_array_equal(
            by_rank[[1, 2, 4]], [found.lower, found.prediction, found.upper]
        )
    assert ward_model.forecast(panel, 0.8).target.quantiles.shape == (0, len(panel), 6)


def test_a_column_that_is_absent_is_named(ward_model, rows):
    with pytest.raises(DataValidationError, match="no column 'temperature'"):
        ward_model.predict(rows.drop(columns="temperature"))


def test_the_state_gives_the_same_bits_and_tells_its_kind(ward_model, generation, rows):
    again = generation_of_parts(ward_model.to_parts())
    assert isinstance(again, SeriesGeneration)
    assert again.roles == WARD_ROLES
    assert json.dumps(again.info, sort_keys=True) == json.dumps(ward_model.info, sort_keys=True)
    assert_same(again.predict(rows), ward_model.predict(rows))
    assert isinstance(generation_of_parts(generation.to_parts()), Generation)


def test_a_state_without_a_part_names_it(ward_model):
    parts = ward_model.to_parts()
    del parts["schema.json"]
    with pytest.raises(MLflowIntegrationError, match=r"no part 'schema\.json'"):
        generation_of_parts(parts)


def test_other_ids_change_labels_and_nothing_else(ward_model, rows):
    ids = {cluster: cluster + 10 for cluster in ward_model.cluster_ids}
    renamed = ward_model.renumbered(ids, {"next_id": 99})
    before, after = ward_model.predict(rows), renamed.predict(rows)
    assert after["cluster"].tolist() == [ids.get(c, c) for c in before["cluster"]]
    assert renamed.cluster_ids == sorted(ids.values())
    assert_same(after.drop(columns="cluster"), before.drop(columns="cluster"))
    assert set(renamed.info["cluster_sizes"]) <= {"-1", *map(str, ids.values())}


def test_the_example_is_a_real_request_and_no_training_series(ward_model, rows):
    example = ward_model.example()
    assert list(example.columns) == list(rows.columns)
    answer = ward_model.predict(example)
    assert set(answer["status"]) == {"ok"}
    assert answer["cluster_source"].tolist()[1] == "none"
    assert not set(example["series_id"]) & set(rows["series_id"])


def test_losses_are_scaled_and_at_most_ten(ward_model, wards):
    panel = series_panel(wards, WARD_ROLES)
    held = panel.held_back(6, 6)
    losses = ward_model.losses(held)
    forecast = ward_model.predict(panel_rows(held.panel))["prediction"]
    first = np.abs(held.y[0] - forecast[0]).mean()
    known = held.panel.y[0][~np.isnan(held.panel.y[0])]
    assert losses[0] == pytest.approx(first / np.abs(known[12:] - known[:-12]).mean())
    wild = type(held)(held.panel, {name: found + 1e9 for name, found in held.truth.items()})
    assert ward_model.losses(wild).max() == 10.0


def test_an_unseen_frequency_of_the_long_table_does_not_matter_to_a_row(ward_model, rows):
    moved = rows.assign(last_timestamp=rows["last_timestamp"] + pd.Timedelta(days=27))
    assert_same(ward_model.predict(moved), ward_model.predict(rows))


def test_bounds_of_whole_never_negative_series_are_whole_and_never_negative(wards):
    counted = wards.assign(beds=wards["beds"].round().clip(lower=0))
    roles = replace(WARD_ROLES, resources=())
    panel = series_panel(counted, roles)
    parts = {}
    for on in (True, False):
        config = PipelineConfig(clip_to_support=on, round_intervals=on)
        fitted = fit_series_generation(panel, roles, config, {"roles": vars(roles)}).generation
        parts[on] = fitted.to_parts()
        answer = fitted.forecast(panel.right_aligned(), 0.9).target
        bounds = np.array([answer.lower, answer.upper])
        if on:
            assert (bounds >= 0).all()
            np.testing.assert_array_equal(bounds, np.round(bounds))
            assert (answer.lower <= answer.prediction).all()
            assert (answer.prediction <= answer.upper).all()
            again = SeriesGeneration.from_parts(parts[on]).forecast(panel.right_aligned(), 0.9)
            np.testing.assert_array_equal(again.target.lower, answer.lower)
        else:
            assert (bounds != np.round(bounds)).any()
    values = unpack_json(parts[True]["target.json"])
    assert (values["never_negative"], values.pop("whole")) == (True, True)
    older = parts[True] | {"target.json": pack_json(values)}
    bounds = SeriesGeneration.from_parts(older).forecast(panel.right_aligned(), 0.9).target.lower
    assert (bounds != np.round(bounds)).any()  # an older build rounds no bounds


@pytest.mark.parametrize("k", [8, 20])
def test_zeros_before_a_ward_opened_change_no_forecast(ward_model: SeriesGeneration, rows, k):
    """Until then its first values looked like a jump out of a constant level."""
    panel = ward_model.schema.laid_out(ward_model.schema.encode(rows).panel)

    def forecast(before: float) -> PanelForecast:
        y = np.where(np.arange(panel.n_periods) < panel.n_periods - k, before, panel.y)
        return ward_model.forecast(replace(panel, values=panel.values | {"beds": y}), 0.8)

    zeros, unknown = forecast(0.0), forecast(np.nan)
    np.testing.assert_array_equal(zeros.assignment.labels, unknown.assignment.labels)
    for name in ("prediction", "lower", "upper"):
        np.testing.assert_array_equal(getattr(zeros.target, name), getattr(unknown.target, name))
