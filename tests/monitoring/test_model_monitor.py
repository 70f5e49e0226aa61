"""A serving model from run to run: metrics, drift of the means, and the decision."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import ON_PATH
from tsclust_model import ModelMonitor
from tsclust_model.errors import DataValidationError

MEANS = {"age": 60.0, "dose": 0.0, "rate": 2.0}
SCALES = {"age": 10.0, "dose": 0.5, "rate": 1.0}


@pytest.fixture
def monitor(tmp_path) -> ModelMonitor:
    found = ModelMonitor(tmp_path / "monitor", accuracy_min_threshold=0.8, drift_threshold=0.25)
    found.update_reference_distribution(MEANS, SCALES)
    return found


def test_metrics_grow_line_by_line_and_the_newest_accuracy_counts(monitor):
    assert monitor.get_latest_accuracy() is None
    monitor.record_metrics(0.9, "d1", "1", {"rmse": 2.0, "r2": math.nan})
    monitor.record_metrics(None, "d2", "1")
    assert monitor.get_latest_accuracy() == 0.9
    first, second = monitor.records()
    assert (first["data_version"], first["model_version"], first["rmse"]) == ("d1", "1", 2.0)
    assert first["r2"] is None
    assert second["accuracy"] is None
    assert len(monitor.metrics_path.read_text().splitlines()) == 2


def test_a_line_that_a_kill_has_cut_costs_that_line_only(monitor):
    monitor.record_metrics(0.9, "d1", "1")
    monitor.record_metrics(0.8, "d2", "1")
    content = monitor.metrics_path.read_bytes()
    monitor.metrics_path.write_bytes(content[:-20])
    monitor.record_metrics(0.7, "d3", "1")
    assert [record["data_version"] for record in monitor.records()] == ["d1", "d3"]
    assert monitor.get_latest_accuracy() == 0.7


def test_a_text_of_several_lines_stays_one_record(monitor):
    monitor.record_metrics(0.9, "d1", "1", {"note": 'a\nb\r\n"c"\x00 \u2028'})
    (record,) = monitor.records()
    assert record["note"] == 'a\nb\r\n"c"\x00 \u2028'


def test_drift_is_the_mean_share_with_the_scale_where_the_mean_is_near_zero(monitor):
    assert monitor.compute_drift(MEANS) == 0.0
    assert monitor.compute_drift({"age": 66.0}) == 0.1  # a tenth of the mean
    assert monitor.compute_drift({"dose": 0.1}) == 0.2  # a fifth of the standard deviation
    assert monitor.compute_drift({"age": 66.0, "dose": 0.1, "rate": 2.6}) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("reference", "means", "drift"),
    [
        ({"a": 0.5}, {"a": 0.6}, 0.2),
        ({"a": 0.01}, {"a": 0.02}, 1.0),
        ({"a": -0.2}, {"a": 0.2}, 2.0),
        ({"a": 0.001, "b": 250_000.0}, {"a": 0.0015, "b": 275_000.0}, 0.3),
    ],
    ids=["half", "small", "negative", "units"],
)
def test_without_scales_drift_is_a_share_of_the_mean_whatever_its_unit(
    tmp_path, reference, means, drift
):
    monitor = ModelMonitor(tmp_path)
    monitor.update_reference_distribution(reference)
    assert monitor.compute_drift(means) == pytest.approx(drift)


def test_a_reference_of_exactly_zero_without_a_scale_counts_as_changed_or_not(tmp_path):
    monitor = ModelMonitor(tmp_path)
    monitor.update_reference_distribution({"a": 0.0, "b": 4.0})
    assert monitor.compute_drift({"a": 0.0, "b": 4.0}) == 0.0
    assert monitor.compute_drift({"a": 1e-9, "b": 4.0}) == 0.5
    assert monitor.compute_drift({"a": -1e9, "b": 4.0}) == 0.5


def test_features_that_one_side_lacks_are_left_out(monitor):
    assert monitor.compute_drift({"age": 66.0, "other": 1e9, "rate": math.nan}) == 0.1
    assert monitor.compute_drift({"other": 5.0}) == 0.0


def test_a_feature_that_was_always_zero_has_a_drift_too(tmp_path):
    monitor = ModelMonitor(tmp_path)
    monitor.update_reference_distribution({"a": 0.0}, {"a": 0.0})
    assert monitor.compute_drift({"a": 0.5}) == 1.0


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.floats(-1e6, 1e6), min_size=1))
def test_drift_is_finite_and_zero_for_the_reference_itself(tmp_path_factory, means):
    monitor = ModelMonitor(tmp_path_factory.mktemp("m"))
    monitor.update_reference_distribution(means, dict.fromkeys(means, 0.0))
    assert monitor.compute_drift(means) == 0.0
    assert math.isfinite(monitor.compute_drift({"a": 1e6, "b": -1e6}))


@pytest.mark.parametrize(
    ("accuracy", "means", "reasons"),
    [
        (0.9, MEANS, ()),
        (0.8, None, ()),
        (None, MEANS, ()),
        (0.75, MEANS, ("accuracy 0.75 is under 0.8",)),
        (math.nan, None, ("accuracy nan is under 0.8",)),
        (0.9, {"age": 90.0}, ("drift of the feature means 0.50 is over 0.25",)),
        (
            0.75,
            {"age": 90.0},
            ("accuracy 0.75 is under 0.8", "drift of the feature means 0.50 is over 0.25"),
        ),
    ],
)
def test_the_decision_can_be_read(monitor, accuracy, means, reasons):
    decision = monitor.decide(accuracy, means)
    assert decision.reasons == reasons
    assert bool(decision) is bool(reasons)
    assert monitor.should_retrain(accuracy, means) is bool(reasons)


def test_the_decision_writes_nothing(monitor):
    before = sorted(path.name for path in monitor.monitoring_dir.iterdir())
    monitor.should_retrain(0.1, {"age": 90.0})
    assert sorted(path.name for path in monitor.monitoring_dir.iterdir()) == before


def test_no_model_yet_is_the_only_reason(monitor):
    assert monitor.decide(0.1, {"age": 90.0}, True).reasons == ("no model yet",)


def test_few_rows_say_nothing_of_drift(monitor):
    assert monitor.should_retrain(0.9, {"age": 90.0}, n_samples=49) is False
    assert monitor.should_retrain(0.9, {"age": 90.0}, n_samples=50) is True


def test_a_broken_reference_is_named(monitor):
    monitor.drift_path.write_text("{")
    with pytest.raises(DataValidationError, match="holds no reference; delete it"):
        monitor.compute_drift(MEANS)


def test_a_killed_writer_leaves_whole_lines_and_a_whole_reference(tmp_path):
    code = (
        "import sys\n"
        "from tsclust_model.monitoring.model_monitor import ModelMonitor\n"
        "monitor = ModelMonitor(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    monitor.record_metrics(n / 1e6, f'd{n}', '1', {'pad': 'x' * 5000})\n"
        "    monitor.update_reference_distribution({f'f{i}': n for i in range(500)})\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ON_PATH},
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    path = tmp_path / "metrics.jsonl"
    while not path.exists() or path.stat().st_size < 100_000:
        assert writer.poll() is None
    writer.kill()
    writer.wait()
    writer.stdout.close()
    monitor = ModelMonitor(tmp_path)
    records = monitor.records()
    assert [record["data_version"] for record in records] == [
        f"d{n}" for n in range(1, len(records) + 1)
    ]
    reference = json.loads((tmp_path / "drift.json").read_text())["reference"]
    assert len(reference) == 500
    monitor.record_metrics(0.5, "after", "1")
    assert monitor.get_latest_accuracy() == 0.5
