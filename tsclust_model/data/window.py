"""The newest labelled rows of a history, and where each of them lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.shown import one_line

Ranges = dict[str, list[int]]
"""Rows ``[start, stop)`` of versions by id, as JSON keeps them."""


@one_line
@dataclass(frozen=True)
class Window:
    """The newest labelled rows, oldest first, and where each comes from.

    `versions` (object, shape (n,)) are ids of versions, `rows` (int64, shape (n,)) the positions
    there when they were registered, which a purge does not shift. `full` says that older rows may
    have been left out, because there are as many as were asked for.
    """

    frame: pd.DataFrame
    versions: np.ndarray
    rows: np.ndarray
    full: bool = False

    def ranges(self, n: int) -> Ranges:
        """Where the oldest `n` rows come from, from the first to the last row of each version."""
        ranges: Ranges = {}
        for version_id, row in zip(self.versions[:n], self.rows[:n], strict=True):
            start, stop = ranges.setdefault(version_id, [int(row), int(row) + 1])
            ranges[version_id] = [min(start, int(row)), max(stop, int(row) + 1)]
        return ranges

    def origins(self, n: int) -> dict[str, Any]:
        """What a model that is trained on the oldest `n` rows says of them.

        ``trained_on`` (see `ranges`) and ``trained_order``, its versions, oldest first.
        """
        ranges = self.ranges(n)
        return {"trained_on": ranges, "trained_order": list(ranges)}

    def since(self, source: tuple[str, int], order: Sequence[str]) -> int:
        """Position of the first row that is not older than a row of a version.

        `order` are all versions, oldest first.
        """
        numbers = {name: number for number, name in enumerate(order)}
        wanted = (numbers.get(source[0], len(numbers)), source[1])
        places = ((numbers[v], row) for v, row in zip(self.versions, self.rows, strict=True))
        return next((i for i, place in enumerate(places) if place >= wanted), len(self.rows))

    def outside(self, ranges: Mapping[str, Sequence[int]]) -> np.ndarray:
        """Mask of the rows that are in none of the ranges, shape (n,)."""
        nowhere = (0, 0)
        bounds = [ranges.get(version_id, nowhere) for version_id in self.versions]
        return np.array(
            [not start <= row < stop for row, (start, stop) in zip(self.rows, bounds, strict=True)],
            dtype=bool,
        )
