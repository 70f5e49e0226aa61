from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsclust_model.data import synthetic as datasets
from tsclust_model.data.synthetic import _KINDS, _SATURATION, _VITALS, make_ward_series
from tsclust_model.errors import ConfigurationError

NOISE, OBSTETRICS, TRAUMA = -1, 4, 5
N_ROWS = 4000


def make_hospital(*arguments, **named) -> pd.DataFrame:
    """The table, with the true kinds where `kinds` finds them."""
    frame, kind = datasets.make_hospital(*arguments, **named, return_kind=True)
    frame.attrs["kind"] = kind.tolist()
    return frame


def kinds(frame: pd.DataFrame) -> np.ndarray:
    return np.array(frame.attrs["kind"])


def share_of_period(frame: pd.DataFrame) -> np.ndarray:
    """0 on the first day, 1 on the last."""
    return ((frame["admission_time"] - pd.Timestamp("2024-01-01")) / pd.Timedelta(days=730)).array


@pytest.fixture(scope="module")
def plain() -> pd.DataFrame:
    return make_hospital(N_ROWS)


def test_the_columns_and_their_types_are_those_of_the_docstring(plain: pd.DataFrame):
    assert {name: str(kind) for name, kind in plain.dtypes.items()} == {
        "patient_id": "str",
        "admission_time": "datetime64[us]",
        "ward": "str",
        "emergency": "bool",
        **dict.fromkeys(_VITALS, "float64"),
        "length_of_stay_days": "float64",
        "nursing_hours": "float64",
        "medication_cost": "float64",
    }
    assert len(plain) == N_ROWS


def test_no_value_is_missing_infinite_or_negative(plain: pd.DataFrame):
    assert not plain.isna().any(axis=None)
    numbers = plain.select_dtypes("number").to_numpy()
    assert np.isfinite(numbers).all()
    assert not np.signbit(numbers).any()
    assert plain["length_of_stay_days"].min() >= 0.5


def test_no_saturation_is_above_100_percent_however_far_it_drifts():
    assert make_hospital(500, drift=9.0)["oxygen_saturation"].max() == 100.0


def test_admissions_are_oldest_first_and_within_two_years(plain: pd.DataFrame):
    assert plain["admission_time"].is_monotonic_increasing
    assert plain["admission_time"].min() >= pd.Timestamp("2024-01-01")
    assert plain["admission_time"].max() <= pd.Timestamp("2024-01-01") + pd.Timedelta(days=730)


