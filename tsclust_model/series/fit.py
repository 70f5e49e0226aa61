"""From a panel of series to a fitted generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsclust_model.clustering.lineage import first_lineage
from tsclust_model.config import PipelineConfig
from tsclust_model.data.fitted_rows import FittedPeriods
from tsclust_model.data.roles import Roles
from tsclust_model.metrics import MASE
from tsclust_model.models.state import pack_json, unpack_json
from tsclust_model.monitoring.reference import Reference
from tsclust_model.results import NOISE, Assignment, ClusteringResult, Stages, silent
from tsclust_model.series.features import SHAPE_FEATURES, shape_features
from tsclust_model.series.model import KIND, SeriesGeneration
from tsclust_model.series.output_fit import SeriesFit, fit_series
from tsclust_model.series.panel import Panel
from tsclust_model.series.schema import SeriesSchema
from tsclust_model.shown import one_line


@one_line
@dataclass(frozen=True)
class FittedSeries:
    """A generation, and what its fit leaves behind for reports.

    Attributes
    ----------
    generation : SeriesGeneration
    clustering : ClusteringResult
    assignment : Assignment
        Segments of the training series at their end.
    """

    generation: SeriesGeneration
    clustering: ClusteringResult
    assignment: Assignment


def fit_series_generation(
    panel: Panel,
    roles: Roles,
    config: PipelineConfig,
    info: Mapping[str, Any] | None = None,
    stages: Stages = silent,
) -> FittedSeries:
    """Fit a whole generation of series.

    Parameters
    ----------
    panel : Panel
        On one calendar.
    roles : Roles
    config : PipelineConfig
    info : mapping, optional
        JSON-ready values that join the generation's own.
    stages : callable, optional
        Called with the name of each step; gives a context manager of a `Stage`.

    Raises
    ------
    DataValidationError, ModelTrainingError
    """
    schema = SeriesSchema.of(panel, roles, config.missing_markers)
    fit = fit_series(panel, config, stages, schema)
    clusters, sizes = np.unique(fit.assignment.labels, return_counts=True)
    own_info = {
        "kind": KIND,
        "config": config.to_dict(),
        "n_rows": len(panel),
        "frequency": panel.frequency.name,
        "season": panel.frequency.season,
        "last_timestamp": str(panel.frequency.shown(panel.last_times).max()),
        "clustering": fit.clustering.metrics,
        "cluster_sizes": {str(c): int(n) for c, n in zip(clusters, sizes, strict=True)},
        "gaps": panel.gaps,
        "scores": unpack_json(
            pack_json(fit.scores)
        ),  # numbers of clusters as texts, as a state has
        "lineage": first_lineage(fit.clustering.metrics["n_clusters"]).to_dict(),
    }
    generation = SeriesGeneration(
        schema,
        fit.segmentation,
        fit.models[panel.target],
        {name: fit.models[name] for name in panel.resources},
        _reference(fit, panel),
        dict(info or {}) | own_info,
        _fitted_periods(panel, config),
    )
    return FittedSeries(generation, fit.clustering, fit.assignment)


def _fitted_periods(panel: Panel, config: PipelineConfig) -> FittedPeriods | None:
    if not config.row_hashes:
        return None
    seed = config.random_state.to_bytes(8, "little") + panel.y.tobytes()
    return FittedPeriods.of(panel.ids.tolist(), panel.right_aligned().ends, seed)


def _reference(fit: SeriesFit, panel: Panel) -> Reference:
    density = fit.segmentation.density
    is_noise = density.predict_left_out(np.arange(len(density.points))) == NOISE
    shapes, losses = fit.shapes, fit.losses
    if not len(shapes):  # no series was long enough for a shape at the folds' origins
        ends = shape_features(panel.right_aligned().y, panel.frequency.season)
        shapes = ends[~np.isnan(ends).any(axis=1)]
        losses = np.array([fit.scores[MASE.name]["blend"]])
    return Reference.fit(shapes, SHAPE_FEATURES, is_noise, losses, MASE.name)
