"""The gate: a schema from good rows, and what it says of others."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.support import PROJECT
from tsclust_model import validate_data_quality
from tsclust_model.data.quality import kept_rows
from tsclust_model.data.quality_schema import infer_quality_schema
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import DataValidationError

COLUMNS = ["admission_time", "ward", "emergency", "age", "creatinine", "length_of_stay_days"]
TARGET = "length_of_stay_days"
SECRET = 987654.25


@pytest.fixture(scope="module")
def hospital_rows() -> pd.DataFrame:
    return make_hospital(800, random_state=5)[COLUMNS]


@pytest.fixture(scope="module")
def good(hospital_rows) -> pd.DataFrame:
    return hospital_rows[:500].reset_index(drop=True)


@pytest.fixture
def new(hospital_rows) -> pd.DataFrame:
    return hospital_rows[500:].reset_index(drop=True)


@pytest.fixture(scope="module")
def schema(good):
    found = infer_quality_schema(good, optional=[TARGET], time="admission_time")
    return json.loads(json.dumps(found))  # as the model keeps it


@pytest.fixture
def check(schema):
    def call(frame, **options):
        settings = {"schema": schema, "mode": "block", "allow_missing": False} | options
        return validate_data_quality(frame, "ingest", **settings)

    return call


def problems(report) -> dict[str, str]:
    return {item["check"]: item["message"] for item in report["problems"]}


def test_the_schema_is_plain_and_knows_each_column(schema):
    kinds = {name: found["kind"] for name, found in schema["columns"].items()}
    assert kinds == {
        "admission_time": "time",
        "ward": "category",
        "emergency": "category",
        "age": "number",
        "creatinine": "number",
        TARGET: "number",
    }
    assert set(schema["columns"]["emergency"]["shares"]) == {"true", "false"}


def test_ids_may_be_new_and_a_period_has_one_value():
    days = pd.date_range("2026-01-01", periods=400).astype(str)
    frame = pd.DataFrame({"bed": 1, "day": days, "used": range(400)})
    schema = infer_quality_schema(frame, time="day", id="bed", unique=True)
    assert schema["columns"]["bed"] == {"kind": "text", "missing": 0.0}

    def asked(found):
        report = validate_data_quality(
            found, "ingest", schema=schema, max_removed_share=0.0, duplicates=False
        )
        return report["removed"], problems(report)

    copied = pd.concat([frame, frame.head(3)]).assign(bed=7000)
    assert asked(copied) == ({}, {})
    contradicted = "0.250% of the rows give a series another value for a period that it already has"
    assert asked(frame.assign(day=[days[1], *days[1:]])) == ({}, {"duplicates": contradicted})
    years = frame.assign(day=2027)  # of series they are dates in the history
    assert "time_order" not in asked(years)[1]
    broken = "column 'used' is far outside the known range in 0.250% of the rows"
    far = frame.assign(used=[*range(399), 10_000])
    assert asked(far) == ({"range": 1}, {"range": broken})


def test_good_rows_pass(check, new):
    report = check(new)
    assert report["decision"] == "ok"
    assert (report["problems"], report["removed"], report["removed_rows"]) == ([], {}, [])
    assert (report["n_rows"], report["n_kept"]) == (300, 300)
    assert report["metrics"]["n_problems"] == 0.0
    pd.testing.assert_frame_equal(kept_rows(new, report), new)


def test_rows_as_a_csv_has_them_pass_too(check, new):
    texts = new.assign(
        admission_time=new["admission_time"].astype(str),
        emergency=new["emergency"].map({True: "True", False: "False"}),
        age=new["age"].astype(str),
    )
    assert check(texts)["decision"] == "ok"


def test_outcomes_may_come_later(check, new):
    assert check(new.drop(columns=TARGET))["decision"] == "ok"
    assert check(new.assign(**{TARGET: np.nan}))["decision"] == "ok"


CHANGED = {
    "removed": (lambda f: f.drop(columns="age"), "column 'age' is gone"),
    "renamed by a like name": (
        lambda f: f.rename(columns={"creatinine": "Creatinin"}),
        "column 'creatinine' is gone and 'Creatinin' is new: was it renamed?",
    ),
    "renamed to another word": (
        lambda f: f.rename(columns={"ward": "station"}),
        "column 'ward' is gone and 'station' is new: was it renamed?",
    ),
    "unit up": (
        lambda f: f.assign(creatinine=f["creatinine"] * 1000),
        "column 'creatinine' is 1000 times what it was: was its unit changed?",
    ),
    "unit down": (
        lambda f: f.assign(creatinine=f["creatinine"] / 1000),
        "column 'creatinine' is 1/1000 of what it was: was its unit changed?",
    ),
    "unit of the outcome": (
        lambda f: f.assign(**{TARGET: f[TARGET] * 1000}),
        f"column '{TARGET}' is 1000 times what it was: was its unit changed?",
    ),
    "type": (
        lambda f: f.assign(age=["x"] * 150 + ["50"] * 150),
        "column 'age' is not a number in 50% of the rows",
    ),
    "range": (
        lambda f: f.assign(age=f["age"].where(f.index % 4 > 0, 5000)),
        "column 'age' is far outside the known range in 25% of the rows",
    ),
    "missing": (
        lambda f: f.assign(age=f["age"].where(f.index % 2 > 0)),
        "column 'age' is missing in 50% of the rows",
    ),
    "category": (
        lambda f: f.assign(ward=f["ward"].where(f.index % 2 > 0, "moon")),
        "column 'ward' holds unknown texts in 50% of the rows",
    ),
    "duplicates": (
        lambda f: pd.concat([f, f.head(100)], ignore_index=True),
        "25% of the rows are there twice",
    ),
    "time": (
        lambda f: f.assign(admission_time="yesterday"),
        "column 'admission_time' holds no time that can be read",
    ),
    "too few": (lambda f: f.head(0), "0 rows are fewer than min_rows 1"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_changed_table_is_blocked_and_named(check, new, case):
    change, expected = CHANGED[case]
    report = check(change(new))
    assert report["decision"] == "block"
    assert next(item["message"] for item in report["problems"]).startswith(expected)
    assert {item["severity"] for item in report["problems"]} == {"block"}


@pytest.mark.parametrize("case", CHANGED)
def test_the_same_is_warned_of_or_passed_over_as_configured(check, new, case):
    change, _ = CHANGED[case]
    assert check(change(new), mode="warn")["decision"] == "warn"
    report = check(change(new), mode="off")
    assert (report["decision"], report["problems"], report["removed"]) == ("off", [], {})


def test_a_check_may_be_less_strict_than_the_mode(check, new):
    added = new.assign(shoe_size=44)
    assert check(added)["decision"] == "block"
    assert check(added, checks={"added": "warn"})["decision"] == "warn"
    assert check(added, checks={"added": "off"})["decision"] == "ok"
    assert check(added, mode="warn", checks={"added": "block"})["decision"] == "warn"


def test_drift_is_not_taken_for_broken_rows(check):
    moved = make_hospital(2400, random_state=4, drift=5.0)[COLUMNS].tail(300)
    report = check(moved.reset_index(drop=True))
    assert report["removed"] == {}
    assert report["decision"] == "ok"


def test_few_broken_rows_are_removed_and_counted_by_their_first_reason(check, new):
    frame = pd.concat([new, new.head(2)], ignore_index=True)
    frame["age"] = frame["age"].astype(object)
    frame.loc[10, "age"] = "unknown"
    frame.loc[11, "age"] = np.nan
    frame.loc[12, "creatinine"] = SECRET
    frame.loc[13, "creatinine"] = np.inf
    frame.loc[14, "admission_time"] = pd.NaT
    report = check(frame)
    assert report["decision"] == "ok"
    assert report["removed"] == {
        "type": 1,
        "missing": 1,
        "range": 2,
        "time": 1,
        "duplicates": 2,
    }
    assert report["removed_rows"] == [10, 11, 12, 13, 14, 300, 301]
    assert report["metrics"]["removed_range"] == 2.0
    assert len(kept_rows(frame, report)) == 295
    assert str(SECRET) not in json.dumps(report)


def test_gaps_are_no_breakage_where_the_model_takes_them(check, new):
    frame = new.assign(age=new["age"].where(new.index > 5))
    assert check(frame, allow_missing=True)["removed"] == {}


def test_rows_out_of_order_and_old_rows_are_noticed(check, new, good):
    report = check(new[::-1].reset_index(drop=True))
    assert report["decision"] == "ok"
    assert report["metrics"]["out_of_order"] == 299.0
    assert problems(check(good.head(100), duplicates=False)) == {
        "time_order": "every row is older than the newest one of training ('admission_time')"
    }


def test_categories_that_shift_are_measured(check, new):
    report = check(new.assign(ward="surgery"))
    assert problems(report) == {
        "category_drift": "the categories of column 'ward' have shifted by "
        f"{report['metrics']['category_shift']:.0%}"
    }
    assert report["metrics"]["unseen_share"] == 0.0


def test_without_a_schema_only_what_is_broken_in_itself_counts(new):
    frame = pd.concat([new, new.head(5)], ignore_index=True)
    frame.loc[20, "age"] = np.inf
    report = validate_data_quality(frame, "first look")
    assert (report["step"], report["mode"], report["decision"]) == ("first look", "warn", "ok")
    assert report["removed"] == {"range": 1, "duplicates": 5}


def test_rows_of_lists_can_be_compared():
    frame = pd.DataFrame({"values": [[1, 2], [1, 2], [3]]})
    assert validate_data_quality(frame, "x", max_removed_share=1.0)["removed"] == {"duplicates": 1}


def test_the_table_is_not_changed(check, new):
    before = new.copy()
    check(new.rename(columns={"age": "Age"}))
    check(new)
    pd.testing.assert_frame_equal(new, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((pd.DataFrame({"a": [1]}), "x", "hard"), "mode 'hard' must be", id="mode"),
        pytest.param(([1, 2], "x", "warn"), "x was given a list; give a DataFrame", id="list"),
    ],
)
def test_what_cannot_be_looked_at_is_said(arguments, message):
    frame, step, mode = arguments
    with pytest.raises(DataValidationError, match=message):
        validate_data_quality(frame, step, mode=mode)


def test_the_module_alone_imports_no_pandera():
    code = "import sys, tsclust_model.data.quality; print('pandera' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.strip() == "False", done.stderr
