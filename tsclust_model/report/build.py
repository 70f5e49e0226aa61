"""Puts a report together: figures, what to do next, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tsclust_model.models.base import FittedPipeline
from tsclust_model.models.compare import Comparison
from tsclust_model.models.evidence import ReportInputs
from tsclust_model.report.advice import next_steps
from tsclust_model.report.figures import Watched, report_figures
from tsclust_model.report.pictures import report_pictures
from tsclust_model.report.schema import Figures


def build_report(
    model: FittedPipeline,
    inputs: ReportInputs,
    about: Mapping[str, Any],
    *,
    comparison: Comparison | None = None,
    watched: Watched | None = None,
    names: Mapping[int, str] | None = None,
) -> Figures:
    """The figures and pictures of a report on a model of any kind.

    Parameters
    ----------
    model : FittedModel
    inputs : ReportInputs
        What the model's kind says of it and of the rows.
    about : mapping
        What only the caller knows, by the names of `figures.TOLD`.
    comparison : Comparison, optional
        Of the generation before with this one.
    watched : Watched, optional
        What batches have shown.
    names : mapping of int to str, optional
        Names that people gave to segments.
    """
    figures = report_figures(model, inputs, about, comparison, watched or Watched(), names or {})
    figures["next"] = next_steps(figures)
    figures["pictures"] = report_pictures(model, inputs, figures)
    return figures


def now() -> str:
    """The time for a reader, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
