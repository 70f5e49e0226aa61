"""What a fit of rows found and what it gains, as figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.boosting.blend import fit_outputs
from tsclust_model.boosting.output_model import OutputModel
from tsclust_model.boosting.segment_gain import segment_gain
from tsclust_model.config import PipelineConfig
from tsclust_model.metrics import METRICS
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.fit import FittedGeneration
from tsclust_model.rows.report import fold_naive_losses
from tsclust_model.rows.table import TrainingData


def shuffled_control(
    fitted: FittedGeneration, data: TrainingData, config: PipelineConfig
) -> OutputModel:
    """The blend on the folds with the segments shuffled among the rows, which gains nothing."""
    labels = np.random.default_rng(config.random_state).permutation(fitted.assignment.labels)
    recipe = replace(data.target.recipe(config, data.schema.categorical_columns), combine="blend")
    (control,) = fit_outputs(
        data.X, {data.target.name: data.y}, labels, fitted.folds, recipe, final=False
    ).values()
    return control


def performance_figures(
    fitted: FittedGeneration,
    data: TrainingData,
    known: pd.DataFrame,
    unseen: pd.DataFrame,
    control: OutputModel,
) -> dict[str, Any]:
    """What a fit has found and what it gains, as JSON-ready figures.

    `known` is the table of `data`, in the same order; `unseen` was not fitted.

    ``folds`` holds their errors: of the global model, of clusters alone, of the blend that
    is served, and of a control, the same blend with the labels shuffled among the rows. ``gain`` is
    what the segments save beyond the control, and its standard error over rows, folds and whose
    rows they are.
    """
    generation = fitted.generation
    scores, losses = generation.target.scores, generation.target.fold_losses
    rows = np.concatenate([fold.valid for fold in fitted.folds])
    gain = segment_gain(
        *(losses["global"], losses["blend"], control.fold_losses["blend"]),
        root=METRICS[scores.metric].squared,
        parts=np.repeat(np.arange(len(fitted.folds)), [len(fold.valid) for fold in fitted.folds]),
        units=None if data.groups is None else data.groups[rows],
    )
    return {
        "clustering": fitted.clustering.metrics,
        "cluster_sizes": generation.info["cluster_sizes"],
        "folds": {
            f"{scores.metric}_{way}": value
            for way, value in (scores.errors | {"control": control.scores.errors["blend"]}).items()
        }
        | {f"{name}_blend": value for name, value in scores.served.items()}
        | _fold_metrics(fitted, data, known)
        | {"cluster_weight": generation.target.weight},
        "gain": None if gain is None else gain.to_dict(),
        "clusters": {str(cluster): figures for cluster, figures in scores.clusters.items()},
        "resources": {
            name: {f"rmse_{way}": value for way, value in model.scores.errors.items()}
            | {"cluster_weight": model.weight}
            for name, model in generation.resources.items()
        },
        "holdout": evaluate_generation(generation, unseen, known) if len(unseen) else None,
    }


def _fold_metrics(
    fitted: FittedGeneration, data: TrainingData, known: pd.DataFrame
) -> dict[str, float | None]:
    """MAE and R² of what is served on the folds, and the metric of naive forecasts there."""
    target = fitted.generation.target
    rows = np.concatenate([fold.valid for fold in fitted.folds] or [np.empty(0, dtype=np.int64)])
    metric = fitted.generation.metric
    own: dict[str, float | None] = {}
    if len(target.fold_values) == len(rows):
        figures = data.target.figures(data.target.of_codes(data.y[rows]), target.fold_values)
        own = {f"{name}_blend": figures[name] for name in ("mae", "r2") if name in figures}
    return own | {
        f"{metric.name}_{way}": metric.of(losses.mean())
        for way, losses in fold_naive_losses(fitted, data, known).items()
    }


def with_gain(fitted: FittedGeneration, report: Mapping[str, Any]) -> FittedGeneration:
    """The fit whose generation says what its segments save beyond shuffled ones."""
    return replace(fitted, generation=fitted.generation.with_info({"segment_gain": report["gain"]}))
