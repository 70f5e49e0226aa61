"""Quantiles that a request asks for: which are allowed, and what their columns are called."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsclust_model.errors import PredictionError

MOST_QUANTILES = 99

DECILES = tuple(tenth / 10 for tenth in range(1, 10))
"""What quantile losses are the mean of."""


def checked_quantiles(asked: Any) -> tuple[float, ...]:
    """The probabilities of the quantiles that are asked for; none of an empty sequence.

    Raises
    ------
    PredictionError
        One is no number above 0 and below 1, they do not rise, or there are more than 99.
    """
    if isinstance(asked, (tuple, list)) and not asked:
        return ()  # as most requests have it
    try:
        found = np.asarray(list(asked), dtype=np.float64)
    except (TypeError, ValueError):
        found = np.array([np.nan])
    rising = found.ndim == 1 and bool((np.diff(found, prepend=0.0) > 0).all())
    if len(found) > MOST_QUANTILES or not rising or not (found < 1).all():
        raise PredictionError(
            f"quantiles must be up to {MOST_QUANTILES} numbers above 0 and below 1 that rise, "
            "such as 0.1, 0.5, 0.9"
        )
    return tuple(found.tolist())


def quantile_column(probability: float) -> str:
    """``q0.1``: the column of a quantile."""
    return f"q{probability}"
