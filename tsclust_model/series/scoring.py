"""A long table of series in, a long table of their forecasts out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsclust_model.data.frames import as_pandas
from tsclust_model.series.frequency import Frequency
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.schema import LAST_TIMESTAMP, SERIES_ID, Y, last_times, panel_rows

if TYPE_CHECKING:
    from tsclust_model.series.model import SeriesGeneration

Score = Callable[["SeriesGeneration", pd.DataFrame], pd.DataFrame]


def score_series(
    generation: SeriesGeneration,
    frame: pd.DataFrame,
    score: Score | None = None,
) -> pd.DataFrame:
    """The next `horizon` values of every series, a row a step.

    Parameters
    ----------
    generation : SeriesGeneration
    frame : DataFrame
        The long table (id, time, target ...), or one row a series as `series_rows` makes them.
        Gaps of a series become a straight line, whatever the policy of the training was.
    score : callable, optional
        Forecasts of rows; default: `SeriesGeneration.predict`.

    Returns
    -------
    DataFrame
        The columns of id and time as in the long table (time is the time of the step), ``step``
        (1 to horizon), and those of the forecast. A series that cannot be scored has null
        forecasts and a ``status``.

    Raises
    ------
    DataValidationError
    """
    schema, frame = generation.schema, as_pandas(frame)
    if LAST_TIMESTAMP in frame and Y in frame:
        rows = frame.reset_index(drop=True)
    else:
        roles = generation.roles
        panel = series_panel(
            frame,
            type(roles)(**(vars(roles) | {"frequency": schema.frequency})),
            "fill",
            schema.missing_markers,
        )
        rows = panel_rows(panel)
    answer = generation.predict(rows) if score is None else score(generation, rows)
    return _long(generation, rows, answer.reset_index(drop=True))


def _given_out(calendar: Frequency, times: np.ndarray) -> Any:
    """Times of the long form, raveled; null where the last one is not known."""
    flat = times.ravel()
    if not calendar.is_numbered:
        return flat.astype("M8[us]")
    unknown = np.isnat(flat)
    numbers = calendar.shown(flat)
    return pd.arrays.IntegerArray(numbers, unknown) if unknown.any() else numbers


def _long(generation: SeriesGeneration, rows: pd.DataFrame, answer: pd.DataFrame) -> pd.DataFrame:
    schema = generation.schema
    n, horizon = len(rows), schema.horizon
    times = schema.calendar.after(last_times(rows[LAST_TIMESTAMP], schema.frequency), horizon)
    ids = rows[SERIES_ID] if SERIES_ID in rows else pd.Series(np.arange(n))
    columns: dict[str, Any] = {
        schema.id: ids.repeat(horizon).reset_index(drop=True),
        schema.time: _given_out(schema.calendar, times),
        "step": np.tile(np.arange(1, horizon + 1), n),
    }
    for name in answer:
        column = answer[name]
        if column.dtype == object:
            missing = np.full(horizon, np.nan)
            cells = [missing if cell is None else cell for cell in column]
            columns[str(name)] = np.concatenate([np.empty(0), *cells])
        else:
            columns[str(name)] = column.repeat(horizon).reset_index(drop=True)
    return pd.DataFrame(columns)
