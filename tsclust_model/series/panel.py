"""Series as arrays, a row each, on one calendar or aligned at their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tsclust_model.errors import DataValidationError
from tsclust_model.series.frequency import Frequency
from tsclust_model.shown import one_line

LARGEST_LOSS = 10.0
"""What a scaled error of one series counts at most where models are compared: one that has died
would outweigh all others."""

_RANGES_APART, _ONE_IN, _FEWEST_BESIDE, _SHORTEST_SEASON = 10.0, 100, 12, 3

_RANGES_ABSURD, _BEGAN_LATER = 100.0, 8.0


@one_line
@dataclass(frozen=True)
class Panel:
    """Series as arrays, a row each.

    A panel of a long table lies on one calendar: a column is the same period of every series. A
    panel for forecasting is right-aligned: the last column is the last period of each.

    Attributes
    ----------
    ids : ndarray of object, shape (n,)
        Texts, sorted.
    values : dict of str to ndarray of float64, shape (n, T)
        Target, resources and covariates by name. NaN before the first and after the last period
        of a series, none between them; a resource or covariate may start later than the target.
    ends : ndarray of int64, shape (n,)
        Number of the period in the last column (see `Frequency.ordinals`).
    last_times : ndarray of datetime64[s], shape (n,)
        Time of the last value of each series, as it was given (without a zone).
    frequency : Frequency
    target : str
    resources, covariates : tuple of str
    horizon : int
        Periods to forecast.
    gaps : dict of str to int
        What was found and done, for the report.
    future : dict of str to ndarray of float64, shape (n, T + horizon)
        Covariates that are known for the periods after the last column as well; NaN is not known.
    static : dict of str to ndarray of float64 or object, shape (n,)
        Covariates with one value a series, a number or a text; NaN or None is not known.
    """

    ids: np.ndarray
    values: dict[str, np.ndarray]
    ends: np.ndarray
    last_times: np.ndarray
    frequency: Frequency
    target: str
    resources: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    horizon: int = 1
    gaps: dict[str, int] = field(default_factory=dict)
    future: dict[str, np.ndarray] = field(default_factory=dict)
    static: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def y(self) -> np.ndarray:
        """The target, shape (n, T)."""
        return self.values[self.target]

    @property
    def n_periods(self) -> int:
        """Columns of the arrays, T."""
        return int(self.y.shape[1])

    @property
    def lengths(self) -> np.ndarray:
        """Number of values of each series, shape (n,)."""
        return (~np.isnan(self.y)).sum(axis=1)

    @property
    def _trailing(self) -> np.ndarray:
        """Columns after the last value of each series, shape (n,)."""
        known = ~np.isnan(self.y[:, ::-1])
        return np.where(known.any(axis=1), known.argmax(axis=1), 0)

    def time_of(self, row: int, column: int) -> str:
        """The time of a column of a series, as it is written; columns may lie after its end."""
        last = self.n_periods - 1 - int(self._trailing[row])
        times = self.frequency.moved(self.last_times[row : row + 1], column - last)
        if self.frequency.is_numbered:
            return str(self.frequency.shown(times)[0])
        return str(times[0]).replace("T", " ").removesuffix(" 00:00:00")

    def refuse_unplanned(self, name: str, missing: np.ndarray) -> None:
        """Refuse what a future covariate lacks, a mask of shape (n, T + horizon), if anything.

        Raises
        ------
        DataValidationError
        """
        rows, columns = np.nonzero(missing)
        if not rows.size:
            return
        periods = columns + self.ends[rows]
        row, column = (int(found[periods.argmin()]) for found in (rows, columns))
        n_others = len(np.unique(rows)) - 1
        others = f" and of {n_others} more series" if n_others else ""
        raise DataValidationError(
            f"future column '{name}' has no value at {self.time_of(row, column)} of series "
            f"{self.ids[row]}{others}; give one for every period of a series and of its horizon"
        )

    def take(self, rows: np.ndarray) -> Panel:
        """Some of the series, by position or mask."""
        return replace(
            self,
            ids=self.ids[rows],
            values={name: values[rows] for name, values in self.values.items()},
            ends=self.ends[rows],
            last_times=self.last_times[rows],
            future={name: values[rows] for name, values in self.future.items()},
            static={name: values[rows] for name, values in self.static.items()},
        )

    def without_alone(self) -> Panel:
        """The panel with target and resources freed of values that stand alone."""
        freed = {
            name: without_alone(self.values[name], self.frequency.season)[0]
            for name in (self.target, *self.resources)
        }
        return replace(self, values=self.values | freed)

    def right_aligned(self, drop: int | np.ndarray = 0) -> Panel:
        """Each series with its last value in the last column, `drop` values at its end left out."""
        shift = self._trailing + drop

        def shifted(found: np.ndarray) -> np.ndarray:
            columns = np.arange(found.shape[1]) - shift[:, None]
            taken = np.take_along_axis(found, np.clip(columns, 0, None), axis=1)
            return np.where(columns < 0, np.nan, taken)

        return replace(
            self,
            values={name: shifted(found) for name, found in self.values.items()},
            ends=self.ends - shift,
            last_times=self.frequency.moved(self.last_times, -np.asarray(drop)),
            future={name: shifted(found) for name, found in self.future.items()},
        )

    def with_own_ends(self) -> Panel:
        """The panel for rolling origins: a series that ended long ago is moved to the end.

        Series whose last value is within `horizon` of the last period stay on the calendar. The
        others would take part in no recent origin there, so they are right-aligned; their `ends`
        still say when they ended.
        """
        early = self._trailing >= self.horizon
        if not early.any():
            return self
        own = self.right_aligned()
        values, future = (
            {name: np.where(early[:, None], mine[name], found) for name, found in theirs.items()}
            for mine, theirs in ((own.values, self.values), (own.future, self.future))
        )
        first = int((~np.isnan(values[self.target])).any(axis=0).argmax())
        return replace(
            self,
            values={name: found[:, first:] for name, found in values.items()},
            ends=np.where(early, own.ends, self.ends),
            future={name: found[:, first:] for name, found in future.items()},
        )

    def known(self, drop: int | np.ndarray) -> Panel:
        """The panel without the last `drop` values of each series; too short ones are left out.

        It stays on its calendar: this is what a model may be fitted on.
        """
        later = np.arange(self.n_periods) >= (self.n_periods - self._trailing - drop)[:, None]
        values = {name: np.where(later, np.nan, found) for name, found in self.values.items()}
        used = np.flatnonzero((~np.isnan(values[self.target])).any(axis=0))
        stop = used[-1] + 1 if used.size else 0
        earlier = replace(
            self,
            values={name: found[:, :stop] for name, found in values.items()},
            ends=self.ends - (self.n_periods - stop),
            last_times=self.frequency.moved(self.last_times, -np.asarray(drop)),
            future={name: found[:, : stop + self.horizon] for name, found in self.future.items()},
        )
        return earlier.take(earlier.lengths > 0)

    def held_back(self, drop: int | np.ndarray, steps: int) -> HeldBack:
        """The series as they were `drop` values ago, and up to `steps` values that followed.

        Series of which nothing was known then are left out.
        """
        dropped = np.broadcast_to(np.asarray(drop), len(self))
        before = self.right_aligned(dropped)
        aligned = self.right_aligned()
        ahead = np.arange(steps)
        columns = self.n_periods - dropped[:, None] + ahead
        there = (columns >= 0) & (ahead < dropped[:, None])
        columns = np.clip(columns, 0, self.n_periods - 1)
        truth = {
            name: np.where(there, np.take_along_axis(found, columns, axis=1), np.nan)
            for name, found in aligned.values.items()
        }
        had = [~np.isnan(before.values[n]).all(axis=1) for n in (self.target, *self.resources)]
        rows = np.flatnonzero(np.logical_and.reduce(had))
        return HeldBack(before.take(rows), {name: found[rows] for name, found in truth.items()})


@one_line
@dataclass(frozen=True)
class HeldBack:
    """Series up to an origin, and what came after it.

    Attributes
    ----------
    panel : Panel
        Right-aligned at the origin.
    truth : dict of str to ndarray of float64, shape (n, steps)
        What followed, by name; NaN is not known.
    """

    panel: Panel
    truth: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.panel)

    @property
    def y(self) -> np.ndarray:
        """What followed of the target, shape (n, steps)."""
        return self.truth[self.panel.target]

    def take(self, rows: np.ndarray) -> HeldBack:
        """Some of the series, by position or mask."""
        return HeldBack(
            self.panel.take(rows), {name: found[rows] for name, found in self.truth.items()}
        )

    def only(self, known: np.ndarray) -> HeldBack:
        """The values of a mask, shape (n, steps); series without any are left out."""
        truth = {name: np.where(known, found, np.nan) for name, found in self.truth.items()}
        held = HeldBack(self.panel, truth)
        return held.take(~np.isnan(held.y).all(axis=1))

    def of(self, name: str) -> HeldBack:
        """The same with a resource as the target."""
        return HeldBack(replace(self.panel, target=name), self.truth)

    @classmethod
    def joined(cls, parts: Sequence[HeldBack]) -> HeldBack:
        """Several origins as one; a series counts once at each."""
        first = parts[0]
        panels = [part.panel for part in parts]

        def together(found: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
            return {name: np.concatenate([item[name] for item in found]) for name in found[0]}

        panel = replace(
            first.panel,
            ids=np.concatenate([item.ids for item in panels]),
            values=together([item.values for item in panels]),
            future=together([item.future for item in panels]),
            static=together([item.static for item in panels]),
            ends=np.concatenate([item.ends for item in panels]),
            last_times=np.concatenate([item.last_times for item in panels]),
        )
        return cls(panel, together([part.truth for part in parts]))


def filled(values: np.ndarray) -> np.ndarray:
    """Series, shape (n, T), with a straight line over each gap, and the last value after it.

    What lies before the first value stays NaN.
    """
    n, width = values.shape
    known, columns = ~np.isnan(values), np.arange(width)
    before = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    after = np.minimum.accumulate(np.where(known, columns, width)[:, ::-1], axis=1)[:, ::-1]
    after = np.where(after == width, before, after)
    rows = np.arange(n)[:, None]
    low, high = values[rows, before], values[rows, after]
    share = (columns - before) / np.maximum(after - before, 1)
    line = np.where(after > before, low + (high - low) * share, low)
    return np.where(known, values, np.where(before < 0, np.nan, line))


def standing_alone(values: np.ndarray, season: int) -> np.ndarray:
    """Mask of values that can hardly be of their series: a slip of the keyboard, mostly.

    Such a value is farther from all others than ten times their range (ten times their level where
    they are all the same). At most one value in a hundred is, or one of a shorter series. What a
    series ends in may be a new level, and is none; but the last value is, if it is alone there and
    a hundred ranges away. A series that is mostly zero, whose range says little, or that has less
    than two seasons has none.

    Parameters
    ----------
    values : ndarray of float64, shape (n, T)
        NaN before a series begins and after it ends.
    season : int
        Periods in a season; 1 is none.

    Returns
    -------
    ndarray of bool, shape (n, T)
    """
    alone = np.zeros(values.shape, dtype=bool)
    rising, known = np.sort(values, axis=1), ~np.isnan(values)  # NaN comes last
    n, rows = known.sum(axis=1), np.arange(len(values))
    last = max(season, _SHORTEST_SEASON)
    long = n >= max(2 * last, _FEWEST_BESIDE)
    most = np.maximum(n // _ONE_IN, 1)
    ends = np.where(long, n - 1, 0)
    inner = rising[rows, np.where(long, ends - most, 0)] - rising[rows, np.where(long, most, 0)]
    wide = rising[rows, ends] - rising[rows, 0] > _RANGES_APART * inner
    for row in np.flatnonzero(long & wide):
        own = np.flatnonzero(known[row])
        alone[row, own] = _alone_in(values[row, own], int(most[row]))
    return alone


def _alone_in(series: np.ndarray, most: int) -> np.ndarray:
    """`standing_alone` of one series; no more than `most` values."""
    far = np.abs(series - np.median(series))
    asked = np.argsort(-far, kind="stable")[:most]
    others = np.delete(series, asked)
    low, high, usual = others.min(), others.max(), abs(float(np.median(others)))
    found = np.zeros(len(series), dtype=bool)
    if usual > 0:
        ranges = np.maximum(low - series[asked], series[asked] - high) / ((high - low) or usual)
        found[asked] = ranges > _RANGES_APART
        n_ended = int(found[::-1].argmin())  # values at the end that nothing usual follows
        if n_ended == 1 and ranges[asked == len(series) - 1][0] > _RANGES_ABSURD:
            return found
        found[len(series) - n_ended :] = False
    return found


def opened(values: np.ndarray) -> np.ndarray:
    """Series, shape (n, T), whose zeros before they began are NaN: a ward that was not open yet.

    A run of zeros at the start is no part of a series if what follows has so few zeros that the
    series is 3,000 times (e to the 8th) more likely as one that began after the run than as one
    with zeros all along.

    Returns
    -------
    ndarray of float64, shape (n, T)
        The same array where there is no such run, else a copy.
    """
    known = ~np.isnan(values)
    first = np.where(known.any(axis=1), known.argmax(axis=1), 0)
    is_other = known & (values != 0)
    begins = np.where(is_other.any(axis=1), is_other.argmax(axis=1), 0)
    rows = np.flatnonzero(begins > first)
    if not rows.size:
        return values
    after = np.arange(values.shape[1]) >= begins[rows, None]
    others = is_other[rows].sum(axis=1)
    zeros = (known[rows] & ~is_other[rows]).sum(axis=1)
    later = (known[rows] & ~is_other[rows] & after).sum(axis=1)
    gain = _log_likelihood(later, others) - _log_likelihood(zeros, others)
    rows, after = rows[gain > _BEGAN_LATER], after[gain > _BEGAN_LATER]
    changed = values.copy()
    changed[rows] = np.where(after, values[rows], np.nan)
    return changed


def _log_likelihood(zeros: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of so many zeros and other values at their own rate; there is another value in each."""
    n = zeros + others
    of_zeros = zeros * np.log(np.maximum(zeros, 1) / n)
    return np.asarray(of_zeros + others * np.log(others / n))


