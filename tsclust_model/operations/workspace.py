"""Where the operations loop keeps what it knows: one folder each for data, reports and metrics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import in_time_order
from tsclust_model.data.fitted_rows import FittedRows
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.quality import kept_rows, likely_rename
from tsclust_model.data.roles import Roles
from tsclust_model.data.window import Window
from tsclust_model.errors import ConfigurationError
from tsclust_model.files import write_state
from tsclust_model.metrics import NAIVE_FIGURES
from tsclust_model.mlflow_integration.baselines import load_baseline
from tsclust_model.mlflow_integration.kinds import AnyGeneration
from tsclust_model.mlflow_integration.registry import registered_generation, version_tags
from tsclust_model.mlflow_integration.storage import ModelStorage, open_storage
from tsclust_model.models.base import LIGHTGBM, MODEL_TYPE_TAG
from tsclust_model.monitoring.model_monitor import ModelMonitor
from tsclust_model.operations.settings import LoopSettings
from tsclust_model.rows.baseline import Baseline
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.model import Generation
from tsclust_model.series.evaluation import evaluate_series
from tsclust_model.series.features import SHAPE_FEATURES
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.panel import HeldBack
from tsclust_model.series.windows import canonical_series_rows, series_unseen, series_window
from tsclust_model.shown import one_line

FIGURES = (
    *("accuracy", "rmse", "mae", "r2", "log_loss", "auc", "mase", "wape"),
    *NAIVE_FIGURES,
)
"""What the loop says of the serving model; None where it has no such figure."""

Model = AnyGeneration | Baseline

Unseen = pd.DataFrame | HeldBack
"""Labelled rows, or series and what followed, that a model is judged on."""


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
        data = self.settings.data
        return Roles(
            *(data.target, data.features, data.resources, data.time, data.id),
            horizon=data.horizon,
            frequency=data.frequency,
        )

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
            score_name="accuracy" if model is None else score_name(model),
        )

    def keep_report(self, data_version: str, report: Mapping[str, Any]) -> None:
        """Keep a quality report, whole or not at all."""
        write_state(self._report_path(data_version), report)

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
        return registered_generation(self.name, version)

    def require_horizon(self, model: Model) -> None:
        """Refuse a model whose horizon is not that of the settings: no retrain changes it.

        Raises
        ------
        ConfigurationError
        """
        own, asked = model.roles.horizon, self.settings.data.horizon
        if own != asked:
            raise ConfigurationError(
                f"'{self.name}' was trained with horizon {own} (0: rows) and data.horizon is "
                f"{asked}; set it so, or take another training.model_name"
            )

    def unseen(self, model: Model, data_version: str) -> Unseen:
        """Labelled rows of a version that the model was not trained on and can score.

        Of series it is the newest `horizon` periods of each. They are in the history after this,
        as the model knows them.
        """
        if isinstance(model, SeriesGeneration):
            window = self._series_window(model, data_version)
            return series_unseen(model, window, self.config)
        frame = in_time_order(self.rows(data_version), model.roles.time)
        history = self.storage.history
        batch = history.register(model.canonical_rows(frame))
        rows, _ = history.load(batch)
        start, stop = model.info["trained_on"].get(batch, (0, 0))
        rows = pd.concat([rows.iloc[:start], rows.iloc[stop:]], ignore_index=True)
        target = model.roles.target
        if target not in rows:
            return rows.head(0)
        known = self.without_fitted(model, rows[rows[target].notna()].reset_index(drop=True))
        if known.empty:
            return known
        return known[model.schema.encode(known).scorable].reset_index(drop=True)

    def without_fitted(self, model: Generation | Baseline, rows: pd.DataFrame) -> pd.DataFrame:
        """Labelled rows but for those whose content the model was fitted on in any version.

        A file that grows brings old rows again in every version of it.
        """
        fitted = model.fitted if isinstance(model, Generation) else None
        fitted = fitted or self._fitted_by_history(model)
        return rows[~fitted.contains(model.canonical_rows(rows))].reset_index(drop=True)

    def _fitted_by_history(self, model: Generation | Baseline) -> FittedRows:
        """Of a model that carries no hashes; batches that are forgotten are left out."""
        history = self.storage.history
        there = set(history.list_versions())
        parts = [
            history.load(batch)[0].iloc[start:stop]
            for batch, (start, stop) in model.info["trained_on"].items()
            if batch in there
        ]
        columns = (*model.schema.names, model.roles.target)
        rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
        return FittedRows.of(rows, columns, (model.roles.id, model.roles.time), b"")

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

    def target_gone(self, model: Model, data_version: str) -> str:
        """A sentence on a version without the target's column, and the name it may have now."""
        target, schema = self.roles.target, model.info.get("quality")
        hint = "" if schema is None else likely_rename(target, self.rows(data_version), schema)
        return f"the data has no column '{target}'{hint}, so that nothing was evaluated"

    def remember_means(self, model: Model, data_version: str) -> None:
        """Measure drift from these rows on: whatever they showed is dealt with."""
        found = self.feature_means(model, data_version)
        self.monitor().update_reference_distribution(found.means, found.scales)

    def feature_means(self, model: Model, data_version: str) -> FeatureMeans:
        """Of the numeric features of the rows; of series, of the shapes that they end with."""
        if isinstance(model, SeriesGeneration):
            window, roles = self._series_window(model, data_version), model.roles
            policy, markers = self.config.gap_policy, self.config.missing_markers
            roles = replace(roles, frequency=model.schema.frequency)
            panel = series_panel(window.frame, roles, policy, markers)
            shapes = model.shapes(panel.right_aligned())
            return _means(dict(zip(SHAPE_FEATURES, shapes.T, strict=True)))
        X = model.schema.encode(self.rows(data_version)).X
        features = enumerate(model.schema.features)
        return _means({feature.name: X[:, i] for i, feature in features if feature.is_number})

    def _series_window(self, model: SeriesGeneration, data_version: str) -> Window:
        """The history of the series of a version, up to its newest period; it is part of it."""
        roles = replace(model.roles, frequency=model.schema.frequency)
        rows = canonical_series_rows(self.rows(data_version), roles, self.config)
        history = self.storage.history
        history.register(rows)
        window = series_window(model, history, self.config)
        id, time = str(roles.id), str(roles.time)
        known = window.frame[id].isin(rows[id]) & (window.frame[time] <= rows[time].max())
        kept = known.to_numpy()
        return Window(
            window.frame[kept].reset_index(drop=True), window.versions[kept], window.rows[kept]
        )

    @property
    def digest(self) -> str:
        """Of the settings that decide; where data, logs and runs lie does not."""
        elsewhere: dict[str, Any] = {"logging": True, "mlflow": True, "data": {"path"}}
        text = self.settings.model_dump_json(exclude=elsewhere)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _report_path(self, data_version: str) -> Path:
        return self.folder / "quality" / f"{data_version}.json"


