"""Forecasts of series: for now the seasonal naive one, behind the interface of what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsclust_model.clustering import Segmentation, fit_density, fit_fallback
from tsclust_model.config import PipelineConfig
from tsclust_model.panel import Panel
from tsclust_model.results import NOISE, Assignment, ClusteringResult
from tsclust_model.stages import Stages
from tsclust_model.state import pack_arrays, pack_json, unpack_arrays, unpack_json

SHAPE_FEATURES = ("log_variation", "season_strength")


def shape_features(values: np.ndarray, season: int) -> np.ndarray:
    """Shape of right-aligned series, (n, 2); NaN rows where a series is too short."""
    shapes = np.full((len(values), len(SHAPE_FEATURES)), np.nan)
    for i, row in enumerate(values):
        known = row[~np.isnan(row)]
        if len(known) < 2 * season + 2:
            continue
        lagged = np.abs(known[season:] - known[:-season]).mean()
        near = np.abs(np.diff(known)).mean()
        level = np.abs(known).mean()
        shapes[i] = np.log1p(known.std() / (level or 1.0)), near / ((lagged + near) or 1.0)
    return shapes


@dataclass(frozen=True)
class SeriesForecast:
    prediction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class SeriesModel:
    season: int
    horizon: int
    spread: float

    @property
    def texts(self) -> dict[int, tuple[str, ...]]:
        return {}

    def forecast(
        self,
        values: np.ndarray,
        ends: np.ndarray,
        covariates: Mapping[str, np.ndarray],
        labels: np.ndarray,
        coverage: float,
    ) -> SeriesForecast:
        prediction = self._seasonal(values)
        lagged = np.abs(values[:, self.season :] - values[:, : -self.season])
        counts = (~np.isnan(lagged)).sum(axis=1)
        scale = np.nan_to_num(lagged).sum(axis=1) / np.maximum(counts, 1)
        half = (scale * self.spread * coverage)[:, None] * np.ones(self.horizon)
        return SeriesForecast(
            prediction, prediction - half, prediction + half, np.zeros(len(values))
        )

    def baselines(
        self,
        values: np.ndarray,
        ends: np.ndarray,
        covariates: Mapping[str, np.ndarray],
        labels: np.ndarray,
    ) -> dict[str, np.ndarray]:
        found = self._seasonal(values)
        return dict.fromkeys(("seasonal_naive", "theta", "bank", "global", "cluster"), found)

    def _seasonal(self, values: np.ndarray) -> np.ndarray:
        last = values[:, -self.season :]
        last = np.where(np.isnan(last), values[:, -1:], last)
        return last[:, np.arange(self.horizon) % self.season]

    def renumbered(self, ids: Mapping[int, int]) -> SeriesModel:
        return self

    def to_parts(self, key: str) -> dict[str, bytes]:
        return {
            f"{key}.json": pack_json({"season": self.season, "horizon": self.horizon}),
            f"{key}.npz": pack_arrays({"spread": np.array(self.spread)}),
        }

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes], key: str) -> SeriesModel:
        spread = float(unpack_arrays(parts[f"{key}.npz"])["spread"])
        return cls(**unpack_json(parts[f"{key}.json"]), spread=spread)


@dataclass(frozen=True)
class SeriesFit:
    segmentation: Segmentation
    clustering: ClusteringResult
    assignment: Assignment
    models: dict[str, SeriesModel]
    scores: dict[str, Any]
    shapes: np.ndarray
    losses: np.ndarray


def fit_series(panel: Panel, config: PipelineConfig, stages: Stages) -> SeriesFit:
    season = panel.frequency.season
    values = panel.right_aligned().y
    shapes = shape_features(values, season)
    rows = np.flatnonzero(~np.isnan(shapes).any(axis=1))
    X = shapes[rows]
    with stages("HDBSCAN"):
        found = fit_density(X, config.hdbscan_params, config.max_fit_rows, config.random_state)
    with stages("kNN-Fallback") as stage:
        segments = fit_fallback(X, found, config.knn_params, None, config.random_state)
        stage.log(segments.result.metrics)
    labels = np.full(len(panel), NOISE)
    labels[rows] = segments.assignment.labels
    is_noise = np.zeros(len(panel), dtype=bool)
    is_noise[rows] = segments.assignment.is_noise
    strength = np.zeros(len(panel))
    strength[rows] = segments.assignment.strength
    with stages("TimeSeries-LGB"):
        target = SeriesModel(season, panel.horizon, 3.0)
    with stages("Resource-LGB"):
        models = {panel.target: target} | {name: replace(target) for name in panel.resources}
    scale = np.nanmean(np.abs(values[rows, season:] - values[rows, :-season]), axis=1)
    losses = np.where(scale > 0, 1.0, 0.0)
    ways = ("global", "cluster", "blend", "bank", "theta", "seasonal_naive", "control")
    clusters = {str(c): {"n_series": int((labels == c).sum())} for c in np.unique(labels)}
    scores = {
        "mase": dict.fromkeys(ways, float(losses.mean())),
        "cluster_weight": 0.0,
        "clusters": clusters,
        "n_rows": len(rows),
    }
    return SeriesFit(
        segments.segmentation,
        segments.result,
        Assignment(labels, is_noise, strength),
        models,
        scores,
        X,
        losses,
    )
