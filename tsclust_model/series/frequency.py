"""The calendar of series: which period a time falls into, and what comes after it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsclust_model.errors import ConfigurationError, DataValidationError

_DAY = 86_400

_WEEK = 7 * _DAY

_MONTHS = {"MS": 1, "QS": 3, "YS": 12}

_SECONDS = {"min": 60, "h": 3600, "D": _DAY, "W": _WEEK}

_OTHER_NAMES = {
    **dict.fromkeys(("M", "ME", "BMS", "BME", "BM", "monthly"), "MS"),
    **dict.fromkeys(("Q", "QE", "BQS", "BQE", "quarterly"), "QS"),
    **dict.fromkeys(("Y", "YE", "A", "AS", "yearly", "annual"), "YS"),
    "weekly": "W",
    "d": "D",
    "daily": "D",
    "H": "h",
    "hourly": "h",
    "T": "min",
}

_NAME = re.compile(r"(\d*)([A-Za-z]+?)(?:-[A-Z]{3})?")

_NUMBERED_NAME = re.compile(r"(\d*)period(?:/(\d+))?")

# Days between the same day of two months, by the number of months.
_DAYS_OF_MONTHS = {1: (28, 31), 2: (59, 62), 3: (89, 92), 4: (120, 123), 6: (181, 184)} | {
    12: (365, 366)
}

# Below this step a day has too many periods to be a season; an hour is one then.
_HOURLY_SEASON = 900


@dataclass(frozen=True)
class Frequency:
    """A regular calendar; a period is a number of months, or of seconds.

    Attributes
    ----------
    name : str
        As pandas names it: ``YS``, ``QS``, ``MS``, ``W``, ``D``, ``h``, ``30min``, ``2W`` ...; a
        time anywhere in a period belongs to it, so months may be given at their end.
    months, seconds : int
        Length of a period; one of them is 0.
    numbered_season : int
        Of a calendar of whole numbers (``period``: 1, 2, 3 ...; ``period/12`` has a season of 12;
        ``10period`` counts in tens), whose seconds stand for the numbers; 0 is one of times.

    Examples
    --------
    >>> Frequency.parse("M").name, Frequency.parse("30min").season
    ('MS', 48)
    >>> Frequency.parse("period/12").season
    12
    """

    name: str
    months: int = 0
    seconds: int = 0
    numbered_season: int = 0

    @property
    def season(self) -> int:
        """Periods in a season: a year of months, quarters or weeks, a week of days, a day of
        hours, an hour of minutes below a quarter of one; 1 is no season (years)."""
        if self.is_numbered:
            return self.numbered_season
        if self.months:
            return max(12 // self.months, 1)
        if self.seconds % _WEEK == 0:
            return max(52 * _WEEK // self.seconds, 1)
        if self.seconds >= _DAY:
            return 7 if self.seconds == _DAY else 1
        return (3600 if self.seconds < _HOURLY_SEASON else _DAY) // self.seconds

    @property
    def longer_season(self) -> int:
        """Periods in the season beyond `season`: a week of hours, a day of minutes, and of days the
        52 weeks of a year, which keep the day of the week; 0 is none."""
        if self.is_numbered or self.months or self.seconds > _DAY:
            return 0
        longer = {_DAY: 52 * _WEEK}.get(self.seconds, _WEEK)
        return (_DAY if self.seconds < _HOURLY_SEASON else longer) // self.seconds

    @property
    def is_numbered(self) -> bool:
        """Whether periods are whole numbers, not times."""
        return self.numbered_season > 0

    @property
    def is_daily_or_longer(self) -> bool:
        return self.months > 0 or self.seconds >= _DAY

    @classmethod
    def parse(cls, name: str) -> Frequency:
        """The frequency of a name; pandas' other spellings (``ME``, ``W-MON``) are understood.

        Raises
        ------
        ConfigurationError
        """
        numbered = _NUMBERED_NAME.fullmatch(name)
        if numbered:
            step, season = (int(text or 1) for text in numbered.groups())
            if step and season:
                return cls.of_numbers(step, season)
        match = _NAME.fullmatch(name)
        count = int(match.group(1) or 1) if match else 0
        unit = _OTHER_NAMES.get(match.group(2), match.group(2)) if match else ""
        if count and unit in _MONTHS and 12 % (count * _MONTHS[unit]) == 0:
            return cls.of_months(count * _MONTHS[unit])
        if count and unit in _SECONDS:
            seconds = count * _SECONDS[unit]
            if seconds % _DAY == 0 or (_DAY % seconds == 0 and 3600 % seconds in (0, 3600)):
                return cls.of_seconds(seconds)
        hint = "; for business days use D with gap_policy 'fill'" if unit == "B" else ""
        raise ConfigurationError(
            f"frequency is {name!r}; give YS, QS, MS, W, D, h, 30min or a multiple that divides "
            f"a year or a day, or of whole numbers period or period/<their season>{hint}"
        )

    @classmethod
    def of_months(cls, months: int) -> Frequency:
        names = {number: name for name, number in _MONTHS.items()}
        return cls(names.get(months, f"{months}MS"), months=months)

    @classmethod
    def of_seconds(cls, seconds: int) -> Frequency:
        unit = next(u for u in ("W", "D", "h", "min") if seconds % _SECONDS[u] == 0)
        count = seconds // _SECONDS[unit]
        return cls(unit if count == 1 else f"{count}{unit}", seconds=seconds)

    @classmethod
    def of_numbers(cls, step: int, season: int) -> Frequency:
        name = f"{'' if step == 1 else step}period{'' if season == 1 else f'/{season}'}"
        return cls(name, seconds=step, numbered_season=season)

    @classmethod
    def guess_of_numbers(cls, codes: np.ndarray, numbers: np.ndarray) -> Frequency:
        """The most common step between whole numbers of a series, without a season.

        Parameters and errors are those of `guess`.
        """
        return cls.of_numbers(_usual_step(codes, numbers)[0], 1)

    @classmethod
    def guess(cls, codes: np.ndarray, times: np.ndarray) -> Frequency:
        """The most common step from one time of a series to its next.

        Parameters
        ----------
        codes : ndarray of int64, shape (n,)
            A number for each id, sorted.
        times : ndarray of datetime64, shape (n,)
            Sorted within an id.

        Raises
        ------
        DataValidationError
            No series has two times, or the step is none of a regular calendar.
        """
        step, alike = _usual_step(codes, times)
        for months, (fewest, most) in _DAYS_OF_MONTHS.items():
            if fewest * _DAY <= step <= most * _DAY and (
                step % _WEEK or _same_day(times[alike], times[alike + 1])
            ):
                return cls.of_months(months)
        if step % _DAY == 0 or (step % 60 == 0 and _DAY % step == 0 and 3600 % step in (0, 3600)):
            return cls.of_seconds(step)
        raise DataValidationError(
            f"the most common step between two times of a series is {step} seconds, which is no "
            "regular calendar; give frequency, such as MS, W, D or h, or correct the times"
        )

    def ordinals(self, times: np.ndarray) -> np.ndarray:
        """Number of the period that each time (datetime64) falls into, int64; 0 is 1970's first."""
        if self.months:
            return times.astype("M8[M]").astype(np.int64) // self.months
        return times.astype("M8[s]").astype(np.int64) // self.seconds

    def starts(self, ordinals: np.ndarray) -> np.ndarray:
        """Where periods begin, datetime64[s]."""
        if self.months:
            return (np.asarray(ordinals) * self.months).astype("M8[M]").astype("M8[s]")
        return (np.asarray(ordinals) * self.seconds).astype("M8[s]")

    def shown(self, times: np.ndarray) -> np.ndarray:
        """Times as they are given out: datetime64[ns], or int64 where periods are numbers."""
        return times.astype("M8[s]").astype(np.int64 if self.is_numbered else "M8[ns]")

    def phase(self, ordinals: np.ndarray) -> np.ndarray:
        """Position of periods in the season, 0 to `season` - 1 (the month of a monthly series)."""
        return np.asarray(ordinals) % self.season

    def moved(self, times: np.ndarray, steps: int | np.ndarray) -> np.ndarray:
        """Each time (datetime64) `steps` periods later, or earlier; they broadcast.

        Months keep their day; the end of a month becomes the end of another.
        """
        exact = np.asarray(times).astype("M8[s]")
        count = np.asarray(steps)
        if not self.months:
            return exact + (count * self.seconds).astype("m8[s]")
        days = exact.astype("M8[D]")
        start = exact.astype("M8[M]")
        day = (days - start.astype("M8[D]")).astype(np.int64)
        months = start + (count * self.months).astype("m8[M]")
        last_day = _last_day(months)
        wanted = np.where(day == _last_day(start), last_day, np.minimum(day, last_day))
        return (months.astype("M8[D]") + wanted.astype("m8[D]")).astype("M8[s]") + (exact - days)

    def after(self, times: np.ndarray, steps: int) -> np.ndarray:
        """The `steps` times that follow each, shape (n, steps), datetime64[s]."""
        return self.moved(np.asarray(times)[:, None], np.arange(1, steps + 1))


