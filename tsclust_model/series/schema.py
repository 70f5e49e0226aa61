"""One row per series: what a served model of series is asked, made from a long table and read back.

A row holds ``series_id``, ``last_timestamp`` and a list of floats for the target (``y``), each
resource and each covariate, oldest value first; the lists of a row are equally long, but those of
future covariates, which go on to the end of the horizon. Static covariates are one value. A row's
answer depends on that row alone, so every row is laid into the same number of columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tsclust_model.data.columns import LARGEST, OK, numbers_or_times, row_status
from tsclust_model.data.frames import as_pandas
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, DataValidationError, listed, suggestion
from tsclust_model.series.covariates import Covariates
from tsclust_model.series.frequency import Frequency
from tsclust_model.series.holidays import HOLIDAYS, HolidayCalendar
from tsclust_model.series.long_table import id_texts, naive_times, series_panel
from tsclust_model.series.panel import Panel, filled
from tsclust_model.shown import one_line

SERIES_ID, LAST_TIMESTAMP, Y = "series_id", "last_timestamp", "y"

_LISTS = pa.list_(pa.float64())


@one_line
@dataclass(frozen=True)
class SeriesRows:
    """Rows as arrays: a right-aligned panel, a series for each row, also if it cannot be scored,
    and the `status` (object, shape (n,)): ``ok``, or why not, naming columns and never values.
    """

    panel: Panel
    status: np.ndarray

    @property
    def scorable(self) -> np.ndarray:
        """Mask of the rows that can be scored, shape (n,)."""
        return np.asarray(self.status == OK, dtype=bool)


@dataclass(frozen=True)
class SeriesSchema:
    """The input of a model of series.

    `id`, `time` and `target` are columns of the long table (in a row the target is ``y``);
    `horizon` periods are forecast, and the newest `width` periods of a series are looked at.
    `static` are the categories of static covariates, None of numbers.
    """

    target: str
    resources: tuple[str, ...]
    covariates: tuple[str, ...]
    frequency: str
    horizon: int
    width: int
    id: str
    time: str
    missing_markers: tuple[str, ...] = ("",)
    future: tuple[str, ...] = ()
    static: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    holidays: HolidayCalendar | None = None

    @classmethod
    def of(cls, panel: Panel, roles: Roles, missing_markers: Sequence[str]) -> SeriesSchema:
        """The input of a model that is fitted on `panel`: two seasons more than it has.

        Raises
        ------
        ConfigurationError
            Holidays are asked for, but there is no calendar.
        """
        return cls(
            panel.target,
            panel.resources,
            panel.covariates,
            panel.frequency.name,
            panel.horizon,
            panel.n_periods + panel.horizon + 2 * panel.frequency.season,
            str(roles.id),
            str(roles.time),
            tuple(missing_markers),
            tuple(panel.future),
            _categories(panel.static),
            _holidays(panel, roles.holidays),
        )

    def covariates_of(self, panel: Panel) -> Covariates:
        """What is known beside the values of a panel's series, as the models see it."""
        future = dict(panel.future)
        if self.holidays is not None:
            steps = np.arange(1 - panel.n_periods, panel.horizon + 1)
            periods = panel.ends[:, None] + steps
            future[HOLIDAYS] = self.holidays.counts(self.calendar, periods)
        return Covariates(
            {name: panel.values[name] for name in self.covariates},
            future,
            {name: _coded(panel.static[name], self.static[name]) for name in self.statics},
            sum(texts is not None for texts in self.static.values()),
        )

    @property
    def arrays(self) -> dict[str, str]:
        """Column of a row by name in the long table: the target, resources and covariates."""
        others = (*self.resources, *self.covariates)
        return {self.target: Y} | {name: name for name in others}

    @property
    def names(self) -> list[str]:
        """Columns of a row that are needed (``series_id`` is not)."""
        return [LAST_TIMESTAMP, *self.arrays.values(), *self.future, *self.statics]

    @property
    def statics(self) -> list[str]:
        """Static covariates: numbers, then categories, each by name."""
        return sorted(self.static, key=lambda name: (self.static[name] is not None, name))

    @property
    def types(self) -> dict[str, str]:
        """Types of the columns of a row, in words of `FittedModel.input_columns`."""
        time = "long" if self.calendar.is_numbered else "datetime"
        arrays = dict.fromkeys((*self.arrays.values(), *self.future), "array")
        kinds = {n: "double" if self.static[n] is None else "string" for n in self.statics}
        return {SERIES_ID: "string", LAST_TIMESTAMP: time} | arrays | kinds

    @property
    def text_columns(self) -> list[str]:
        """Columns that a csv must not read as numbers: "007" stays "007"."""
        return [self.id, SERIES_ID, *(n for n in self.statics if self.static[n] is not None)]

    @cached_property
    def calendar(self) -> Frequency:
        return Frequency.parse(self.frequency)

    def encode(self, frame: pd.DataFrame) -> SeriesRows:
        """Turn rows into arrays; each row by itself.

        Null elements inside a series become a straight line between their neighbours, and those
        before its first value are left out. A row whose ``y`` ends in a null is not scored: it
        would be forecast from a value that is not the last. Others that end so have the last value.
        """
        absent = [name for name in self.names if name not in frame.columns]
        if absent:
            hint = suggestion(absent[0], map(str, frame.columns)) if len(absent) == 1 else ""
            raise DataValidationError(
                f"the data has no column {listed(map(repr, absent))}{hint}; give one row a series, "
                "as tsclust_model.series_rows makes them of a long table"
            )
        problems: dict[str, list[tuple[str, np.ndarray]]] = {}
        times, unknown = _times(frame[LAST_TIMESTAMP], self.frequency)
        _note(problems, "missing", LAST_TIMESTAMP, unknown)
        lists = {name: _lists(frame[column]) for name, column in self.arrays.items()}
        values = {name: _right_aligned(cells, self.width) for name, cells in lists.items()}
        known = ~np.isnan(values[self.target])
        inside = np.logical_or.accumulate(known, axis=1)
        _note(problems, "no value at the end", Y, inside[:, -1] & ~known[:, -1])
        for name, column in self.arrays.items():
            numbers = values[name]
            infinite, huge = np.isinf(numbers), np.abs(numbers) > LARGEST
            _note(problems, "no list of numbers", column, lists[name].broken)
            _note(problems, "infinite", column, infinite.any(axis=1))
            _note(problems, "out of range", column, (huge & ~infinite).any(axis=1))
            other = lists[name].lengths != lists[self.target].lengths
            _note(problems, "another length than y", column, other)
            optional = name in self.covariates
            empty = lists[name].lengths == 0 if optional else np.isnan(numbers).all(axis=1)
            _note(problems, "missing", column, empty & ~lists[name].broken)
            values[name] = _filled_inside(numbers, inside)
        n_values = lists[self.target].lengths
        future = {name: self._planned(frame[name], n_values, problems) for name in self.future}
        ends = np.where(unknown, 0, self.calendar.ordinals(times))
        texts = frame[SERIES_ID] if SERIES_ID in frame else pd.Series(index=frame.index, dtype=str)
        panel = Panel(
            texts.to_numpy(dtype=object),
            values,
            ends,
            times,
            self.calendar,
            self.target,
            self.resources,
            self.covariates,
            self.horizon,
            future=future,
            static={name: frame[name].to_numpy(dtype=object) for name in self.static},
        )
        for name in self.statics:
            if self.static[name] is None:
                too_large = np.abs(_coded(panel.static[name], None)) > LARGEST
                _note(problems, "out of range", name, too_large)
        if self.holidays is not None:
            later = np.isnan(self.covariates_of(panel).future[HOLIDAYS]).any(axis=1)
            _note(problems, "after the last year of holidays", LAST_TIMESTAMP, later & ~unknown)
        return SeriesRows(panel, row_status(problems, len(frame)))

    def _planned(
        self, column: pd.Series, n_values: np.ndarray, problems: dict[str, Any]
    ) -> np.ndarray:
        """A future covariate of rows, shape (n, width + horizon); what it lacks is noted."""
        cells, name = _lists(column), str(column.name)
        values = _right_aligned(cells, self.width + self.horizon)
        too_large = np.abs(values) > LARGEST
        _note(problems, "no list of numbers", name, cells.broken)
        _note(problems, "out of range", name, too_large.any(axis=1))
        other = (cells.lengths != n_values + self.horizon) & ~cells.broken
        _note(problems, "another length than y and the horizon", name, other)
        unknown = np.isnan(values[:, -self.horizon :]).any(axis=1)
        _note(problems, "missing", name, unknown & ~cells.broken & ~other)
        return values

    def laid_out(self, panel: Panel) -> Panel:
        """Right-aligned series in `width` columns, so that no answer depends on its company."""
        missing = self.width - panel.n_periods
        if not missing:
            return panel

        def laid(values: np.ndarray) -> np.ndarray:
            if missing < 0:
                return values[:, -missing:]
            return np.pad(values, ((0, 0), (missing, 0)), constant_values=np.nan)

        values, future = (
            {name: laid(array) for name, array in arrays.items()}
            for arrays in (panel.values, panel.future)
        )
        return replace(panel, values=values, future=future)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; without the covariates that there are none of, as older builds write it."""
        unused = {name for name in ("future", "static", "holidays") if not getattr(self, name)}
        return {name: value for name, value in asdict(self).items() if name not in unused}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SeriesSchema:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
        static = content.get("static", {})  # older builds have none, and no holidays
        values["static"] = {name: texts and tuple(texts) for name, texts in static.items()}
        if content.get("holidays"):
            values["holidays"] = HolidayCalendar.from_dict(content["holidays"])
        return cls(**values)


def series_rows(
    frame: pd.DataFrame,
    id: str | None = None,
    time: str | None = None,
    target: str | None = None,
    resources: Sequence[str] = (),
    covariates: Sequence[str] = (),
    *,
    frequency: str | None = None,
    gap_policy: str | None = None,
    future: Sequence[str] = (),
    static: Sequence[str] = (),
    horizon: int = 1,
    model: Any = None,
) -> pd.DataFrame:
    """Turn a long table into one row per series, the input of a model of series.

    Parameters
    ----------
    frame : DataFrame
        One row a series and period, in any order.
    id, time, target : str, optional
        Columns that say whose value it is, when, and which; default: those of `model`.
    resources, covariates : sequence of str
        Those of the model.
    frequency : str, optional
        Such as ``MS``, ``W``, ``D`` or ``h``; default: that of `model`, or guessed.
    gap_policy : {'error', 'fill', 'drop'}, optional
        See `PipelineConfig`; default: that of `model`, or 'error'.
    future, static : sequence of str
        Covariates that are known for the next `horizon` periods as well (rows without a target
        hold them), and those with one value a series; default: those of `model`.
    horizon : int
        That of the model.
    model : object, optional
        A model of series as ``mlflow.pyfunc.load_model`` gives it, or its `SeriesGeneration`: every
        column is the one that it was trained on.

    Returns
    -------
    DataFrame
        ``series_id`` (texts), ``last_timestamp`` (without a zone, or a whole number), ``y``,
        resources and covariates (lists of floats, oldest first; None where a resource is not known
        yet); those of `future` go on for `horizon` periods, those of `static` are one value.

    Raises
    ------
    DataValidationError, ConfigurationError

    Examples
    --------
    >>> long = pd.DataFrame({"ward": "A", "month": ["2025-01", "2025-02"], "beds": [3, 4]})
    >>> series_rows(long, "ward", "month", "beds").loc[0, "y"]
    [3.0, 4.0]
    """
    frame = as_pandas(frame)
    markers: Sequence[str] = ("",)
    if model is not None:
        generation = model.unwrap_python_model().generation if _is_loaded(model) else model
        schema: SeriesSchema = generation.schema
        id, time, target = id or schema.id, time or schema.time, target or schema.target
        resources, covariates = resources or schema.resources, covariates or schema.covariates
        frequency, markers = frequency or schema.frequency, schema.missing_markers
        gap_policy = gap_policy or generation.info["config"]["gap_policy"]
        future, static = schema.future, tuple(schema.static)
        horizon = schema.horizon
    if id is None or time is None or target is None:
        raise ConfigurationError("series_rows needs id, time and target, or the model; give one")
    roles = Roles(target, tuple(covariates), tuple(resources), time, id, horizon, frequency)
    roles = replace(roles, future=tuple(future), static=tuple(static))
    return panel_rows(series_panel(frame, roles, gap_policy or "error", markers))


def _categories(static: Mapping[str, np.ndarray]) -> dict[str, tuple[str, ...] | None]:
    """The sorted texts of static covariates; None of numbers."""
    return {
        name: tuple(sorted({text for text in values if isinstance(text, str)}))
        if values.dtype == object
        else None
        for name, values in static.items()
    }


def _coded(values: np.ndarray, categories: Sequence[str] | None) -> np.ndarray:
    """Static values as numbers, shape (n,); NaN is missing, or a category that is new."""
    if categories is None:
        return np.asarray(pd.to_numeric(pd.Series(values), errors="coerce"), dtype=np.float64)
    texts = id_texts(pd.Series(values).infer_objects()).map(str, na_action="ignore")
    known: pd.Index[Any] = pd.Index(list(categories), dtype=object)
    codes = known.get_indexer(pd.Index(texts, dtype=object))
    return np.where(codes < 0, np.nan, codes.astype(np.float64))


def _holidays(panel: Panel, country: str | None) -> HolidayCalendar | None:
    if country is None:
        return None
    if panel.frequency.is_numbered:
        raise ConfigurationError(
            "holidays need dates, and the periods of these series are numbers; leave holidays out"
        )
    first = int(panel.ends.min()) - panel.n_periods + 1
    newest = int(panel.ends.max())
    return HolidayCalendar.of(country, *panel.frequency.starts(np.array([first, newest])))


def _is_loaded(model: Any) -> bool:
    """Whether mlflow has wrapped a model."""
    return hasattr(model, "unwrap_python_model")


def panel_rows(panel: Panel) -> pd.DataFrame:
    """The series of a panel as rows; see `series_rows`."""
    aligned = panel.right_aligned()
    starts = aligned.n_periods - panel.lengths
    columns: dict[str, Any] = {
        SERIES_ID: pd.Series(panel.ids, dtype=object),
        LAST_TIMESTAMP: panel.frequency.shown(panel.last_times),
    }
    for name, values in aligned.values.items():
        cells = [row[start:].tolist() for row, start in zip(values, starts, strict=True)]
        for i in np.flatnonzero(np.isnan(values).sum(axis=1) > starts):
            cells[i] = [None if np.isnan(value) else value for value in cells[i]]
        columns[Y if name == panel.target else name] = pd.Series(cells, dtype=object)
    periods = np.arange(aligned.n_periods + aligned.horizon)
    for name, values in aligned.future.items():
        aligned.refuse_unplanned(name, np.isnan(values) & (periods >= aligned.n_periods))
        cells = [row[start:].tolist() for row, start in zip(values, starts, strict=True)]
        columns[name] = pd.Series(cells, dtype=object)
    return pd.DataFrame(columns | aligned.static)


@one_line
@dataclass(frozen=True)
class _Lists:
    """The lists of a column, one after the other; NaN is null."""

    flat: np.ndarray
    lengths: np.ndarray
    broken: np.ndarray


def _lists(column: pd.Series) -> _Lists:
    cells = list(column)
    broken = np.zeros(len(cells), dtype=bool)
    try:
        lists = pa.array(cells, type=_LISTS, from_pandas=True)
    except pa.ArrowException:
        broken = np.array([not _is_list(cell) for cell in cells], dtype=bool)
        kept = [None if bad else cell for cell, bad in zip(cells, broken, strict=True)]
        lists = pa.array(kept, type=_LISTS, from_pandas=True)
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return _Lists(flat, lengths.astype(np.int64), broken)


def _is_list(cell: Any) -> bool:
    try:
        pa.array([cell], type=_LISTS, from_pandas=True)
    except pa.ArrowException:
        return False
    return True


def _right_aligned(lists: _Lists, width: int) -> np.ndarray:
    """The newest `width` elements of each list, shape (n, width), NaN to their left."""
    n = len(lists.lengths)
    values = np.full((n, width), np.nan)
    rows = np.repeat(np.arange(n), lists.lengths)
    stops = np.cumsum(lists.lengths)
    columns = np.arange(len(lists.flat)) - np.repeat(stops, lists.lengths) + width
    kept = columns >= 0
    values[rows[kept], columns[kept]] = lists.flat[kept]
    return values


def _filled_inside(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Nulls after the first value filled; what lies before the target's first value is NaN."""
    values = np.where(inside, values, np.nan)
    known = ~np.isnan(values)
    rows = (np.logical_or.accumulate(known, axis=1) & ~known).any(axis=1)
    if rows.any():
        values[rows] = filled(values[rows])
    return values


