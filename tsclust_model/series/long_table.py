"""Input validation of series: a long table (id, time, value, ...) becomes a `Panel` of arrays.

Times are put on one regular calendar; what does not fit it (gaps, copies, another frequency) is
detected here, and handled as ``gap_policy`` says. Errors name ids, because a user has to find the
series; they never hold a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tsclust_model.data.columns import (
    LARGEST,
    RESERVED,
    as_numbers,
    id_codes,
    numbers_or_times,
    require_columns,
    without_markers,
)
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, DataValidationError, listed
from tsclust_model.series.frequency import Frequency
from tsclust_model.series.holidays import HOLIDAYS, check_country
from tsclust_model.series.panel import Panel, filled
from tsclust_model.shown import one_line

_MOST_CELLS = 500_000_000

_IDS_SHOWN = 3

_FIRST_MONTH, _LAST_MONTH, _LARGEST_NUMBER = 190_001, 210_012, 10_000_000

_NO_NUMBER = "; correct it, or add the text that means 'missing' to missing_markers"

_OFFSET = r"(?:Z|[+-]\d{2}:?\d{2})$"


def series_panel(
    frame: pd.DataFrame,
    roles: Roles,
    gap_policy: str = "error",
    missing_markers: Sequence[str] = ("",),
) -> Panel:
    """Check a long table of series and put it on one calendar.

    Parameters
    ----------
    frame : DataFrame
        One row a series and period, in any order. The columns `roles.features` and `roles.future`
        are covariates (numbers), the latter also of periods after the last value; those of
        `roles.static` have one value a series. Other columns without a role are ignored.
    roles : Roles
        With `id`, `time` and a `horizon` of 1 or more; `frequency` is guessed where it is None.
    gap_policy : {'error', 'fill', 'drop'}
        What happens to periods a series lacks between its first and its last value: an error, a
        straight line between the neighbours (a resource or covariate that ends early keeps its
        last value), or the whole series is left out.
    missing_markers : sequence of str
        Texts that mean "missing".

    Returns
    -------
    Panel
        On one calendar; `gaps` says what was done.

    Raises
    ------
    DataValidationError, ConfigurationError
    """
    columns = value_columns(frame, roles)
    ids, codes = _id_codes(frame[roles.id])
    times = naive_times(frame[roles.time], str(roles.time), roles.frequency)
    if times.has_both:
        raise DataValidationError(
            f"time column '{roles.time}' has times with a zone and times without one; give all of "
            "them a zone, or none"
        )
    data = {
        name: as_numbers(
            frame[name], missing_markers, _NO_NUMBER, "mM" if name in roles.future else "bmM"
        )
        for name in columns
    }
    static = {
        name: _one_a_series(without_markers(frame[name], missing_markers), ids, codes)
        for name in roles.static
    }
    order = np.lexsort((times.wall, codes))
    codes, wall = codes[order], times.wall[order]
    data = {name: values[order] for name, values in data.items()}
    _refuse_infinite(data, ids, codes)
    numbers = {name: found for name, found in static.items() if found.dtype != object}
    _refuse_infinite(numbers, ids, np.arange(len(ids)))
    frequency = _frequency(roles, codes, wall, times.is_numbered)
    exact = wall if frequency.is_daily_or_longer else times.utc[order]
    ordinals = frequency.ordinals(exact)
    _refuse_mixed(ids, codes, ordinals, exact, frequency)
    kept = _without_copies(ids, codes, ordinals, data)
    panel = _on_calendar(ids, codes[kept], ordinals[kept], exact[kept], frequency, roles, {
        name: values[kept] for name, values in data.items()
    })  # fmt: skip
    panel = replace(panel, static=static)
    return _without_gaps(panel, gap_policy, {"n_rows": len(kept), "copies": int((~kept).sum())})


def require_series_roles(roles: Roles) -> None:
    """Refuse roles that no series can be made of (ConfigurationError)."""
    if roles.id is None or roles.time is None:
        absent = " and ".join(n for n, v in (("id", roles.id), ("time", roles.time)) if v is None)
        raise ConfigurationError(
            f"a forecast over a horizon needs {absent}; name the column that says whose value "
            "it is (id) and the one that says when (time)"
        )
    if roles.holidays is not None:
        check_country(roles.holidays)
    if roles.horizon < 1:
        raise ConfigurationError(f"horizon is {roles.horizon}; it must be 1 or more for series")
    if roles.frequency is not None:
        Frequency.parse(roles.frequency)


def value_columns(frame: pd.DataFrame, roles: Roles) -> list[str]:
    """Target, resources and covariates that are numbers of a period, after every role has been
    checked against the others."""
    require_series_roles(roles)
    assert roles.id is not None
    assert roles.time is not None
    values = [roles.target, *roles.resources, *roles.features, *roles.future]
    named = [roles.id, roles.time, *values, *roles.static]
    if roles.holidays is not None:
        named.append(HOLIDAYS)
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DataValidationError(f"'{twice[0]}' has two roles; give each column one")
    for name in dict.fromkeys((roles.id, roles.time, *values, *roles.static)):
        require_columns(frame, [name])
        if name in RESERVED | {"step", "series_id", "last_timestamp"} - {roles.id}:
            raise DataValidationError(f"'{name}' is a column of the forecasts; rename it")
    taken = [name for name in named[3:] if name == "y"]
    if taken:
        raise DataValidationError("only the target may be called 'y'; rename the other column")
    return values


@one_line
@dataclass(frozen=True)
class Times:
    """Times without a zone, datetime64[s]: as a wall clock showed them, and in UTC.

    Whole numbers that count periods are as many seconds (`is_numbered`); some times may have had a
    zone and others none (`has_both`).
    """

    wall: np.ndarray
    utc: np.ndarray
    is_numbered: bool = False
    has_both: bool = False


def naive_times(column: pd.Series, name: str, frequency: str | None = None) -> Times:
    """Times of a column: timestamps, periods, dates or ISO 8601 strings.

    Zoned times keep their wall clock for days and longer periods, where midnight is meant, and
    become UTC for shorter ones, where a clock is set back once a year. Whole numbers are years with
    frequency YS; without a frequency, or with one of numbers, they count periods. Other numbers,
    other strings and missing times are a DataValidationError.
    """
    column = column.infer_objects()
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_integer_dtype(column) and _is_yearly(frequency):
        column = column.astype("string")
    missing = int(column.isna().sum())
    if missing:
        raise DataValidationError(
            f"time column '{name}' is missing in {missing} row(s); remove those rows"
        )
    is_numbered = frequency is not None and Frequency.parse(frequency).is_numbered
    if pd.api.types.is_numeric_dtype(column):
        if frequency is None or is_numbered:
            return _counted(column, name)
        raise DataValidationError(
            f"time column '{name}' holds numbers, and frequency {frequency} needs times; give "
            "timestamps or ISO 8601 dates, or leave frequency out if the numbers count periods"
        )
    if is_numbered:
        raise DataValidationError(
            f"time column '{name}' holds no whole numbers, as frequency {frequency} needs; give "
            "whole numbers, or leave frequency out"
        )
    if isinstance(column.dtype, pd.PeriodDtype):
        column = pd.Series(pd.PeriodIndex(column).to_timestamp())
    if not pd.api.types.is_datetime64_any_dtype(column):
        return _parsed(column, name)
    times = pd.DatetimeIndex(column)
    wall = utc = times
    if times.tz is not None:
        wall, utc = times.tz_localize(None), times.tz_convert("UTC").tz_localize(None)
    return Times(wall.to_numpy().astype("M8[s]"), utc.to_numpy().astype("M8[s]"))


def _counted(column: pd.Series, name: str) -> Times:
    """Whole numbers that count periods."""
    numbers = column.to_numpy(np.float64)
    if pd.api.types.is_bool_dtype(column) or not (numbers == np.round(numbers)).all():
        raise DataValidationError(
            f"time column '{name}' holds numbers that are not whole; give timestamps, ISO 8601 "
            "dates, or whole numbers that count periods"
        )
    months = (numbers >= _FIRST_MONTH) & (numbers <= _LAST_MONTH)
    months &= (numbers % 100 >= 1) & (numbers % 100 <= 12)
    if numbers.size and (np.abs(numbers).max() >= _LARGEST_NUMBER or months.all()):
        raise DataValidationError(
            f"time column '{name}' holds numbers that look like dates or timestamps; convert it "
            "with pandas.to_datetime(..., format='%Y%m') or (..., unit='s')"
        )
    periods = numbers.astype(np.int64).astype("M8[s]")
    return Times(periods, periods, is_numbered=True)


def _is_yearly(frequency: str | None) -> bool:
    return frequency is not None and Frequency.parse(frequency).months == 12


def _parsed(column: pd.Series, name: str) -> Times:
    codes, unique = pd.factorize(column.astype(str))
    texts = pd.Series(unique, dtype=str)
    try:
        utc = numbers_or_times(texts)
        wall = numbers_or_times(texts.str.replace(_OFFSET, "", regex=True))
    except (ValueError, TypeError) as error:
        raise DataValidationError(
            f"time column '{name}' is not ISO 8601 (2026-01-31 or 2026-01-31T08:00); a day and a "
            "month could be mistaken for one another: convert it with pandas.to_datetime(..., "
            "format=...)"
        ) from error
    zoned = texts.str.contains(_OFFSET, regex=True)
    as_shown, exact = (times.to_numpy().astype("M8[s]")[codes] for times in (wall, utc))
    return Times(as_shown, exact, has_both=bool(zoned.any() and not zoned.all()))


def _frequency(roles: Roles, codes: np.ndarray, times: np.ndarray, is_numbered: bool) -> Frequency:
    if roles.frequency is not None:
        return Frequency.parse(roles.frequency)
    if is_numbered:
        return Frequency.guess_of_numbers(codes, times)
    return Frequency.guess(codes, times)


def id_texts(column: pd.Series) -> pd.Series:
    """Ids as texts; whole numbers that a gap or a csv made floats lose their ".0"."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype(object)


