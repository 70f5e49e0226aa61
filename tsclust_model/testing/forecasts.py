"""Checks of what a forecast says: intervals, classes, resources, segments, arrays of series."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.data.columns import OK
from tsclust_model.errors import (
    PredictionError,
)
from tsclust_model.results import NOISE
from tsclust_model.testing.checking import (
    check,
    numbers,
    refusal,
    require,
    require_same,
)
from tsclust_model.testing.subjects import Subject

_FAR = 1_000

# -- intervals, classes and resources --------------------------------------------------------------


@check("intervals")
def a_prediction_lies_in_its_interval(subject: Subject) -> None:
    """``prediction_lower`` <= ``prediction`` <= ``prediction_upper``."""
    columns = ("prediction_lower", "prediction", "prediction_upper")
    lower, served, upper = (numbers(subject.answer[name]) for name in columns)
    require((lower <= served).all(), "a lower bound is above its prediction")
    require((served <= upper).all(), "an upper bound is below its prediction")


@check("intervals")
def a_wider_coverage_gives_wider_intervals(subject: Subject) -> None:
    """Intervals of 50, 80, 95 and 99% lie in each other."""
    answers = [subject.predict(subject.rows, coverage) for coverage in (0.5, 0.8, 0.95, 0.99)]
    lower = np.array([numbers(answer["prediction_lower"]) for answer in answers])
    upper = np.array([numbers(answer["prediction_upper"]) for answer in answers])
    require((np.diff(lower, axis=0) <= 0).all(), "a lower bound rises with the coverage")
    require((np.diff(upper, axis=0) >= 0).all(), "an upper bound falls with the coverage")


@check("intervals")
def the_coverage_changes_bounds_only(subject: Subject) -> None:
    """All else does not depend on it; without one, bounds are those of the model's `coverage`."""
    bounds = ["prediction_lower", "prediction_upper"]
    answer = subject.predict(subject.rows, 0.5).drop(columns=bounds)
    require_same(answer, subject.answer.drop(columns=bounds))
    require_same(subject.predict(subject.rows, subject.model.coverage), subject.answer)


@check("intervals")
def quantiles_never_cross_and_are_the_bounds(subject: Subject) -> None:
    """``q0.1`` <= ... <= ``q0.9``; 0.5 is the prediction, and 0.1 and 0.9 are the 80% interval."""
    asked = (0.05, 0.1, 0.3, 0.5, 0.75, 0.9, 0.99)
    answer = subject.predict(subject.rows, 0.8, asked)
    names = [f"q{probability}" for probability in asked]
    found = np.array([numbers(answer[name]) for name in names])
    require((np.diff(found, axis=0) >= 0).all(), "two quantiles cross")
    for name, other in (("q0.1", "_lower"), ("q0.5", ""), ("q0.9", "_upper")):
        bound = answer[[f"prediction{other}"]].set_axis([name], axis=1)
        require_same(answer[[name]], bound, f"{name}, beside the bound,")
    none = subject.predict(subject.rows.head(0), 0.8, asked)
    require(list(none) == list(answer), "an empty answer has other columns")
    without = subject.predict(subject.rows, 0.8)
    require_same(answer.drop(columns=names), without, "all but the quantiles")


@check("classes")
def quantiles_of_classes_are_refused(subject: Subject) -> None:
    """They are of numbers."""
    text = refusal(PredictionError, partial(subject.predict, subject.rows, None, (0.5,)))
    require("quantiles" in text, "the message does not name the quantiles")


@check()
def an_impossible_coverage_is_refused(subject: Subject) -> None:
    """0, 1, what is beyond them and NaN are a `PredictionError`."""
    for coverage in (0.0, 1.0, -0.5, 1.5, float("nan"), float("inf")):
        text = refusal(PredictionError, partial(subject.predict, subject.rows, coverage))
        require("coverage" in text, "the message does not name the coverage")


@check("classes")
def probabilities_sum_to_one(subject: Subject) -> None:
    """Each is between 0 and 1, and those of a row sum to 1."""
    P = subject.answer[list(subject.model.outcome.class_columns)].to_numpy(
        np.float64, na_value=np.nan
    )
    P = P[~np.isnan(P).any(axis=1)]
    require(((P >= 0) & (P <= 1)).all(), "a probability is outside 0 to 1")
    require(np.allclose(P.sum(axis=1), 1, atol=1e-9), "the probabilities of a row sum to another")


@check("classes")
def the_likeliest_class_is_the_prediction(subject: Subject) -> None:
    """``prediction`` is the class of the largest probability."""
    known = subject.answer[subject.answer["status"] == OK]
    P = known[list(subject.model.outcome.class_columns)].to_numpy(np.float64)
    expected = np.array(subject.model.outcome.classes, dtype=object)[P.argmax(axis=1)]
    require((known["prediction"] == expected).all(), "a row predicts another class")


@check("resources")
def every_resource_has_a_column(subject: Subject) -> None:
    """``resource_<name>`` for each of the roles, finite in rows that are ``ok``."""
    fine = subject.answer[subject.answer["status"] == OK]
    require(
        sorted(subject.model.resources) == sorted(subject.model.roles.resources),
        "models and roles name other resources",
    )
    for name in subject.model.resources:
        column = fine[f"resource_{name}"]
        require(column.notna().all(), f"resource_{name} is null in a row that is ok")
        require(np.isfinite(numbers(column)).all(), f"resource_{name} is not finite")


# -- segments --------------------------------------------------------------------------------------