def figures(model: Model, unseen: Unseen) -> dict[str, Any]:
    """The `FIGURES` of a model on what it has not seen; all None without any."""
    if not len(unseen):
        return dict.fromkeys(FIGURES)
    found: dict[str, Any]
    if isinstance(unseen, HeldBack):
        assert isinstance(model, SeriesGeneration)
        found = evaluate_series(model, unseen)
    elif isinstance(model, Baseline):
        found = dict(model.figures(unseen))
    else:
        assert not isinstance(model, SeriesGeneration)
        found = evaluate_generation(model, unseen)
    return {name: found.get(name) for name in FIGURES}


def score(found: Mapping[str, Any]) -> float | None:
    """What `accuracy_min_threshold` is about: accuracy, R², or 1 - WAPE, as `FIGURES` has it."""
    if found["wape"] is not None:
        return 1 - float(found["wape"])
    value = found["r2"] if found["accuracy"] is None else found["accuracy"]
    return None if value is None else float(value)


def score_name(model: Model) -> str:
    """What `score` is called in reasons."""
    if isinstance(model, SeriesGeneration):
        return "forecast accuracy"
    return "R²" if model.classes is None else "accuracy"


def _means(values: Mapping[str, np.ndarray]) -> FeatureMeans:
    finite = {name: found[np.isfinite(found)] for name, found in values.items()}
    known = {name: found for name, found in finite.items() if found.size}
    return FeatureMeans(
        {name: float(found.mean()) for name, found in known.items()},
        {name: float(found.std()) for name, found in known.items()},
        max(map(len, values.values()), default=0),
    )
