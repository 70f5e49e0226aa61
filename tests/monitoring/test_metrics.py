from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.monitoring.metrics import (
    ALERT_THRESHOLDS,
    DRIFT_THRESHOLDS,
    PerformanceMonitor,
    Record,
)
from tsclust_model.results import PerformanceAlert

START = datetime(2024, 3, 31, 1, 0, tzinfo=UTC)


class HandClock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def go(self, **step: float) -> None:
        self.now += timedelta(**step)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def monitor(clock: HandClock) -> PerformanceMonitor:
    return PerformanceMonitor(clock=clock)


def values(monitor: PerformanceMonitor, name: str = "rmse") -> list[float]:
    return [record.value for record in monitor.records([name])]


# Alerts


@pytest.mark.parametrize(
    ("name", "value", "severity"),
    [
        ("processing_time", 60.0, None),
        ("processing_time", 60.001, "warning"),
        ("processing_time", 89.9, "warning"),
        ("processing_time", 90.0, "critical"),
        ("processing_time", math.inf, "critical"),
        ("memory_usage", 4096.0, None),
        ("memory_usage", 4097.0, "warning"),
        ("memory_usage", 6144.0, "critical"),
        ("noise_ratio", 0.3, None),
        ("noise_ratio", 0.31, "warning"),
        ("noise_ratio", 0.46, "critical"),
        ("rmse", 1e9, None),
    ],
)
def test_a_value_over_its_threshold_warns_and_from_one_and_a_half_times_is_critical(
    monitor: PerformanceMonitor, name: str, value: float, severity: str | None
):
    monitor.record_metric(name, value)
    assert [alert.severity for alert in monitor.check_alerts()] == [severity][
        : severity is not None
    ]


def test_an_alert_tells_what_was_over_which_threshold_where_and_when(
    monitor: PerformanceMonitor, clock: HandClock
):
    monitor.record_metric("noise_ratio", 0.35, component="clustering")
    clock.go(hours=1)
    assert monitor.check_alerts() == [
        PerformanceAlert(
            metric_name="noise_ratio",
            value=0.35,
            threshold=0.3,
            severity="warning",
            component="clustering",
            message="noise_ratio 0.35 is over its threshold 0.3",
            timestamp=START,
        )
    ]


def test_an_alert_is_active_until_its_metric_is_normal_again_and_is_kept(
    monitor: PerformanceMonitor,
):
    monitor.record_metric("noise_ratio", 0.9)
    first = monitor.check_alerts()
    assert [alert.value for alert in first] == [0.9]
    assert monitor.check_alerts() == first
    monitor.record_metric("noise_ratio", math.nan)  # it says nothing
    assert monitor.check_alerts() == first
    monitor.record_metric("noise_ratio", 0.1)
    assert monitor.check_alerts() == []
    monitor.record_metric("noise_ratio", 0.8)
    assert [alert.value for alert in monitor.check_alerts()] == [0.8]
    assert [alert.value for alert in monitor.alerts()] == [0.9, 0.8]


def test_an_alert_is_active_for_each_component_of_its_own(monitor: PerformanceMonitor):
    monitor.record_metric("noise_ratio", 0.9, "ward-3")
    monitor.record_metric("noise_ratio", 0.1, "ward-4")
    assert [alert.component for alert in monitor.check_alerts()] == ["ward-3"]


def test_alerts_are_oldest_first_over_all_metrics(monitor: PerformanceMonitor, clock: HandClock):
    for name, value in [("memory_usage", 5e3), ("noise_ratio", 0.4), ("memory_usage", 6e3)]:
        clock.go(minutes=1)
        monitor.record_metric(name, value)
    assert [alert.value for alert in monitor.check_alerts()] == [0.4, 6e3]
    assert [alert.value for alert in monitor.alerts()] == [5e3, 0.4, 6e3]


def test_a_value_that_is_not_a_number_raises_no_alert(monitor: PerformanceMonitor):
    monitor.record_metric("noise_ratio", math.nan)
    assert monitor.check_alerts() == []


# Thresholds


def test_given_thresholds_lie_over_the_defaults_which_stay_as_they_are():
    monitor = PerformanceMonitor({"noise_ratio": 0.2}, {"performance_degradation": 1})
    assert monitor.alert_thresholds == ALERT_THRESHOLDS | {"noise_ratio": 0.2}
    assert monitor.drift_thresholds == DRIFT_THRESHOLDS | {"performance_degradation": 1}
    assert PerformanceMonitor().alert_thresholds == {
        "noise_ratio": 0.3,
        "processing_time": 60.0,
        "memory_usage": 4096.0,
    }
    assert PerformanceMonitor().drift_thresholds == {
        "noise_ratio_trend": 0.1,
        "performance_degradation": 0.2,
    }


