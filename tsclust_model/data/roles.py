"""Which column of a training table is what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Roles:
    """Which column of a training table is what.

    Parameters
    ----------
    target : str
        The column to predict.
    features : sequence of str
        Input columns; empty means all that have no other role and are not dropped.
    resources : sequence of str
        Further columns to predict, one model each.
    time : str or None
        Numbers, timestamps or ISO 8601 texts that order the rows; None keeps their order.
    id : str or None
        Who a row belongs to; a fold never parts the rows of one id.
    horizon : int
        0 predicts the target of the same row. Above it the table is a long table of series, one
        row an `id` and `time`, and the next `horizon` values of each are forecast; `features` are
        then covariates, none unless they are named.
    frequency : str or None
        Of series, such as ``MS``, ``W``, ``D`` or ``h``; None guesses it.
    """

    target: str
    features: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    time: str | None = None
    id: str | None = None
    horizon: int = 0
    frequency: str | None = None

    @property
    def not_features(self) -> set[str]:
        return {self.target, *self.resources} | {name for name in (self.time, self.id) if name}
