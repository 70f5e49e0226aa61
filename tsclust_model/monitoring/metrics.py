"""What happened lately: metrics and alerts, in buffers that never grow."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.errors import ConfigurationError, DataValidationError, suggestion
from tsclust_model.files import State
from tsclust_model.monitoring.drift import has_risen
from tsclust_model.results import (
    AlertSummary,
    MetricSummaries,
    PerformanceAlert,
    RecordedValue,
)

ALERT_THRESHOLDS = {"noise_ratio": 0.3, "processing_time": 60.0, "memory_usage": 4096.0}
"""Highest value without an alert: a ratio, seconds, MB."""

DRIFT_THRESHOLDS = {"noise_ratio_trend": 0.1, "performance_degradation": 0.2}
"""Rise without drift: of the noise ratio (absolute), of any other metric (relative)."""

_CRITICAL = 1.5

_RECORDS = 1_000

# Of what is kept, the share that the next process sees.
_KEPT, _KEPT_ALERTS = 20, 100

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Record:
    """One value of a metric."""

    metric_name: str
    value: float
    component: str
    timestamp: datetime


class PerformanceMonitor:
    """The last 1,000 values of each metric, and alerts on them.

    Parameters
    ----------
    alert_thresholds : mapping, optional
        Laid over `ALERT_THRESHOLDS`.
    drift_thresholds : mapping, optional
        Laid over `DRIFT_THRESHOLDS`.
    clock : callable, optional
        Gives the time (UTC).

    Examples
    --------
    >>> monitor = PerformanceMonitor({"noise_ratio": 0.2})
    >>> monitor.record_metric("noise_ratio", 0.35)
    >>> [(alert.metric_name, alert.severity) for alert in monitor.check_alerts()]
    [('noise_ratio', 'critical')]
    >>> monitor.record_metric("noise_ratio", 0.1)
    >>> monitor.check_alerts()
    []
    """

    def __init__(
        self,
        alert_thresholds: Mapping[str, float] | None = None,
        drift_thresholds: Mapping[str, float] | None = None,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self.alert_thresholds = dict(ALERT_THRESHOLDS)
        self.drift_thresholds = dict(DRIFT_THRESHOLDS)
        self._clock = clock
        self._records: dict[str, deque[Record]] = {}
        self._alerts: deque[PerformanceAlert] = deque(maxlen=_RECORDS)
        self.update_thresholds(alert_thresholds, drift_thresholds)

    def update_thresholds(
        self,
        alert_thresholds: Mapping[str, float] | None = None,
        drift_thresholds: Mapping[str, float] | None = None,
    ) -> None:
        """Change thresholds; the others stay.

        Raises
        ------
        ConfigurationError
            An unknown name, or a value that is no number of at least 0.
        """
        both = (
            (self.alert_thresholds, alert_thresholds or {}),
            (self.drift_thresholds, drift_thresholds or {}),
        )
        for own, given in both:
            _check_thresholds(given, own)
        for own, given in both:
            own.update(given)

    def record_metric(self, metric_name: str, value: float, component: str = "pipeline") -> None:
        """Record a value, and an alert if it is above its threshold.

        Raises
        ------
        DataValidationError
            The value is no number.
        """
        if not isinstance(value, (int, float, np.number)):
            raise DataValidationError(
                f"the value of {metric_name} is a {type(value).__name__}; give a number"
            )
        record = Record(metric_name, float(value), component, self._clock())
        self._keep(record)
        self._alerts.extend(self._alerts_of(record))

    def _keep(self, record: Record) -> None:
        self._records.setdefault(record.metric_name, deque(maxlen=_RECORDS)).append(record)

    def check_alerts(self) -> list[PerformanceAlert]:
        """Active alerts, oldest first.

        A metric's alert is active while its newest value of that component is over the threshold
        in force; NaN says nothing. `alerts` has those that are over.
        """
        newest = {
            (record.metric_name, record.component): record
            for record in self.records()
            if not math.isnan(record.value)
        }
        active = [alert for record in newest.values() for alert in self._alerts_of(record)]
        return sorted(active, key=lambda alert: alert.timestamp)

    def _alerts_of(self, record: Record) -> list[PerformanceAlert]:
        limit = self.alert_thresholds.get(record.metric_name)
        return [_alert(record, limit)] if limit is not None and record.value > limit else []

    def get_performance_summary(self) -> MetricSummaries:
        """``count``, ``last``, ``mean``, ``min``, ``max`` of each metric that is kept."""
        return {
            name: {
                "count": len(records),
                "last": records[-1].value,
                "mean": float(np.mean([record.value for record in records])),
                "min": min(record.value for record in records),
                "max": max(record.value for record in records),
            }
            for name, records in self._records.items()
        }

    def detect_drift(self, metric_name: str, window_size: int = 10) -> bool:
        """Whether the last `window_size` values are higher than the same number before them.

        The rise of the means must be over the drift threshold (of ``noise_ratio``: absolute, of
        any other metric: relative) and over twice its standard error.
        """
        values = [record.value for record in self._records.get(metric_name, ())]
        if window_size < 2 or len(values) < 2 * window_size:
            return False
        before, now = values[-2 * window_size : -window_size], values[-window_size:]
        if metric_name == "noise_ratio":
            limit = self.drift_thresholds["noise_ratio_trend"]
        else:
            limit = self.drift_thresholds["performance_degradation"] * abs(float(np.mean(before)))
        return has_risen(np.array(before), np.array(now), limit)

    def records(
        self, metric_names: Sequence[str] | None = None, time_window: timedelta | None = None
    ) -> list[Record]:
        """Values of some metrics (default: all) of the last `time_window` (default: all)."""
        since = self._since(time_window)
        if isinstance(metric_names, str):
            metric_names = [metric_names]
        names = self._records if metric_names is None else metric_names
        return [
            record
            for name in names
            for record in self._records.get(name, ())
            if since is None or record.timestamp >= since
        ]

    def _since(self, time_window: timedelta | None) -> datetime | None:
        if time_window is None:
            return None
        if not isinstance(time_window, timedelta):
            raise ConfigurationError(
                f"time_window is a {type(time_window).__name__}; give a datetime.timedelta"
            )
        return self._clock() - time_window

    def alerts(self, time_window: timedelta | None = None) -> list[PerformanceAlert]:
        """Alerts of the last `time_window` (default: all that are kept), oldest first."""
        since = self._since(time_window)
        return [alert for alert in self._alerts if since is None or alert.timestamp >= since]

    def by_metric(
        self, metric_names: Sequence[str] | None = None, time_window: timedelta | None = None
    ) -> dict[str, list[RecordedValue]]:
        """`records` by metric: ``value``, ``component``, ``timestamp``, oldest first."""
        by_name: dict[str, list[RecordedValue]] = {}
        for record in self.records(metric_names, time_window):
            value, component = record.value, record.component
            entry = RecordedValue(value=value, component=component, timestamp=record.timestamp)
            by_name.setdefault(record.metric_name, []).append(entry)
        return by_name

    def alert_summary(self, time_window: timedelta | None = None) -> AlertSummary:
        """``total``, ``by_severity``, ``by_metric`` and the ``alerts``, oldest first."""
        alerts = self.alerts(time_window)
        return {
            "total": len(alerts),
            "by_severity": dict(Counter(alert.severity for alert in alerts)),
            "by_metric": dict(Counter(alert.metric_name for alert in alerts)),
            "alerts": alerts,
        }

    def state(self) -> State:
        """What the next process needs to go on, as JSON.

        Thresholds, the newest 100 alerts, and of each metric the newest 20 values.
        """
        alerts = [asdict(alert) for alert in list(self._alerts)[-_KEPT_ALERTS:]]
        records = [
            asdict(record) for kept in self._records.values() for record in list(kept)[-_KEPT:]
        ]
        for entry in (*alerts, *records):
            entry["timestamp"] = entry["timestamp"].isoformat()
        return {
            "alert_thresholds": self.alert_thresholds,
            "drift_thresholds": self.drift_thresholds,
            "alerts": alerts,
            "records": records,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        limits = dict(state["alert_thresholds"])
        if "noise_ratio" in limits:  # an earlier build took any number; above 1 none alarms
            limits["noise_ratio"] = min(limits["noise_ratio"], 1.0)
        self.update_thresholds(limits, state["drift_thresholds"])
        for entry in map(_with_time, state["records"]):
            self._keep(Record(**entry))
        self._alerts.extend(PerformanceAlert(**entry) for entry in map(_with_time, state["alerts"]))

    def table(self) -> pd.DataFrame:
        """All values as a table: ``timestamp``, ``metric_name``, ``value``, ``component``."""
        columns = ["timestamp", "metric_name", "value", "component"]
        rows = [[getattr(record, name) for name in columns] for record in self.records()]
        return pd.DataFrame(rows, columns=columns)


def _alert(record: Record, limit: float) -> PerformanceAlert:
    severity = "critical" if record.value >= _CRITICAL * limit else "warning"
    message = f"{record.metric_name} {record.value:.4g} is over its threshold {limit:.4g}"
    return PerformanceAlert(
        record.metric_name,
        record.value,
        limit,
        severity,
        record.component,
        message,
        record.timestamp,
    )


def _check_thresholds(given: Mapping[str, float], known: Mapping[str, float]) -> None:
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"thresholds are a {type(given).__name__}; give a mapping of names to numbers"
        )
    for name, value in given.items():
        if name not in known:
            raise ConfigurationError(f"no threshold '{name}'{suggestion(name, known)}")
        if not isinstance(value, (int, float)) or not value >= 0:
            raise ConfigurationError(f"threshold {name} must be a number of at least 0")
        if name == "noise_ratio" and value > 1:
            raise ConfigurationError("threshold noise_ratio must be 0 to 1, as the ratio is")


def _with_time(entry: Mapping[str, Any]) -> dict[str, Any]:
    return dict(entry) | {"timestamp": datetime.fromisoformat(entry["timestamp"])}
