"""Groups of rows as a report shows them: few, and none so small that it is about a patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsclust_model.report.schema import Changes
from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

SMALLEST_GROUP = 10
"""No figure of a report is about fewer rows."""

SHOWN = 20
"""Segments, groups and features that are shown one by one; the rest is put together."""


@one_line
@dataclass(frozen=True)
class Group:
    """A group that is shown: its name, the mask of its rows, and how many were put together."""

    name: str
    rows: np.ndarray
    merged: int = 1


def shown_groups(values: np.ndarray, names: Mapping[Any, str] | None = None) -> list[Group]:
    """Groups of rows, the largest first, those beyond 20 and those under ten rows put together.

    Where the small ones together are still under ten rows, the next larger joins them: nobody can
    take the shown ones off the sum of all.

    Parameters
    ----------
    values : ndarray, shape (n,)
    names : mapping, optional
        Names of segments; default: a value is its own name.
    """
    if not len(values):
        return []
    distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable").tolist()
    small = [i for i in order if counts[i] < SMALLEST_GROUP]
    large = [i for i in order if counts[i] >= SMALLEST_GROUP]
    if len(large) > SHOWN:
        large, small = large[:SHOWN], large[SHOWN:] + small
    if small and counts[small].sum() < SMALLEST_GROUP and large:
        small.append(large.pop())

    def name(i: int) -> str:
        return str(distinct[i]) if names is None else segment_name(int(distinct[i]), names)

    groups = [Group(name(i), inverse == i) for i in large]
    if small and counts[small].sum() >= SMALLEST_GROUP:
        together = f"{len(small)} others together" if len(small) > 1 else name(small[0])
        groups.append(Group(together, np.isin(inverse, small), len(small)))
    return groups


def segment_changes(old: np.ndarray, new: np.ndarray) -> Changes:
    """Which rows are in another segment than before, as flows of ten rows or more, 20 at most.

    Parameters
    ----------
    old, new : ndarray of int64, shape (n,)
        Segments of the same rows by both generations; -1 is no segment.
    """
    pairs, counts = np.unique(np.column_stack([old, new]), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [i for i in order if counts[i] >= SMALLEST_GROUP][:SHOWN]
    return {
        "n_rows": len(old),
        "changed": int((old != new).sum()),
        "flows": [
            {"from": int(pairs[i, 0]), "to": int(pairs[i, 1]), "rows": int(counts[i])}
            for i in shown
        ],
        "other_rows": int(len(old) - counts[shown].sum()),
    }


def segment_name(cluster: int, names: Mapping[int, str]) -> str:
    """What people called a segment, or its number."""
    if cluster == NOISE:
        return "no segment"
    return names.get(cluster, f"segment {cluster}")