def last_times(column: pd.Series, frequency: str) -> np.ndarray:
    """A column of last times without a zone, datetime64[s]; NaT where it is not known."""
    return _times(column, frequency)[0]


def _times(column: pd.Series, frequency: str) -> tuple[np.ndarray, np.ndarray]:
    """Last times without a zone, datetime64[s], and the mask of those that are not known."""
    if Frequency.parse(frequency).is_numbered:
        column = pd.to_numeric(column, errors="coerce")
        column = column.where(column % 1 == 0)
    unknown = np.array(column.isna(), dtype=bool)
    present = column[~unknown]
    try:
        newest = naive_times(present, LAST_TIMESTAMP, frequency) if len(present) else None
    except DataValidationError:
        if pd.api.types.is_numeric_dtype(present):
            raise
        unknown[~unknown] = numbers_or_times(present.astype(str), "coerce").isna().to_numpy()
        newest = (
            naive_times(column[~unknown], LAST_TIMESTAMP, frequency) if not unknown.all() else None
        )
    times = np.full(len(column), np.datetime64("NaT"), dtype="M8[s]")
    if newest is not None:
        daily = Frequency.parse(frequency).is_daily_or_longer
        times[~unknown] = newest.wall if daily else newest.utc
    return times, unknown


def _note(
    problems: dict[str, list[tuple[str, np.ndarray]]], problem: str, column: str, mask: np.ndarray
) -> None:
    if mask.any():
        problems.setdefault(problem, []).append((column, mask))
