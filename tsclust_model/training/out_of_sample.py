"""Labelled cases apart: those that a model was fitted on, and the others.

Figures of cases that a model was fitted on flatter it. `evaluate_apart` gives those of the others,
and the in-sample ones under a key of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsclust_model.models.base import Cases, FittedModel
from tsclust_model.results import Evaluation
from tsclust_model.shown import one_line

_PER_ROW = ("resources", "clusters")


@one_line
@dataclass(frozen=True)
class Apart:
    """Cases by what models were fitted on.

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

    all: Cases
    fresh: Cases
    fitted: Cases
    n_trained_on: int | None
    n_baseline_trained_on: int | None = 0


def apart(model: FittedModel, cases: Cases, baseline: FittedModel | None = None) -> Apart:
    """Split labelled cases by whether a model, or the one it is compared with, was fitted on them.

    Parameters
    ----------
    model : FittedModel
    cases : DataFrame or HeldBack
        As `FittedModel.cases` gives them.
    baseline : FittedModel, optional
        Of the same kind as `model`.
    """
    own = model.fitted_part(cases)
    other = None if baseline is None else baseline.fitted_part(cases)
    seen = np.False_ if own is None else own
    any_model = seen if other is None else seen | other
    unfitted, fresh = model.part(cases, ~seen), model.part(cases, ~any_model)
    return Apart(
        cases,
        fresh,
        model.part(cases, seen),
        None if own is None else len(cases) - len(unfitted),
        None if baseline is not None and other is None else len(unfitted) - len(fresh),
    )


def evaluate_apart(model: FittedModel, parts: Apart) -> Evaluation:
    """Figures of the cases no model was fitted on, and in-sample ones apart.

    Returns
    -------
    dict
        Those of `FittedModel.evaluate` on `Apart.fresh` (``n_rows`` 0 and None everywhere where
        there is no such case), ``n_trained_on``, ``n_baseline_trained_on`` (None is unknown), and
        ``in_sample``: the same figures of `Apart.fitted`, or None.
    """
    in_sample = None
    if model.can_evaluate(parts.fitted):
        in_sample = model.evaluate(parts.fitted, parts.all)
    if len(parts.fresh):
        report = model.evaluate(parts.fresh, parts.all)
    else:
        report = _without_rows(in_sample or model.evaluate(parts.all, parts.all))
    return report | {
        "n_trained_on": parts.n_trained_on,
        "n_baseline_trained_on": parts.n_baseline_trained_on,
        "in_sample": in_sample,
    }


def _without_rows(report: Evaluation) -> Evaluation:
    none = dict.fromkeys(report) | {name: {} for name in _PER_ROW}
    return none | {"n_rows": 0, "n_not_scored": 0}
