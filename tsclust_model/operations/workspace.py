"""Where the operations loop keeps what it knows: one folder each for data, reports and metrics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.quality import QualityReport, kept_rows, likely_rename
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, listed
from tsclust_model.files import write_state
from tsclust_model.mlflow_integration.registry import registered_model
from tsclust_model.mlflow_integration.storage import ModelStorage, open_storage
from tsclust_model.models.base import Cases, FittedModel
from tsclust_model.models.task import Task
from tsclust_model.monitoring.model_monitor import ModelMonitor
from tsclust_model.operations.settings import LoopSettings
from tsclust_model.shown import one_line


@one_line
@dataclass(frozen=True)
class FeatureMeans:
    """What the drift of the monitor is measured on.

    Attributes
    ----------
    means, scales : dict of str to float
        Mean and standard deviation of each feature that has values.
    n_samples : int
        Rows, or series, behind them.
    """

    means: dict[str, float]
    scales: dict[str, float]
    n_samples: int


@one_line
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
        return self.task.roles

    @cached_property
    def task(self) -> Task:
        """What is trained where there is no model yet."""
        return self.settings.task

    @cached_property
    def storage(self) -> ModelStorage:
        """Of the registered model."""
        settings = self.settings
        return open_storage(
            self.config,
            self.name,
            versions_dir=settings.data.versions_dir,
            monitoring_dir=settings.monitoring.dir,
        )

    @property
    def folder(self) -> Path:
        """Of the monitor, the quality reports and the lock."""
        return self.storage.monitoring

    @property
    def versions(self) -> DataVersioner:
        """The data as it came in."""
        return DataVersioner(self.storage.data_versions)

    def monitor(self, model: FittedModel | None = None) -> ModelMonitor:
        """The monitor; its reasons speak of the score of `model`."""
        monitoring = self.settings.monitoring
        return ModelMonitor(
            self.folder,
            monitoring.metrics_file,
            monitoring.drift_file,
            monitoring.accuracy_min_threshold,
            monitoring.drift_threshold,
            monitoring.drift_min_samples,
            score_name="accuracy" if model is None else model.score_name,
        )

    def keep_report(self, data_version: str, report: Mapping[str, Any]) -> None:
        """Keep a quality report, whole or not at all."""
        write_state(self._report_path(data_version), report)

    def rows(self, data_version: str) -> pd.DataFrame:
        """The rows of a version that its quality report has left."""
        frame, _ = self.versions.load(data_version)
        return kept_rows(frame, self.report(data_version))

    def report(self, data_version: str) -> QualityReport:
        """The quality report of a version."""
        return cast(QualityReport, json.loads(self._report_path(data_version).read_bytes()))

    def model(self, version: str) -> FittedModel:
        """The model of a registered version, of whichever type it is."""
        return registered_model(self.name, version)

    def require_horizon(self, model: FittedModel) -> None:
        """Refuse a model whose horizon or covariates of series are not those of the settings: no
        retrain changes them.

        Raises
        ------
        ConfigurationError
        """
        if not self.task.forecasts_as(model):
            own, asked = model.roles.horizon, self.roles.horizon
            raise ConfigurationError(
                f"'{self.name}' was trained with horizon {own} (0: rows) and data.horizon is "
                f"{asked}; set it so, or take another training.model_name"
            )
        for role in ("future", "static", "holidays"):
            of_model, of_settings = (
                listed(sorted([found] if isinstance(found, str) else found or ()), 20) or "none"
                for found in (getattr(model.roles, role), getattr(self.settings.data, role))
            )
            if of_model != of_settings:
                raise ConfigurationError(
                    f"'{self.name}' was trained with {role} {of_model}, and data.{role} is "
                    f"{of_settings}; set it so, or take another training.model_name"
                )

    def register(self, model: FittedModel, data_version: str) -> str:
        """Let the rows of a version join the history, as the model knows them; their batch."""
        rows = model.checked_rows(self.rows(data_version), self.config)
        return self.storage.history.register(rows)

    def out_of_sample(self, model: FittedModel, batch_id: str) -> Cases:
        """Labelled cases of a batch that the model was not fitted on and can score."""
        return model.out_of_sample(self.storage.history, batch_id, self.config)

    def has_target(self, data_version: str) -> bool:
        """Whether a version has the target's column at all; its values may come later."""
        return self.roles.target in self.versions.load(data_version)[0]

    def without_outcomes(self, data_version: str) -> list[str]:
        """A sentence on a version none of whose rows has an outcome; empty if one has."""
        rows = self.rows(data_version)
        outcomes = rows[self.roles.target]
        if (outcomes.notna() & ~outcomes.isin(["", *self.config.missing_markers])).any():
            return []
        return [f"0 of {len(rows)} rows have an outcome: nothing was evaluated"]

    def target_gone(self, model: FittedModel, data_version: str) -> str:
        """A sentence on a version without the target's column, and the name it may have now."""
        target, schema = self.roles.target, model.info.get("quality")
        hint = "" if schema is None else likely_rename(target, self.rows(data_version), schema)
        return f"the data has no column '{target}'{hint}, so that nothing was evaluated"

    def remember_means(self, model: FittedModel, batch_id: str) -> None:
        """Measure drift from these rows on: whatever they showed has been answered."""
        shown = self.feature_means(model, batch_id)
        self.monitor().update_reference_distribution(shown.means, shown.scales)

    def feature_means(self, model: FittedModel, batch_id: str) -> FeatureMeans:
        """Of the numeric features of a batch; of series, of the shapes that they end with."""
        values = model.feature_values(self.storage.history, batch_id, self.config)
        finite = {name: column[np.isfinite(column)] for name, column in values.items()}
        known = {name: column for name, column in finite.items() if column.size}
        return FeatureMeans(
            {name: float(column.mean()) for name, column in known.items()},
            {name: float(column.std()) for name, column in known.items()},
            max(map(len, values.values()), default=0),
        )

    @property
    def digest(self) -> str:
        """Of the settings that decide; where data, logs and runs lie does not."""
        elsewhere: dict[str, Any] = {"logging": True, "mlflow": True, "data": {"path"}}
        text = self.settings.model_dump_json(exclude=elsewhere)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _report_path(self, data_version: str) -> Path:
        return self.folder / "quality" / f"{data_version}.json"