def without_alone(values: np.ndarray, season: int) -> tuple[np.ndarray, np.ndarray]:
    """Series with the value of a season before, or else after, in place of those that stand alone.

    Parameters
    ----------
    values : ndarray of float64, shape (n, T)
    season : int

    Returns
    -------
    values : ndarray of float64, shape (n, T)
        A copy where a value stood alone, else the same array.
    alone : ndarray of bool, shape (n, T)
        See `standing_alone`.
    """
    alone = standing_alone(values, season)
    if not alone.any():
        return values, alone
    changed = np.where(alone, np.nan, values)
    for row, column in np.argwhere(alone):
        same = changed[row, column % season :: season]
        place, known = column // season, np.flatnonzero(~np.isnan(same))
        before = known[known < place]
        pick = before[-1] if before.size else known[0]
        changed[row, column] = same[pick]
    return changed, alone


def mase_scale(panel: Panel) -> np.ndarray:
    """Mean absolute difference between values a season apart of right-aligned series, shape (n,).

    Neighbours are taken where a series is no longer than a season; NaN where nothing differs. It is
    what makes errors of series comparable (Hyndman & Koehler 2006). Values that stand alone do not
    count.
    """
    y, _ = without_alone(panel.y, panel.frequency.season)
    scales = [
        row_means(np.abs(y[:, lag:] - y[:, :-lag]))
        for lag in dict.fromkeys((panel.frequency.season, 1))
    ]
    scale = np.where(np.isnan(scales[0]), scales[-1], scales[0])
    return np.where(scale > 0, scale, np.nan)


def scaled_errors(held: HeldBack, forecast: np.ndarray) -> np.ndarray:
    """Absolute errors of the target over the scale of its series, shape (n, steps)."""
    errors = np.abs(held.y - forecast[:, : held.y.shape[1]])
    return errors / mase_scale(held.panel)[:, None]


def row_means(values: np.ndarray) -> np.ndarray:
    """Mean of what is known in each row, shape (n,); NaN where nothing is."""
    known = ~np.isnan(values)
    counts = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)
