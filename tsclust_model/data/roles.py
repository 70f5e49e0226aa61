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
        Input columns; empty means all columns without another role that are not dropped.
    resources : sequence of str
        Further columns to predict, with models of their own.
    time : str or None
        Numbers, timestamps or ISO 8601 strings that order the rows; None keeps their order.
    id : str or None
        Whose row it is; folds never split the rows of one id.
    horizon : int
        0 predicts the target of the same row. 1 or more: a long table of series, with one row per
        `id` and `time`, and the next `horizon` values of each are forecast; `features` are then
        covariates, none unless named.
    frequency : str or None
        Frequency of series, such as ``MS``, ``W``, ``D`` or ``h``; None takes the most common step.
    future : sequence of str
        Covariates of series that are known for the horizon as well: plans, promotions.
    static : sequence of str
        Covariates of series with one value a series, a number or a category: the kind of ward.
    holidays : str or None
        Country of the calendar (``AU``, or ``AU-NSW``) whose holidays are a further covariate.
    """

    target: str
    features: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    time: str | None = None
    id: str | None = None
    horizon: int = 0
    frequency: str | None = None
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    holidays: str | None = None

    @property
    def not_features(self) -> set[str]:
        return {self.target, *self.resources} | {name for name in (self.time, self.id) if name}
