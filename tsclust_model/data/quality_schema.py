"""What is known of good rows, as plain JSON in the model: what new rows are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from tsclust_model.data.columns import as_boolean, is_nested, numbers_or_times, without_markers

_MOST_CATEGORIES = 200

_NUMERIC = ("integer", "floating", "mixed-integer-float")


class ColumnFacts(TypedDict, total=False):
    """A column: ``kind`` is number, category, text or time; shares are 0 to 1."""

    kind: str
    missing: float
    min: float | None
    max: float | None
    median: float | None
    quartiles: list[float] | None
    shares: dict[str, float]


class QualityChecks(TypedDict, total=False):
    """Arguments of `validate_data_quality` that follow from the kind of model."""

    duplicates: bool
    allow_missing: bool
    max_removed_share: float


class QualitySchema(TypedDict):
    """``columns`` by name, ``seen`` (all names), ``optional``, ``time``, its ``newest`` (seconds or
    a number), ``keys`` (columns that tell rows apart) and ``n_rows``.
    """

    columns: dict[str, Any]  # of ColumnFacts
    seen: list[str]
    optional: list[str]
    time: str | None
    newest: float | None
    keys: list[str | None]
    n_rows: int


def infer_quality_schema(
    df: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    time: str | None = None,
    id: str | None = None,
    unique: bool = False,
    markers: Sequence[str] = ("",),
) -> QualitySchema:
    """What `validate_data_quality` compares new rows with, as plain JSON.

    Parameters
    ----------
    df : DataFrame
        Rows that are known to be good.
    columns : sequence of str, optional
        Those that matter; default: all. The others are only known by name.
    optional : sequence of str
        Columns that may be absent or missing: outcomes that are known later.
    time, id : str, optional
        What orders the rows, and whose row it is; new ids are nothing to wonder at.
    unique : bool
        Whether an id and a time are one row: a long table of series.
    markers : sequence of str
        Strings that mean "missing".
    """
    wanted = [str(name) for name in (df.columns if columns is None else columns)]
    facts: dict[str, ColumnFacts] = {
        name: {"kind": "time"} if name == time else describe(plain_column(df[name], markers))
        for name in wanted
        if name in df
    }
    if id in facts:
        facts[id] = {"kind": "text", "missing": facts[id]["missing"]}
    return {
        "columns": facts,
        "seen": sorted(map(str, df.columns)),
        "optional": list(optional),
        "time": time,
        "newest": None if time is None or time not in df else _newest(df[time]),
        "keys": [id, time] if unique else [],
        "n_rows": len(df),
    }


def plain_column(column: pd.Series, markers: Sequence[str]) -> pd.Series:
    """The column without markers, and as numbers if nothing but numbers is left."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return column
    column = without_markers(column.astype(object), markers)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    return pd.to_numeric(column) if kind in _NUMERIC else column


def describe(column: pd.Series) -> ColumnFacts:
    """What is known of a `plain_column`."""
    gaps = float(column.isna().mean()) if len(column) else 0.0
    present = column.dropna()
    if len(present) and is_nested(present.iloc[0]):
        return {"kind": "text", "missing": gaps}
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = present.to_numpy(np.float64)
        return _of_numbers(values[np.isfinite(values)], gaps)
    shares = category_shares(column)
    if pd.api.types.is_datetime64_any_dtype(column) or len(shares) > _MOST_CATEGORIES:
        return {"kind": "text", "missing": gaps}
    return {"kind": "category", "missing": gaps, "shares": shares}


def _of_numbers(values: np.ndarray, gaps: float) -> ColumnFacts:
    facts: ColumnFacts = {"kind": "number", "missing": gaps}
    if not values.size:
        return facts | {"min": None, "max": None, "median": None, "quartiles": None}
    low, median, high = map(float, np.quantile(values, [0.25, 0.5, 0.75]))
    ends = (float(values.min()), float(values.max()))
    return facts | {"min": ends[0], "max": ends[1], "median": median, "quartiles": [low, high]}


def category_shares(column: pd.Series) -> dict[str, float]:
    """Share of each value as a string, the most frequent first; booleans in one spelling."""
    texts = column.dropna().astype(str)
    booleans = texts.map(as_boolean)
    if booleans.isin(["true", "false"]).all():
        texts = booleans
    counts = texts.value_counts(normalize=True)
    return {str(text): float(share) for text, share in counts.items()}


def as_seconds(value: Any) -> float:
    """A number as it is, a time in seconds since 1970."""
    return value.timestamp() if isinstance(value, pd.Timestamp) else float(value)


def _newest(column: pd.Series) -> float | None:
    newest = as_seconds(numbers_or_times(column, "coerce").max())
    return newest if math.isfinite(newest) else None
