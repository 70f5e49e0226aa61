"""What a model must reach: mlflow's `MetricThreshold`, from the YAML, on our figures."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import mlflow
from mlflow.models import EvaluationResult, MetricThreshold
from mlflow.models.evaluation.validation import ModelValidationFailedException

from tsclust_model.errors import ConfigurationError
from tsclust_model.mlflow_integration.registry import tag_version
from tsclust_model.mlflow_integration.stores import translated

PASSED, FAILED = "PASSED", "FAILED"

STATUS_TAG = "validation_status"


def failed_thresholds(
    thresholds: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Any],
    baseline: Mapping[str, Any] | None = None,
) -> list[str]:
    """Sentences on the thresholds that are not met; empty if all are.

    `thresholds` holds the fields of `MetricThreshold` by metric; changes are against the
    `baseline`. Figures that are undefined are left out. A threshold that mlflow does not take is a
    ConfigurationError.
    """
    wanted = {name: _metric_threshold(name, fields) for name, fields in thresholds.items()}
    # mlflow says on its own log which thresholds it looks at; the core is silent.
    logger = logging.getLogger("mlflow.models.evaluation")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        mlflow.validate_evaluation_results(
            wanted,
            EvaluationResult(_numbers(figures), {}),
            None if baseline is None else EvaluationResult(_numbers(baseline), {}),
        )
    except ModelValidationFailedException as error:
        return [line.strip() for line in str(error).splitlines() if line.strip()]
    finally:
        logger.setLevel(level)
    return []


def below_floor(floor: float | None, score: float | None, score_name: str) -> list[str]:
    """A sentence on a score under ``monitoring.accuracy_min_threshold``; empty if it is not."""
    if floor is None or score is None or score >= floor:
        return []
    return [f"{score_name} {score:.4g} is below accuracy_min_threshold {floor:g}"]


def undefined_floor(
    floor: float | None, score: float | None, score_name: str, n_rows: int
) -> list[str]:
    """A sentence on a floor that says nothing, for want of a score; empty if it says something.

    R² is undefined of a single row, and where all outcomes are the same.
    """
    if floor is None or score is not None:
        return []
    return [
        f"accuracy_min_threshold {floor:g} could not be evaluated: {score_name} is undefined on "
        f"these {n_rows} rows"
    ]


def tag_validation(name: str, version: str, failures: list[str]) -> str:
    """Write ``validation_status`` to a registered version, and return it."""
    status = FAILED if failures else PASSED
    tag_version(name, version, {STATUS_TAG: status, f"{STATUS_TAG}.why": "; ".join(failures)})
    return status


def _metric_threshold(name: str, fields: Mapping[str, Any]) -> MetricThreshold:
    with translated(f"threshold of {name}", ConfigurationError):
        return MetricThreshold(**fields)


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