def test_new_thresholds_hold_from_the_next_check_on(monitor: PerformanceMonitor):
    monitor.record_metric("noise_ratio", 0.25)
    monitor.update_thresholds({"noise_ratio": 0.2})
    assert [alert.threshold for alert in monitor.check_alerts()] == [0.2]
    monitor.update_thresholds(drift_thresholds={"noise_ratio_trend": 0.5})
    assert monitor.alert_thresholds["noise_ratio"] == 0.2


@pytest.mark.parametrize("value", [-0.1, math.nan, "0.3", None, [0.3]])
@pytest.mark.parametrize("kind", ["alert_thresholds", "drift_thresholds"])
def test_a_threshold_that_is_no_number_of_at_least_0_is_refused(kind: str, value: object):
    name = {"alert_thresholds": "noise_ratio", "drift_thresholds": "noise_ratio_trend"}[kind]
    with pytest.raises(
        ConfigurationError, match=f"threshold {name} must be a number of at least 0"
    ):
        PerformanceMonitor(**{kind: {name: value}})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            ({"noise_ration": 0.2}, None),
            r"no threshold 'noise_ration' \(did you mean 'noise_ratio'",
        ),
        (({"noise_ratio_trend": 0.2}, None), "no threshold 'noise_ratio_trend'"),
        ((None, {"xyz": 1.0}), "no threshold 'xyz'$"),
    ],
)
def test_an_unknown_threshold_is_refused_by_name(
    monitor: PerformanceMonitor, given: tuple, text: str
):
    with pytest.raises(ConfigurationError, match=text):
        monitor.update_thresholds(*given)


@pytest.mark.parametrize(
    "given",
    [
        ({"noise_ratio": 0.1, "memory_usage": -1}, {}),
        ({"noise_ratio": 0.1}, {"noise_ratio_trend": -1}),
    ],
)
def test_thresholds_of_which_one_is_impossible_change_nothing(
    monitor: PerformanceMonitor, given: tuple
):
    with pytest.raises(ConfigurationError, match="must be a number of at least 0"):
        monitor.update_thresholds(*given)
    assert monitor.alert_thresholds == ALERT_THRESHOLDS
    assert monitor.drift_thresholds == DRIFT_THRESHOLDS


# Bounded buffers


def test_a_metric_keeps_its_last_1000_values_whatever_the_others_do(monitor: PerformanceMonitor):
    monitor.record_metric("quiet", 7.0)
    for i in range(2500):
        monitor.record_metric("rmse", i)
    assert values(monitor) == [float(i) for i in range(1500, 2500)]
    assert values(monitor, "quiet") == [7.0]
    assert len(monitor.table()) == 1001


def test_the_last_1000_alerts_are_kept(monitor: PerformanceMonitor):
    for i in range(1200):
        monitor.record_metric("memory_usage", 5000.0 + i)
        monitor.check_alerts()
    assert [alert.value for alert in monitor.alerts()] == [5000.0 + i for i in range(200, 1200)]


def test_alerts_that_nobody_checks_do_not_pile_up(monitor: PerformanceMonitor):
    for i in range(3000):
        monitor.record_metric("memory_usage", 5000.0 + i)
    assert [alert.value for alert in monitor.alerts()] == [5000.0 + i for i in range(2000, 3000)]
    assert [alert.value for alert in monitor.check_alerts()] == [7999.0]


# Time windows


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(None, [0, 1, 2, 3]), (0, [3]), (9, [3]), (10, [2, 3]), (29, [1, 2, 3]), (30, [0, 1, 2, 3])],
)
def test_a_time_window_reaches_back_from_now(
    monitor: PerformanceMonitor, clock: HandClock, minutes: int | None, expected: list[float]
):
    for i in range(4):
        clock.go(minutes=10 * (i > 0))
        monitor.record_metric("rmse", i)
        monitor.record_metric("memory_usage", 5000 + i)
        monitor.check_alerts()
    window = None if minutes is None else timedelta(minutes=minutes)
    assert [r.value for r in monitor.records(["rmse"], window)] == expected
    assert [alert.value - 5000 for alert in monitor.alerts(window)] == expected


def test_metrics_are_chosen_by_name(monitor: PerformanceMonitor):
    monitor.record_metric("rmse", 1)
    monitor.record_metric("mae", 2, "forecast")
    monitor.record_metric("rmse", 3)
    assert monitor.records(["mae"]) == [Record("mae", 2.0, "forecast", START)]
    assert [record.value for record in monitor.records(["mae", "rmse"])] == [2.0, 1.0, 3.0]
    assert [record.value for record in monitor.records()] == [1.0, 3.0, 2.0]
    assert monitor.records(["unheard"]) == []
    assert monitor.records([]) == []


# Summary and table


def test_a_summary_of_nothing_is_empty(monitor: PerformanceMonitor):
    assert monitor.get_performance_summary() == {}


def test_the_summary_counts_and_spans_each_metric(monitor: PerformanceMonitor):
    for value in (4.0, 1.0, 2.5):
        monitor.record_metric("rmse", value)
    monitor.record_metric("mae", np.float32(0.5))
    assert monitor.get_performance_summary() == {
        "rmse": {"count": 3, "last": 2.5, "mean": 2.5, "min": 1.0, "max": 4.0},
        "mae": {"count": 1, "last": 0.5, "mean": 0.5, "min": 0.5, "max": 0.5},
    }