def _id_codes(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The ids as sorted texts, and the position of each row's id among them."""
    codes, unique = id_codes(id_texts(column))
    texts = np.array([str(name) for name in unique], dtype=object)
    ids, position = np.unique(texts.astype(str), return_inverse=True)
    return ids.astype(object), position[codes]


def _refuse_infinite(data: Mapping[str, np.ndarray], ids: np.ndarray, codes: np.ndarray) -> None:
    for name, values in data.items():
        broken = np.abs(values) > LARGEST
        if broken.any():
            raise DataValidationError(
                f"column '{name}' has infinite values or values beyond {LARGEST:g} in "
                f"{_shown(ids, np.unique(codes[broken]))}; correct them"
            )


def _refuse_mixed(
    ids: np.ndarray,
    codes: np.ndarray,
    ordinals: np.ndarray,
    times: np.ndarray,
    frequency: Frequency,
) -> None:
    """Refuse series most of whose steps are one and the same other number of periods."""
    pairs = np.flatnonzero((codes[1:] == codes[:-1]) & (times[1:] != times[:-1]))
    owner, steps = codes[pairs], (ordinals[pairs + 1] - ordinals[pairs])
    if (steps == 1).all():
        return
    order = np.lexsort((steps, owner))
    owner, steps = owner[order], steps[order]
    counts = np.bincount(owner, minlength=len(ids))
    middle = np.cumsum(counts) - counts + counts // 2
    usual = np.ones(len(ids), dtype=np.int64)
    usual[counts > 1] = steps[middle[counts > 1]]
    alike = np.bincount(owner, steps == usual[owner], minlength=len(ids))
    other = np.flatnonzero((usual != 1) & (2 * alike > counts))
    if other.size:
        raise DataValidationError(
            f"{len(other)} of {len(ids)} series have another frequency than {frequency.name}: "
            f"{_shown(ids, other)}; bring all to one frequency, or train them apart"
        )


def _without_copies(
    ids: np.ndarray, codes: np.ndarray, ordinals: np.ndarray, data: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Mask of the rows that are no copy of the row before; a contradiction is an error."""
    again = (codes[1:] == codes[:-1]) & (ordinals[1:] == ordinals[:-1])
    kept = np.concatenate([[True], ~again])[: len(codes)]
    rows = np.flatnonzero(again)
    differ = np.zeros(len(rows), dtype=bool)
    for values in data.values():
        one, two = values[rows], values[rows + 1]
        differ |= (one != two) & ~(np.isnan(one) & np.isnan(two))
    if n := int(differ.sum()):
        raise DataValidationError(
            f"{n} {'row gives' if n == 1 else 'rows give'} a series another value for a period "
            f"that it already has: {_shown(ids, np.unique(codes[rows[differ]]))}; keep one "
            "row for each id and period, or add them up"
        )
    return kept


def _on_calendar(
    ids: np.ndarray,
    codes: np.ndarray,
    ordinals: np.ndarray,
    times: np.ndarray,
    frequency: Frequency,
    roles: Roles,
    data: Mapping[str, np.ndarray],
) -> Panel:
    """The rows, sorted and without copies, as arrays; what is not known is NaN."""
    known = np.flatnonzero(~np.isnan(data[roles.target]))
    planned = roles.future and known.size > 0  # rows after the last value are plans
    first, last = int(ordinals.min()), int((ordinals[known] if planned else ordinals).max())
    shape = (len(ids), last - first + 1)
    if shape[0] * shape[1] > _MOST_CELLS:
        raise DataValidationError(
            f"{shape[0]} series over {shape[1]} periods of {frequency.name} are too many to hold; "
            "check the oldest and the newest time, or give a longer frequency"
        )
    arrays = {}
    for name, column in data.items():
        width = shape[1] + roles.horizon * (name in roles.future)
        arrays[name] = np.full((len(ids), width), np.nan)
        some = np.flatnonzero(ordinals - first < width)
        arrays[name][codes[some], ordinals[some] - first] = column[some]
    future = {name: arrays.pop(name) for name in roles.future}
    last_times = np.full(len(ids), np.datetime64("NaT"), dtype="M8[s]")
    last_times[codes[known]] = times[known]  # sorted: the last one stays
    ends = np.full(len(ids), last)
    return Panel(
        ids, arrays, ends, last_times, frequency,
        roles.target, tuple(roles.resources), tuple(roles.features), roles.horizon, future=future,
    )  # fmt: skip


def _without_gaps(panel: Panel, policy: str, counts: dict[str, int]) -> Panel:
    if policy not in ("error", "fill", "drop"):
        raise ConfigurationError(f"gap_policy is {policy!r}; it must be 'error', 'fill' or 'drop'")
    known = ~np.isnan(panel.y)
    alive = known.any(axis=1)
    inside = np.logical_and(
        np.logical_or.accumulate(known, axis=1),
        np.logical_or.accumulate(known[:, ::-1], axis=1)[:, ::-1],
    )
    lacking = np.zeros(len(panel), dtype=np.int64)
    absent = np.zeros(known.shape, dtype=bool)
    for name, values in panel.values.items():
        values[~inside] = np.nan
        there = ~np.isnan(values)
        started = inside if name == panel.target else np.logical_or.accumulate(there, axis=1)
        missing = inside & started & ~there
        lacking += missing.sum(axis=1)
        absent |= missing
    for name, planned in panel.future.items():
        missing = inside & np.isnan(planned[:, : panel.n_periods])
        if policy == "error":
            panel.refuse_unplanned(name, missing)
        lacking += missing.sum(axis=1)
    broken = lacking > 0
    if policy == "error":
        _refuse_gaps(panel, alive, absent.sum(axis=1))
    if policy == "fill" and broken.any():
        for values in panel.values.values():
            values[broken] = np.where(inside[broken], filled(values[broken]), np.nan)
        for planned in panel.future.values():
            known = planned[:, : panel.n_periods]
            lines = np.isnan(known) & inside
            known[lines] = filled(known)[lines]
    kept = alive & ~broken if policy == "drop" else alive
    if not kept.any():
        raise DataValidationError(
            "no series is left: each has gaps or no value at all; correct the times, or set "
            "gap_policy to 'fill'"
        )
    counts |= {
        "n_series": int(kept.sum()),
        "without_values": int((~alive).sum()),
        "with_gaps": int(broken.sum()),
        "filled": int(lacking.sum()) if policy == "fill" else 0,
        "dropped": int((alive & ~kept).sum()),
        "shorter_than_a_season": int((panel.lengths[kept] < panel.frequency.season).sum()),
    }
    return replace(panel if kept.all() else panel.take(kept), gaps=counts)


def _refuse_gaps(panel: Panel, alive: np.ndarray, lacking: np.ndarray) -> None:
    if not alive.all():
        raise DataValidationError(
            f"{int((~alive).sum())} of {len(panel)} series have no value at all: "
            f"{_shown(panel.ids, np.flatnonzero(~alive))}; remove them, or set gap_policy to "
            "'fill' or 'drop', which leave them out"
        )
    broken, n = np.flatnonzero(lacking), int(lacking.sum())
    if broken.size:
        raise DataValidationError(
            f"{len(broken)} of {len(panel)} series {'has' if len(broken) == 1 else 'have'} gaps, "
            f"{n} period{'s' * (n > 1)} in all (frequency {panel.frequency.name}): "
            f"{_shown(panel.ids, broken)}; correct the times, or set gap_policy to 'fill' or 'drop'"
        )


def _one_a_series(column: pd.Series, ids: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The value of each series, shape (n_series,): float64, or object where they are texts."""
    values = pd.Series(static_values(column))
    groups = values.groupby(codes)
    several = np.flatnonzero(groups.nunique().reindex(range(len(ids)), fill_value=0) > 1)
    if several.size:
        raise DataValidationError(
            f"static column '{column.name}' has more than one value in {_shown(ids, several)}; "
            "give each series one, or make the column one of features"
        )
    return groups.first().reindex(range(len(ids))).to_numpy()


def static_values(column: pd.Series) -> np.ndarray:
    """A static covariate as float64, or as texts (object) if it does not hold numbers."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    return column.astype(object).map(str, na_action="ignore").to_numpy(dtype=object)


def _shown(ids: np.ndarray, positions: np.ndarray) -> str:
    return listed(ids[positions], _IDS_SHOWN)