def _usual_step(codes: np.ndarray, times: np.ndarray) -> tuple[int, np.ndarray]:
    """The most common step, in seconds, and where up to 1,000 of its kind begin."""
    steps = np.diff(times.astype("M8[s]").astype(np.int64))
    pairs = np.flatnonzero((codes[1:] == codes[:-1]) & (steps > 0))
    if not pairs.size:
        raise DataValidationError(
            "no series has two different times, so the frequency cannot be guessed; "
            "give frequency, such as MS, W or D"
        )
    values, counts = np.unique(steps[pairs], return_counts=True)
    step = int(values[counts.argmax()])
    return step, pairs[steps[pairs] == step][:1000]


def _last_day(months: np.ndarray) -> np.ndarray:
    """Days from the start of a month (datetime64[M]) to its last day."""
    return ((months + 1).astype("M8[D]") - months.astype("M8[D]")).astype(np.int64) - 1


def _same_day(before: Any, after: Any) -> bool:
    """Whether most pairs of times have the same day of the month, or are both its end."""
    months = [times.astype("M8[M]") for times in (before, after)]
    days = [
        (t.astype("M8[D]") - m).astype(np.int64)
        for t, m in zip((before, after), months, strict=True)
    ]
    ends = [day == _last_day(month) for day, month in zip(days, months, strict=True)]
    return float(((days[0] == days[1]) | (ends[0] & ends[1])).mean()) > 0.5