def test_the_table_has_a_row_for_each_value(monitor: PerformanceMonitor, clock: HandClock):
    monitor.record_metric("rmse", 1.0)
    clock.go(minutes=5)
    monitor.record_metric("rmse", 2.0, "forecast")
    table = monitor.table()
    assert table["timestamp"].tolist() == [START, START + timedelta(minutes=5)]
    expected = {
        "metric_name": ["rmse", "rmse"],
        "value": [1.0, 2.0],
        "component": ["pipeline", "forecast"],
    }
    pd.testing.assert_frame_equal(table.drop(columns="timestamp"), pd.DataFrame(expected))


def test_the_table_of_nothing_has_its_columns(monitor: PerformanceMonitor):
    table = monitor.table()
    assert list(table) == ["timestamp", "metric_name", "value", "component"]
    assert len(table) == 0


# Drift of a metric


def record_all(monitor: PerformanceMonitor, name: str, series: list[float]) -> None:
    for value in series:
        monitor.record_metric(name, value)


@pytest.mark.parametrize(
    ("name", "before", "now", "drift"),
    [
        ("noise_ratio", 0.10, 0.21, True),
        ("noise_ratio", 0.10, 0.19, False),  # absolute: 0.09 is under 0.1, though nearly double
        ("noise_ratio", 0.21, 0.10, False),
        ("rmse", 10.0, 12.1, True),
        ("rmse", 10.0, 11.9, False),  # relative: 19% is under 20%
        ("rmse", 12.1, 10.0, False),
        ("rmse", 0.01, 0.0121, True),
        ("loss", -10.0, -7.9, True),
    ],
)
def test_a_metric_drifts_when_its_mean_rises_over_the_threshold(
    monitor: PerformanceMonitor, name: str, before: float, now: float, drift: bool
):
    record_all(monitor, name, [1e6, *[before] * 10, *[now] * 10])
    assert monitor.detect_drift(name) is drift


def test_a_rise_within_twice_its_standard_error_is_no_drift(monitor: PerformanceMonitor):
    wild = [0.0, 30.0] * 5
    record_all(monitor, "rmse", [*wild, *(value + 5 for value in wild)])
    # Over 20% of 15, but the standard error of the difference is 7.07.
    assert monitor.detect_drift("rmse") is False
    record_all(monitor, "rmse", [*wild, *(value + 15 for value in wild)])
    assert monitor.detect_drift("rmse") is True


@pytest.mark.parametrize("window_size", [-1, 0, 1, 4, 1000])
def test_too_few_values_are_no_drift(monitor: PerformanceMonitor, window_size: int):
    record_all(monitor, "rmse", [1.0] * 3 + [100.0] * 3)
    assert monitor.detect_drift("rmse", window_size) is False
    assert monitor.detect_drift("rmse", 3) is True
    assert monitor.detect_drift("unheard") is False


def test_the_default_clock_gives_the_time_in_utc():
    monitor = PerformanceMonitor()
    before = datetime.now(UTC)
    monitor.record_metric("rmse", 1.0)
    (record,) = monitor.records()
    assert before <= record.timestamp <= datetime.now(UTC)
    assert record.timestamp.utcoffset() == timedelta(0)


def test_one_metric_may_be_named_without_a_list(monitor: PerformanceMonitor):
    monitor.record_metric("rmse", 2.0)
    assert [record.value for record in monitor.records("rmse")] == [2.0]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: m.alerts(3), "^time_window is a int; give a datetime.timedelta$"),
        (lambda m: m.records(None, 3), "^time_window is a int; give a datetime.timedelta$"),
        (lambda m: m.update_thresholds(5), "^thresholds are a int; give a mapping of names"),
    ],
)
def test_what_has_another_type_is_refused_in_one_line(monitor: PerformanceMonitor, call, text):
    with pytest.raises(ConfigurationError, match=text):
        call(monitor)


@pytest.mark.parametrize("value", ["a", None, [1.0]])
def test_a_metric_that_is_no_number_is_refused_in_one_line(value):
    monitor = PerformanceMonitor()
    with pytest.raises(DataValidationError, match=r"the value of x is a \w+; give a number"):
        monitor.record_metric("x", value)
    assert monitor.records() == []


def test_an_alert_threshold_of_the_noise_ratio_is_a_ratio():
    monitor = PerformanceMonitor({"noise_ratio": 1.0})
    with pytest.raises(ConfigurationError, match=r"threshold noise_ratio must be 0 to 1"):
        monitor.update_thresholds({"noise_ratio": 1.1})
    state = monitor.state()
    state["alert_thresholds"]["noise_ratio"] = 5.0  # of an earlier build
    again = PerformanceMonitor()
    again.restore(state)
    assert again.alert_thresholds["noise_ratio"] == 1.0