@check()
def segments_have_ids_of_the_model(subject: Subject) -> None:
    """``cluster`` is one of `cluster_ids`, or -1 where ``cluster_source`` is ``none``."""
    known = subject.answer[subject.answer["cluster"].notna()]
    strange = set(known["cluster"]) - {NOISE, *subject.model.cluster_ids}
    require(not strange, f"{len(strange)} ids are not in cluster_ids")
    none = known["cluster_source"] == "none"
    require(((known["cluster"] == NOISE) == none).all(), "cluster -1 and source none disagree")


@check()
def sources_say_where_strength_and_weight_come_from(subject: Subject) -> None:
    """``hdbscan``, ``knn`` (no strength) or ``none`` (no weight either)."""
    source = subject.answer["cluster_source"]
    require(set(source.dropna()) <= {"hdbscan", "knn", "none"}, "another source occurs")
    noise, none = source.isin(["knn", "none"]), source == "none"
    require((subject.answer.loc[noise, "cluster_strength"] == 0).all(), "noise has a strength")
    require((subject.answer.loc[none, "cluster_weight"] == 0).all(), "no segment has a weight")


@check()
def the_ids_of_segments_are_counted_and_never_new(subject: Subject) -> None:
    """`cluster_ids` is sorted and below ``next_id``; ``cluster_sizes`` add up to ``n_rows``."""
    ids, info = subject.model.cluster_ids, subject.model.info
    require(ids == sorted(set(ids)), "cluster_ids is not sorted, or has an id twice")
    require(all(0 <= i < info["lineage"]["next_id"] for i in ids), "an id is new")
    sizes = {int(name): n for name, n in info["cluster_sizes"].items()}
    require(set(sizes) <= {NOISE, *ids}, "a size is of another id")
    require(sum(sizes.values()) == info["n_rows"], "the sizes are not n_rows")


@check()
def strengths_and_weights_lie_between_0_and_1(subject: Subject) -> None:
    """``cluster_strength`` and ``cluster_weight`` are shares."""
    for name in ("cluster_strength", "cluster_weight"):
        values = numbers(subject.answer[name])
        require(((values >= 0) & (values <= 1)).all(), f"{name} is outside 0 to 1")


@check()
def renumbering_segments_changes_ids_only(subject: Subject) -> None:
    """`renumbered` changes ``cluster``, in a new model; the old one stays."""
    ids = {i: i + _FAR for i in subject.model.cluster_ids}
    other = subject.model.renumbered(ids, subject.model.info["lineage"])
    require(other.cluster_ids == sorted(ids.values()), "cluster_ids has other ids")
    sizes = {ids.get(int(i), int(i)): n for i, n in subject.model.info["cluster_sizes"].items()}
    require({int(i): n for i, n in other.info["cluster_sizes"].items()} == sizes, "sizes differ")
    answer = other.predict(subject.rows)
    expected = subject.answer["cluster"].replace(ids)
    require_same(answer, subject.answer.assign(cluster=expected), "the renumbered answer")
    require_same(subject.predict(subject.rows), subject.answer, "the old model's answer")


# -- series ----------------------------------------------------------------------------------------


@check("horizon")
def arrays_have_the_length_of_the_horizon(subject: Subject) -> None:
    """Predictions, bounds and resources are one-dimensional arrays of float64."""
    horizon = subject.model.roles.horizon
    for name, kind in subject.outputs.items():
        if kind == "array":
            for cell in subject.answer[name].dropna():
                require(cell.shape == (horizon,), f"an array of {name} has another shape")
                require(cell.dtype == np.float64, f"an array of {name} has another type")


@check("horizon")
def the_id_of_a_series_changes_nothing(subject: Subject) -> None:
    """``series_id`` may be strings, whole numbers or absent."""
    rows, n = subject.rows, len(subject.rows)
    for other in (rows.assign(series_id=range(n)), rows.drop(columns="series_id")):
        require_same(subject.predict(other), subject.answer)


def _with_lists(subject: Subject, change: Callable[[list[float]], list[Any]]) -> pd.DataFrame:
    changed = {}
    for name, kind in subject.numbers_and_strings.items():
        if kind == "array":
            cells = [change(list(cell)) for cell in subject.rows[name]]
            changed[name] = pd.Series(cells, subject.rows.index, dtype=object)
    return subject.rows.assign(**changed)


@check("horizon")
def nulls_before_a_series_begins_change_nothing(subject: Subject) -> None:
    """A series begins with its first value."""
    rows = _with_lists(subject, lambda cell: [None, None, *cell])
    require_same(subject.predict(rows), subject.answer)


@check("horizon")
def values_older_than_the_width_change_nothing(subject: Subject) -> None:
    """Only the newest `schema.width` periods are looked at."""
    width = subject.model.schema.width
    lengths = subject.rows["y"].map(len)
    whole = _with_lists(subject, lambda cell: [*(cell * width)[:width], *cell])
    newest = whole.copy()
    for name in newest:
        cells = zip(whole[name], lengths, strict=True)
        newest[name] = [cell[n:] if isinstance(cell, list) else cell for cell, n in cells]
    require_same(subject.predict(whole), subject.predict(newest))


@check("horizon")
def a_series_of_any_length_is_answered(subject: Subject) -> None:
    """Also of one value: it has a forecast, or a status that says why not."""
    for n in (1, 2, 5):
        answer = subject.predict(_with_lists(subject, itemgetter(slice(-n, None))))
        has_forecast = answer["prediction"].notna()
        require((has_forecast | (answer["status"] != OK)).all(), "a row has neither")
