"""Labelled rows, or values of series, apart: those that a model was fitted on, and the others.

Figures of rows that a model was fitted on flatter it. `evaluate_apart` gives those of the others,
and the in-sample ones under a key of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.mlflow_integration.kinds import AnyGeneration
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.model import Generation
from tsclust_model.series.evaluation import evaluate_series
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.panel import HeldBack, mase_scale
from tsclust_model.shown import one_line

Rows = pd.DataFrame | HeldBack

_PER_ROW = ("resources", "clusters")


@one_line
@dataclass(frozen=True)
class Apart:
    """Rows of a table by what models were fitted on.

    Attributes
    ----------
    all, fresh, fitted : DataFrame or HeldBack
        All of them; those that no model was fitted on; those that the first model was fitted on. Of
        series the values of the other part are NaN, and a series may be in both.
    n_trained_on : int or None
        How many the first model was fitted on (of series: wholly); None is unknown, and all are in
        `fresh` then.
    n_baseline_trained_on : int or None
        Further ones that another model was fitted on; 0 without one.
    """

    all: Rows
    fresh: Rows
    fitted: Rows
    n_trained_on: int | None
    n_baseline_trained_on: int | None = 0


def apart(model: AnyGeneration, rows: Rows, baseline: AnyGeneration | None = None) -> Apart:
    """Part labelled rows by whether a model, or the one it is compared with, was fitted on them.

    Parameters
    ----------
    model : Generation or SeriesGeneration
    rows : DataFrame or HeldBack
        With the target.
    baseline : Generation or SeriesGeneration, optional
        Of the same kind as `model`.

    Raises
    ------
    DataValidationError
        The target is absent or missing, or a column does not fit.
    """
    own = _trained_on(model, rows)
    other = None if baseline is None else _trained_on(baseline, rows)
    nothing = _nothing(rows)
    seen = nothing if own is None else own
    any_model = seen if other is None else seen | other
    fitted, fresh = _part(rows, seen), _part(rows, ~any_model)
    n_further = len(_part(rows, ~seen)) - len(fresh)
    return Apart(
        rows,
        fresh,
        fitted,
        None if own is None else len(rows) - len(_part(rows, ~seen)),
        None if baseline is not None and other is None else n_further,
    )


def evaluate_apart(model: AnyGeneration, parts: Apart) -> dict[str, Any]:
    """Figures of the rows no model was fitted on, and in-sample ones apart.

    Returns
    -------
    dict
        Those of `evaluate_generation` or `evaluate_series` on `Apart.fresh` (``n_rows`` 0 and None
        everywhere where there is no such row), ``n_trained_on``, ``n_baseline_trained_on`` (None is
        unknown), and ``in_sample``: the same figures of `Apart.fitted`, or None.
    """
    in_sample = None
    if not isinstance(parts.fitted, HeldBack) or np.isfinite(mase_scale(parts.fitted.panel)).any():
        in_sample = figures(model, parts.fitted, parts.all) if len(parts.fitted) else None
    if len(parts.fresh):
        report = figures(model, parts.fresh, parts.all)
    else:
        report = _without_rows(in_sample or figures(model, parts.all, parts.all))
    return report | {
        "n_trained_on": parts.n_trained_on,
        "n_baseline_trained_on": parts.n_baseline_trained_on,
        "in_sample": in_sample,
    }


def figures(model: AnyGeneration, rows: Rows, known: Rows | None = None) -> dict[str, Any]:
    """`evaluate_generation` or `evaluate_series`; the last value is looked for among `known`."""
    if isinstance(rows, HeldBack):
        assert isinstance(model, SeriesGeneration)
        return evaluate_series(model, rows)
    assert isinstance(model, Generation)
    assert not isinstance(known, HeldBack)
    return evaluate_generation(model, rows, known)


def _trained_on(model: AnyGeneration, rows: Rows) -> np.ndarray | None:
    if isinstance(rows, HeldBack):
        assert isinstance(model, SeriesGeneration)
        return model.trained_on(rows)
    assert isinstance(model, Generation)
    model.outcomes(rows)
    model.schema.encode(rows)  # says what is wrong with the table
    return model.trained_on(rows)


def _nothing(rows: Rows) -> np.ndarray:
    return np.zeros(rows.y.shape if isinstance(rows, HeldBack) else len(rows), dtype=bool)


def _part(rows: Rows, mask: np.ndarray) -> Rows:
    """The rows of a mask; of series the values, and the series that have any."""
    if not isinstance(rows, HeldBack):
        return rows[mask].reset_index(drop=True)
    return rows.only(mask)


def _without_rows(report: dict[str, Any]) -> dict[str, Any]:
    none = dict.fromkeys(report) | {name: {} for name in _PER_ROW}
    return none | {"n_rows": 0, "n_not_scored": 0}
