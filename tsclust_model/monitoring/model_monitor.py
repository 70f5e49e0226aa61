"""How a serving model has done from run to run, and whether that calls for a retrain.

Two files in one folder: the metrics, one JSON line a run, which only ever grow, and the reference
that drift is measured against, which is replaced as a whole. A kill leaves whole lines and a whole
reference.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tsclust_model.errors import DataValidationError
from tsclust_model.files import write_state
from tsclust_model.monitoring.drift import mean_distance


@dataclass(frozen=True)
class RetrainDecision:
    """Whether a retrain is due (the truth value), and why: what `ModelMonitor.decide` returns.

    Attributes
    ----------
    reasons : tuple of str
        One sentence each; empty if nothing is due.
    drift : float or None
        What `ModelMonitor.compute_drift` gave, where it was asked.
    """

    reasons: tuple[str, ...]
    drift: float | None = None

    def __bool__(self) -> bool:
        return bool(self.reasons)


class ModelMonitor:
    """Accuracy and drift from run to run, on disk.

    Parameters
    ----------
    monitoring_dir : path
        Made when something is written.
    metrics_file, drift_file : str
        Names in that folder.
    accuracy_min_threshold : float, optional
        Accuracy below which a retrain is due; None: no accuracy is.
    drift_threshold : float
        Drift above which a retrain is due.
    drift_min_samples : int
        Means of fewer rows say nothing of drift.
    score_name : str
        What the accuracy is called in reasons; "R²" for a target of numbers, "forecast accuracy"
        for series.

    Examples
    --------
    >>> import tempfile
    >>> monitor = ModelMonitor(tempfile.mkdtemp(), accuracy_min_threshold=0.8)
    >>> means, deviations = {"age": 60.0, "dose": 0.5}, {"age": 10.0, "dose": 2.0}
    >>> monitor.update_reference_distribution(means, deviations)
    >>> monitor.compute_drift({"age": 66.0, "dose": 0.9})
    0.15
    >>> monitor.should_retrain(0.75, {"age": 66.0, "dose": 0.9})
    True
    >>> monitor.decide(0.75, {"age": 66.0, "dose": 0.9}).reasons
    ('accuracy 0.75 is under 0.8',)
    """

    def __init__(
        self,
        monitoring_dir: str | Path,
        metrics_file: str = "metrics.jsonl",
        drift_file: str = "drift.json",
        accuracy_min_threshold: float | None = None,
        drift_threshold: float = 0.2,
        drift_min_samples: int = 50,
        *,
        score_name: str = "accuracy",
    ) -> None:
        self.monitoring_dir = Path(monitoring_dir)
        self.metrics_path = self.monitoring_dir / metrics_file
        self.drift_path = self.monitoring_dir / drift_file
        self.accuracy_min_threshold = accuracy_min_threshold
        self.drift_threshold = drift_threshold
        self.drift_min_samples = drift_min_samples
        self.score_name = score_name

    def record_metrics(
        self,
        accuracy: float | None,
        data_version: str,
        model_version: str | None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a line to the metrics.

        Parameters
        ----------
        accuracy : float or None
            None where it is not known: the rows had no outcome, or no model was asked.
        data_version : str
        model_version : str or None
        extra : mapping, optional
            Further JSON-ready values; NaN becomes null.
        """
        record = {
            "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "accuracy": accuracy,
            "data_version": data_version,
            "model_version": model_version,
        } | dict(extra or {})
        line = json.dumps(_finite(record), allow_nan=False) + "\n"
        self.monitoring_dir.mkdir(parents=True, exist_ok=True)
        with self.metrics_path.open("ab") as stream:
            # After a kill in the middle of a line the next one starts a line of its own.
            torn = stream.tell() > 0 and self.metrics_path.read_bytes()[-1:] != b"\n"
            stream.write((b"\n" if torn else b"") + line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All lines, oldest first; one that a kill has cut short is left out."""
        if not self.metrics_path.exists():
            return []
        lines = map(_parsed, self.metrics_path.read_bytes().splitlines())
        return [record for record in lines if isinstance(record, dict)]

    def get_latest_accuracy(self) -> float | None:
        """The newest accuracy that is known, or None."""
        known = (record.get("accuracy") for record in reversed(self.records()))
        return next((value for value in known if value is not None), None)

    def update_reference_distribution(
        self,
        feature_means: Mapping[str, float],
        feature_scales: Mapping[str, float] | None = None,
    ) -> None:
        """Measure drift from these means on.

        Parameters
        ----------
        feature_means : mapping of str to float
        feature_scales : mapping of str to float, optional
            Standard deviation of each feature: the least that a change of its mean is a share of.
            Without one a change is a share of the mean alone.
        """
        scales = feature_scales or {}
        reference = {
            name: [float(mean), float(scales.get(name, 0.0))]
            for name, mean in feature_means.items()
            if math.isfinite(mean)
        }
        write_state(self.drift_path, {"reference": reference})

    def compute_drift(self, feature_means: Mapping[str, float]) -> float:
        """See `tsclust_model.monitoring.drift.mean_distance`; 0 without a reference."""
        return mean_distance(feature_means, self._reference())

    def should_retrain(
        self,
        current_accuracy: float | None,
        current_feature_means: Mapping[str, float] | None,
        no_model_yet: bool = False,
        *,
        n_samples: int | None = None,
    ) -> bool:
        """Whether a retrain is due; writes nothing, and `decide` says why.

        Parameters
        ----------
        current_accuracy : float or None
            None where it is not known.
        current_feature_means : mapping of str to float, or None
        no_model_yet : bool
        n_samples : int, optional
            Rows behind the means; fewer than `drift_min_samples` say nothing of drift.
        """
        return bool(
            self.decide(current_accuracy, current_feature_means, no_model_yet, n_samples=n_samples)
        )

    def decide(
        self,
        current_accuracy: float | None,
        current_feature_means: Mapping[str, float] | None,
        no_model_yet: bool = False,
        *,
        n_samples: int | None = None,
    ) -> RetrainDecision:
        """`should_retrain`, with its reasons and the drift."""
        if no_model_yet:
            return RetrainDecision(("no model yet",))
        reasons, drift = [], None
        floor = self.accuracy_min_threshold
        if floor is not None and current_accuracy is not None and not current_accuracy >= floor:
            reasons.append(f"{self.score_name} {current_accuracy:.4g} is under {floor:.4g}")
        if current_feature_means and (n_samples is None or n_samples >= self.drift_min_samples):
            drift = self.compute_drift(current_feature_means)
            if drift > self.drift_threshold:
                reasons.append(
                    f"drift of the feature means {drift:.2f} is over {self.drift_threshold:.4g}"
                )
        return RetrainDecision(tuple(reasons), drift)

    def _reference(self) -> dict[str, list[float]]:
        if not self.drift_path.exists():
            return {}
        try:
            return dict(json.loads(self.drift_path.read_bytes())["reference"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataValidationError(
                f"{self.drift_path} holds no reference; delete it, and the next training writes it"
            ) from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _finite(value: Any) -> Any:
    """JSON without NaN."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
