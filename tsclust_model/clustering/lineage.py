"""Who is who after a retrain: segments keep their ids, and ids are never used twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from tsclust_model.results import Assignment, LineageFigures

# A new cluster is an old one if at least this share of the smaller of the two is in both.
_SHARED = 0.2


@dataclass(frozen=True)
class Lineage:
    """Where the segments of a generation come from.

    Attributes
    ----------
    kept : dict of int to int
        Id of each new segment that is an old one, and the rows both have in the window.
    born, retired : tuple of int
        Ids that are new, and ids of the last generation that are gone.
    next_id : int
        The lowest id that was never used.
    """

    kept: dict[int, int]
    born: tuple[int, ...]
    retired: tuple[int, ...]
    next_id: int

    def to_dict(self) -> LineageFigures:
        """The lineage as JSON."""
        return {
            "kept": {str(cluster): rows for cluster, rows in self.kept.items()},
            "born": list(self.born),
            "retired": list(self.retired),
            "next_id": self.next_id,
        }


def first_lineage(n_clusters: int) -> Lineage:
    """The lineage of a first generation: every segment is born."""
    return Lineage({}, tuple(range(n_clusters)), (), n_clusters)


def match_clusters(
    old: Assignment,
    new: Assignment,
    old_ids: Sequence[int],
    next_id: int,
    new_ids: Sequence[int],
) -> tuple[dict[int, int], Lineage]:
    """Give each new cluster the id of the old one it shares most rows with.

    One to one, by the largest total overlap over the rows that HDBSCAN itself put into a cluster
    in both generations (`scipy.optimize.linear_sum_assignment`); rows that were noise say nothing.

    Parameters
    ----------
    old, new : Assignment
        Of the same rows by both generations.
    old_ids : sequence of int
        Ids of the old generation, also those without a row here.
    next_id : int
        The lowest id that was never used.
    new_ids : sequence of int
        The new generation's own numbers.

    Returns
    -------
    mapping : dict of int to int
        The new generation's own numbers to ids.
    lineage : Lineage
    """
    inside = ~(old.is_noise | new.is_noise)
    rows, columns = np.array(sorted(new_ids)), np.array(sorted(old_ids))
    mapping: dict[int, int] = {}
    kept: dict[int, int] = {}
    if rows.size and columns.size:
        shared = np.zeros((len(rows), len(columns)), dtype=np.int64)
        for i, cluster in enumerate(rows):
            before = old.labels[inside & (new.labels == cluster)]
            shared[i] = [(before == number).sum() for number in columns]
        smaller = np.minimum(
            np.array([(inside & (new.labels == c)).sum() for c in rows])[:, None],
            np.array([(inside & (old.labels == c)).sum() for c in columns])[None, :],
        )
        shared[shared < np.maximum(_SHARED * smaller, 1)] = 0
        for i, j in zip(*linear_sum_assignment(-shared), strict=True):
            if shared[i, j]:
                mapping[int(rows[i])] = int(columns[j])
                kept[int(columns[j])] = int(shared[i, j])
    born = []
    for cluster in rows:
        if int(cluster) not in mapping:
            mapping[int(cluster)] = next_id
            born.append(next_id)
            next_id += 1
    retired = tuple(int(number) for number in columns if int(number) not in kept)
    return mapping, Lineage(kept, tuple(born), retired, next_id)
