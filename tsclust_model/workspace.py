"""Where the operations loop keeps what it knows: one folder each for data, reports and metrics."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.baselines import LIGHTGBM, MODEL_TYPE_TAG, Baseline, load_baseline
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ConfigurationError
from tsclust_model.evaluation import evaluate_generation
from tsclust_model.generation import Generation
from tsclust_model.history import DataVersioner
from tsclust_model.model_monitor import ModelMonitor
from tsclust_model.quality import kept_rows
from tsclust_model.registry import registered_generation, version_tags
from tsclust_model.series_generation import SeriesGeneration
from tsclust_model.settings import LoopSettings
from tsclust_model.training import open_history
from tsclust_model.validation import Roles, in_time_order

FIGURES = ("accuracy", "rmse", "mae", "r2", "log_loss", "auc")
"""What the loop says of the serving model; None where it has no such figure."""

Model = Generation | Baseline


@dataclass(frozen=True)
class Workspace:
    """The places and facts that follow from the settings.

    Attributes
    ----------
    settings : LoopSettings
    """

    settings: LoopSettings

    @cached_property
    def config(self) -> PipelineConfig:
        return self.settings.pipeline

    @property
    def name(self) -> str:
        """The registered model."""
        return self.settings.model_name

    @property
    def roles(self) -> Roles:
        data = self.settings.data
        return Roles(data.target, data.features, data.resources, data.time, data.id)

    @property
    def folder(self) -> Path:
        """Of the monitor, the quality reports and the lock."""
        return Path(self.settings.monitoring.dir) / self.name

    @property
    def versions(self) -> DataVersioner:
        """The data as it came in."""
        return DataVersioner(Path(self.settings.data.versions_dir) / self.name)

    def monitor(self, model: Model | None = None) -> ModelMonitor:
        """The monitor; its reasons speak of the score of `model`."""
        monitoring = self.settings.monitoring
        return ModelMonitor(
            self.folder,
            monitoring.metrics_file,
            monitoring.drift_file,
            monitoring.accuracy_min_threshold,
            monitoring.drift_threshold,
            monitoring.drift_min_samples,
            score_name="R²" if model is not None and score_name(model) == "r2" else "accuracy",
        )

    def keep_report(self, data_version: str, report: Mapping[str, Any]) -> None:
        """Keep a quality report, whole or not at all."""
        path = self._report_path(data_version)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(report))
        partial.replace(path)

    def rows(self, data_version: str) -> pd.DataFrame:
        """The rows of a version that its quality report has left."""
        frame, _ = self.versions.load(data_version)
        return kept_rows(frame, self.report(data_version))

    def report(self, data_version: str) -> dict[str, Any]:
        """The quality report of a version."""
        return dict(json.loads(self._report_path(data_version).read_bytes()))

    def model(self, version: str) -> Model:
        """The model of a registered version, of whichever type it is."""
        model_type = version_tags(self.name, version).get(MODEL_TYPE_TAG, LIGHTGBM)
        if model_type != LIGHTGBM:
            return load_baseline(f"models:/{self.name}/{version}")
        found = registered_generation(self.name, version)
        if isinstance(found, SeriesGeneration):
            raise ConfigurationError(
                f"'{self.name}' forecasts series, which the loop does not: take -e retrain, or "
                "another training.model_name"
            )
        return found

    def unseen(self, model: Model, data_version: str) -> pd.DataFrame:
        """Labelled rows of a version that the model was not trained on and can score.

        They are in the history after this, as the model knows them.
        """
        frame = in_time_order(self.rows(data_version), model.roles.time)
        history = open_history(self.config, self.name)
        batch = history.register(model.canonical_rows(frame))
        rows, _ = history.load(batch)
        start, stop = model.info["trained_on"].get(batch, (0, 0))
        rows = pd.concat([rows.iloc[:start], rows.iloc[stop:]], ignore_index=True)
        target = model.roles.target
        if target not in rows:
            return rows.head(0)
        known = rows[rows[target].notna()].reset_index(drop=True)
        if known.empty:
            return known
        return known[model.schema.encode(known).scorable].reset_index(drop=True)

    def remember_means(self, model: Model, data_version: str) -> None:
        """Measure drift from these rows on: whatever they showed is dealt with."""
        means, scales = feature_means(model, self.rows(data_version))
        self.monitor().update_reference_distribution(means, scales)

    @property
    def digest(self) -> str:
        """Of the settings that decide; where logs and runs go does not."""
        text = self.settings.model_dump_json(exclude={"logging", "mlflow"})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _report_path(self, data_version: str) -> Path:
        return self.folder / "quality" / f"{data_version}.json"


def figures(model: Model, rows: pd.DataFrame) -> dict[str, Any]:
    """The `FIGURES` of a model on labelled rows; all None without any."""
    if rows.empty:
        return dict.fromkeys(FIGURES)
    if isinstance(model, Baseline):
        found: dict[str, Any] = dict(model.figures(rows))
    else:
        found = evaluate_generation(model, rows)
    return {name: found.get(name) for name in FIGURES}


def score_name(model: Model) -> str:
    """The figure that `accuracy_min_threshold` is about."""
    return "accuracy" if model.classes is not None else "r2"


def feature_means(model: Model, frame: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of each numeric feature that has values."""
    X = model.schema.encode(frame).X
    known = {
        feature.name: X[np.isfinite(X[:, i]), i]
        for i, feature in enumerate(model.schema.features)
        if feature.is_number
    }
    means = {name: float(values.mean()) for name, values in known.items() if values.size}
    return means, {name: float(known[name].std()) for name in means}