def test_one_seed_makes_one_hospital_and_another_another():
    first, again, other = (make_hospital(50, random_state=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert first.attrs == again.attrs
    assert not first.equals(other)


def test_the_global_random_state_is_neither_used_nor_changed():
    before = np.random.get_state()[1].copy()
    make_hospital(50)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_the_true_kind_is_no_column(plain: pd.DataFrame):
    assert "kind" not in plain.columns
    assert set(kinds(plain)) == {NOISE, 0, 1, 2, 3, 4}
    assert len(plain.attrs["kind"]) == N_ROWS


def test_kinds_come_in_their_shares(plain: pd.DataFrame):
    found = kinds(plain)
    for number, kind in enumerate(_KINDS):
        assert np.mean(found == number) == pytest.approx(0.94 * kind.share, abs=0.02)


@pytest.mark.parametrize("noise", [0.0, 0.06, 0.5, 1.0])
def test_noise_is_the_share_of_patients_in_no_pattern(noise: float):
    share = np.mean(kinds(make_hospital(N_ROWS, noise=noise)) == NOISE)
    assert share == pytest.approx(noise, abs=0.02 if 0 < noise < 1 else 0)


def test_vitals_lie_around_the_center_of_their_kind(plain: pd.DataFrame):
    vitals, found = plain[list(_VITALS)].to_numpy(), kinds(plain)
    for number, kind in enumerate(_KINDS):
        own = vitals[found == number]
        error = (own.mean(axis=0) - kind.center) / kind.spread
        error[_SATURATION] = 0  # capped at 100
        assert np.abs(error).max() < 0.2


def test_each_kind_has_a_stay_of_its_own(plain: pd.DataFrame):
    found = kinds(plain)
    for number, kind in enumerate(_KINDS):
        assert plain["length_of_stay_days"][found == number].mean() == pytest.approx(
            kind.stay, abs=0.25
        )


def test_the_stay_depends_on_the_vitals_the_other_way_round_in_another_kind(plain: pd.DataFrame):
    found = kinds(plain)
    surgery, cardiology = (
        plain[found == number]["length_of_stay_days"].corr(plain["age"]) for number in (0, 1)
    )
    assert surgery > 0.3
    assert cardiology < -0.3


def test_the_ward_alone_does_not_tell_the_kind(plain: pd.DataFrame):
    surgery = plain[kinds(plain) == 0]
    assert (surgery["ward"] == "surgery").mean() == pytest.approx(0.84, abs=0.04)


def test_some_patients_come_again(plain: pd.DataFrame):
    assert plain["patient_id"].str.fullmatch(r"P\d{6}").all()
    assert plain["patient_id"].duplicated().mean() == pytest.approx(1 / 6, abs=0.04)


def test_resources_grow_with_the_stay(plain: pd.DataFrame):
    kind = plain[kinds(plain) == 2]
    assert kind["nursing_hours"].corr(kind["length_of_stay_days"]) > 0.8
    assert kind["medication_cost"].corr(kind["length_of_stay_days"]) > 0.8


def test_drift_moves_every_vital_by_its_deviations_from_half_way_on():
    still, moved = make_hospital(N_ROWS), make_hospital(N_ROWS, drift=3.0)
    at = share_of_period(still)
    pd.testing.assert_frame_equal(still[at < 0.499], moved[at < 0.499])
    difference = moved[list(_VITALS)].to_numpy() - still[list(_VITALS)].to_numpy()
    for number, kind in enumerate(_KINDS):
        rows = kinds(still) == number
        expected = 3.0 * np.clip(2 * at[rows] - 1, 0, 1)[:, None] * np.array(kind.spread)
        error = np.abs(difference[rows] - expected)
        error[:, _SATURATION] = 0  # capped at 100
        assert error.max() <= 1.0 + 0.01  # both are rounded, as a chart is


def test_drift_leaves_noise_and_outcomes_alone():
    still, moved = make_hospital(500), make_hospital(500, drift=3.0)
    pd.testing.assert_frame_equal(still[kinds(still) == NOISE], moved[kinds(still) == NOISE])
    pd.testing.assert_series_equal(still["length_of_stay_days"], moved["length_of_stay_days"])


@pytest.mark.parametrize("born", [0.0, 0.5, 1.0])
def test_a_sixth_kind_appears_after_born(born: float):
    frame = make_hospital(N_ROWS, born=born)
    newcomers = share_of_period(frame)[kinds(frame) == TRAUMA]
    assert (newcomers >= born - 1e-5).all()
    assert len(newcomers) / N_ROWS == pytest.approx((1 - born) * 0.94 * 0.16 / 1.16, abs=0.02)
    assert ("trauma" in set(frame["ward"])) == (born < 1)


@pytest.mark.parametrize("dying", [0.0, 0.5, 1.0])
def test_obstetrics_patients_stop_coming_after_dying(dying: float):
    frame = make_hospital(N_ROWS, dying=dying)
    mothers = share_of_period(frame)[kinds(frame) == OBSTETRICS]
    assert (mothers < dying).all()
    assert len(mothers) / N_ROWS == pytest.approx(dying * 0.94 * 0.14, abs=0.02)


@pytest.mark.parametrize("name", ["noise", "born", "dying"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_share_outside_0_to_1_is_refused(name: str, value: float):
    with pytest.raises(ConfigurationError, match=f"{name} is {value}; it must be a share"):
        make_hospital(50, **{name: value})


@pytest.mark.parametrize("n_rows", [9, 0, -5])
def test_a_hospital_of_fewer_than_ten_rows_is_refused(n_rows: int):
    with pytest.raises(ConfigurationError, match=f"n_rows is {n_rows}; make 10 or more"):
        make_hospital(n_rows)


@pytest.mark.parametrize("changes", [{}, {"noise": 1.0}, {"born": 0.0, "dying": 0.0, "drift": 9.0}])
def test_the_smallest_hospital_has_ten_rows(changes: dict[str, Any]):
    assert make_hospital(10, **changes).shape == (10, 15)


def test_ward_series_are_a_long_table_of_four_kinds_and_seeded():
    wards = make_ward_series(8, 24, random_state=1)
    pd.testing.assert_frame_equal(wards, make_ward_series(8, 24, random_state=1))
    assert not wards.equals(make_ward_series(8, 24, random_state=2))
    assert list(wards.columns) == ["ward_id", "month", "beds", "nursing_hours", "temperature"]
    assert wards.groupby("ward_id")["month"].nunique().tolist() == [24] * 8
    assert wards["ward_id"].str.split("-").str[0].nunique() == 4
    assert (wards["beds"] >= 0).all()
    assert not wards.isna().any().any()


def test_ward_series_need_a_ward_and_a_month():
    with pytest.raises(ConfigurationError, match="must be 1 or more"):
        make_ward_series(0)
