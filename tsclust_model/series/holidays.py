"""Holidays of a country as a covariate that the model makes of the calendar alone.

The days come from the library `holidays` when a model is trained, and are kept in its state: what
scores it needs no library, and gives the same answer whatever its release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tsclust_model.errors import ConfigurationError, closest, suggestion
from tsclust_model.series.frequency import Frequency
from tsclust_model.shown import one_line

HOLIDAYS = "holidays"
"""Name of the covariate."""

_YEARS_BEFORE, _YEARS_AFTER = 3, 10


@one_line
@dataclass(frozen=True)
class HolidayCalendar:
    """The holidays of a country, as days since 1970; `until` is the first day that is not known."""

    country: str
    until: int
    days: tuple[int, ...]

    @classmethod
    def of(cls, country: str, first: np.datetime64, last: np.datetime64) -> HolidayCalendar:
        """From three years before the first period of a panel to ten years after its last.

        Raises
        ------
        ConfigurationError
            The library is not installed, or knows no such country.
        """
        start, stop = (time.astype("M8[Y]").astype(int) + 1970 for time in (first, last))
        years = range(start - _YEARS_BEFORE, stop + _YEARS_AFTER + 1)
        days = np.array(sorted(_library_days(country, years)), dtype="M8[D]").astype(np.int64)
        until = np.datetime64(f"{years.stop}-01-01", "D").astype(int)
        return cls(country, int(until), tuple(days.tolist()))

    @cached_property
    def _sorted(self) -> np.ndarray:
        return np.array(self.days, dtype=np.int64)

    def counts(self, frequency: Frequency, ordinals: np.ndarray) -> np.ndarray:
        """Holidays in each period, float64; of an hour those of its day; NaN is not known."""
        begin = frequency.starts(ordinals).astype("M8[D]").astype(np.int64)
        end = begin + 1
        if frequency.is_daily_or_longer:
            end = frequency.starts(np.asarray(ordinals) + 1).astype("M8[D]").astype(np.int64)
        found = np.searchsorted(self._sorted, end) - np.searchsorted(self._sorted, begin)
        return np.where(end <= self.until, found.astype(np.float64), np.nan)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> HolidayCalendar:
        return cls(content["country"], content["until"], tuple(content["days"]))


def check_country(country: str) -> None:
    """Refuse a country that has no calendar (ConfigurationError)."""
    _library_days(country, range(2024, 2025))


def _library_days(country: str, years: range) -> list[Any]:
    try:
        import holidays
    except ImportError as error:
        raise ConfigurationError(
            "holidays need the library of this name: pip install 'tsclust-model[holidays]'"
        ) from error
    code, _, part = country.partition("-")
    try:
        return list(holidays.country_holidays(code, subdiv=part or None, years=years))
    except NotImplementedError as error:
        known = holidays.list_supported_countries()
        near = suggestion(country, [*known, *(f"{c}-{p}" for c in known for p in known[c])])
        raise ConfigurationError(
            f"holidays: there is no calendar of '{country}'{near or _by_name(country)}; give the "
            "code of a country (AU), or of a part of one (AU-NSW)"
        ) from error


def _by_name(country: str) -> str:
    """The code of a country whose name is almost this one."""
    from holidays.registry import COUNTRIES

    codes = {name.replace("_", " "): names[1] for name, names in COUNTRIES.items()}
    name = closest(country.lower().replace("_", " "), codes)
    return "" if name is None else f" (did you mean '{codes[name]}'?)"
