"""The gate for new rows: are they what the model was fitted on, and which of them are broken?

A schema is inferred from training rows, lives in the model as plain JSON, and is put to new rows
with pandera. Broken rows (a duplicate, a text in a column of numbers, a value far outside the known
range) are removed and counted by reason; what is wrong with the table as a whole (a column that is
gone or has another unit, too many broken rows) is a problem, and problems warn or block. The texts
name columns and shares, never values.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.errors import DataValidationError, suggestion
from tsclust_model.shown import one_line

MODES = ("off", "warn", "block")

OK = "ok"

SCHEMA_CHECKS = ("removed", "renamed", "type", "unit")
"""Checks that say the table is another one than the model knows."""

_MOST_CATEGORIES = 200

_NUMERIC = ("integer", "floating", "mixed-integer-float")

_UNITS = (1e2, 1e3, 1e6)

_UNIT_SPREAD = 1.5

_BOOLEANS = {"1": "true", "1.0": "true", "0": "false", "0.0": "false"}


@one_line
@dataclass
class _Findings:
    """What one look at a table collects; `broken` holds positions of rows by reason."""

    problems: list[dict[str, str]] = field(default_factory=list)
    broken: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def problem(self, check: str, column: str, message: str) -> None:
        self.problems.append({"check": check, "column": column, "message": message})

    def rows(self, reason: str, mask: np.ndarray) -> None:
        if mask.any():
            self.broken[reason] = self.broken.get(reason, np.zeros(len(mask), dtype=bool)) | mask


def infer_quality_schema(
    df: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    time: str | None = None,
    id: str | None = None,
    unique: bool = False,
    markers: Sequence[str] = ("",),
) -> dict[str, Any]:
    """What `validate_data_quality` compares new rows with, as plain JSON.

    Parameters
    ----------
    df : DataFrame
        Rows that are known to be good.
    columns : sequence of str, optional
        Those that matter; default: all. The others are only known by name.
    optional : sequence of str
        Columns that may be absent or missing: outcomes that are known later.
    time : str, optional
        The column that orders the rows.
    id : str, optional
        The column that says whose row it is; new ids are nothing to wonder at.
    unique : bool
        Whether an id and a time are one row: a long table of series.
    markers : sequence of str
        Texts that mean "missing".

    Returns
    -------
    dict
        ``columns`` {name: kind, missing share and range or category shares}, ``seen`` (all
        names), ``optional``, ``time``, ``newest``, ``keys`` (columns that tell rows apart) and
        ``n_rows``.
    """
    wanted = [str(name) for name in (df.columns if columns is None else columns)]
    found = {
        name: {"kind": "time"} if name == time else _describe(_plain(df[name], markers))
        for name in wanted
        if name in df
    }
    if id in found:
        found[id] = {"kind": "text", "missing": found[id]["missing"]}
    return {
        "columns": found,
        "seen": sorted(map(str, df.columns)),
        "optional": list(optional),
        "time": time,
        "newest": None if time is None or time not in df else _newest(df, time),
        "keys": [id, time] if unique else [],
        "n_rows": len(df),
    }


def validate_data_quality(
    df: pd.DataFrame,
    step_name: str,
    *,
    schema: Mapping[str, Any] | None = None,
    mode: str = "warn",
    checks: Mapping[str, str] | None = None,
    allow_missing: bool = True,
    duplicates: bool = True,
    time: str | None = None,
    markers: Sequence[str] = ("",),
    max_removed_share: float = 0.1,
    max_missing_rise: float = 0.2,
    max_unseen_share: float = 0.1,
    max_category_shift: float = 0.5,
    range_tolerance: float = 1.0,
    min_rows: int = 1,
) -> dict[str, Any]:
    """Look at a table, count what is broken, and decide whether it goes on.

    Parameters
    ----------
    df : DataFrame
        It is not changed; `kept_rows` takes the broken rows out.
    step_name : str
        Where in the pipeline this is, for the record.
    schema : mapping, optional
        Of `infer_quality_schema`; without it only duplicates, times and infinite values are
        looked at.
    mode : {'off', 'warn', 'block'}
        The most that a problem does.
    checks : mapping of str to mode, optional
        Checks that are less strict: ``removed``, ``renamed``, ``added``, ``type``, ``unit``,
        ``missing``, ``range``, ``duplicates``, ``time``, ``time_order``, ``category``,
        ``category_drift``, ``too_few``.
    allow_missing : bool
        False: a row in which a column that is not optional is missing is broken.
    duplicates : bool
        Whether a row that is there twice is broken.
    time : str, optional
        Default: that of the schema.
    markers : sequence of str
        Texts that mean "missing".
    max_removed_share : float
        Share of broken rows, of one column or in all, above which it is a problem of the table.
    max_missing_rise : float
        By how much the share of missing values of a column may exceed that of training.
    max_unseen_share : float
        Share of texts that training did not have.
    max_category_shift : float
        Total variation distance (0 to 1) of a column's categories from those of training.
    range_tolerance : float
        How far outside the known range a number may be, in widths of that range.
    min_rows : int

    Returns
    -------
    dict
        ``step``, ``mode``, ``decision`` (``off``, ``ok``, ``warn`` or ``block``), ``problems``
        (check, column, message and severity of each), ``removed`` {reason: rows}, ``removed_rows``
        (their positions), ``n_rows``, ``n_kept`` and ``metrics`` {name: number}.
    """
    for asked in (mode, *(checks or {}).values()):
        if asked not in MODES:
            raise DataValidationError(f"quality mode {asked!r} must be one of {', '.join(MODES)}")
    if not isinstance(df, pd.DataFrame):
        raise DataValidationError(f"{step_name} was given a {type(df).__name__}; give a DataFrame")
    if mode == "off":
        return _report(step_name, mode, len(df), _Findings(), {})
    frame = df.rename(columns=str).reset_index(drop=True)
    found = _Findings()
    if len(frame) < min_rows:
        found.problem("too_few", "", f"{len(frame)} rows are fewer than min_rows {min_rows}")
    known = dict(schema or infer_quality_schema(frame.head(0), columns=()))
    bounds = {"removed": max_removed_share, "missing": max_missing_rise}
    bounds |= {"unseen": max_unseen_share, "shift": max_category_shift}
    plain = pd.DataFrame(
        {name: _plain(frame[name], markers) for name in known["columns"] if name in frame},
        index=frame.index,
    )
    if schema is not None:
        _check_names(frame, known, found)
        units = _check_units(plain, known, found)
        _check_values(plain, known, units, allow_missing, range_tolerance, bounds, found)
        _check_shares(plain, known, bounds, found)
        _check_keys(plain, known.get("keys", []), found)
    else:
        numbers = frame.select_dtypes("number").to_numpy(np.float64, na_value=np.nan)
        found.rows("range", np.isinf(numbers).any(axis=1))
    _check_time(frame, known | ({"time": time} if time else {}), found)
    if duplicates and len(frame):
        found.rows("duplicates", _texts_of_lists(frame).duplicated().to_numpy())
    _check_broken(len(frame), bounds["removed"], found)
    found.metrics["missing_share"] = float(frame.isna().to_numpy().mean()) if frame.size else 0.0
    return _report(step_name, mode, len(frame), found, dict(checks or {}))


def kept_rows(df: pd.DataFrame, report: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that `validate_data_quality` has not called broken, with a fresh index."""
    kept = np.ones(len(df), dtype=bool)
    kept[list(report["removed_rows"])] = False
    return df[kept].reset_index(drop=True)


def _report(
    step: str, mode: str, n_rows: int, found: _Findings, checks: Mapping[str, str]
) -> dict[str, Any]:
    removed: dict[str, int] = {}
    gone = np.zeros(n_rows, dtype=bool)
    for reason, mask in found.broken.items():  # a row counts once, with its first reason
        if min(mode, checks.get(reason, mode), key=MODES.index) == "off":
            continue
        removed[reason] = int((mask & ~gone).sum())
        gone |= mask
    problems = [
        item | {"severity": min(mode, checks.get(item["check"], mode), key=MODES.index)}
        for item in found.problems
    ]
    problems = [item for item in problems if item["severity"] != "off"]
    worst = max((item["severity"] for item in problems), key=MODES.index, default=OK)
    figures = {"n_rows": n_rows, "n_kept": int((~gone).sum()), "n_problems": len(problems)}
    figures |= {f"removed_{reason}": n for reason, n in removed.items()}
    return {
        "step": step,
        "mode": mode,
        "decision": "off" if mode == "off" else worst,
        "problems": problems,
        "removed": {reason: n for reason, n in removed.items() if n},
        "removed_rows": np.flatnonzero(gone).tolist(),
        "n_rows": n_rows,
        "n_kept": figures["n_kept"],
        "metrics": {name: float(value) for name, value in (figures | found.metrics).items()},
    }


def _check_names(frame: pd.DataFrame, schema: Mapping[str, Any], found: _Findings) -> None:
    """Columns that are gone, new, or one under the name of the other."""
    optional = set(schema["optional"])
    gone = [c for c in schema["columns"] if c not in frame.columns and c not in optional]
    new = [c for c in frame.columns if c not in schema["seen"] and c not in schema["columns"]]
    for name in gone:
        other = _likely_name(name, new, frame, schema)
        if other is None:
            found.problem("removed", name, f"column '{name}' is gone")
        else:
            new.remove(other)
            found.problem(
                "renamed", name, f"column '{name}' is gone and '{other}' is new: was it renamed?"
            )
    for name in new:
        found.problem("added", name, f"column '{name}' is new; the model does not use it")


def likely_rename(name: str, frame: pd.DataFrame, schema: Mapping[str, Any]) -> str:
    """`` ('other' is new: was it renamed?)`` of a column that is gone; empty without a likely one.

    Parameters
    ----------
    name : str
    frame : DataFrame
    schema : mapping
        Of `infer_quality_schema`.
    """
    if name not in schema["columns"]:
        return ""
    new = [str(c) for c in frame.columns if c not in schema["seen"] and c not in schema["columns"]]
    other = _likely_name(name, new, frame, schema)
    return "" if other is None else f" ('{other}' is new: was it renamed?)"


def _likely_name(
    name: str, new: Sequence[str], frame: pd.DataFrame, schema: Mapping[str, Any]
) -> str | None:
    """The new column that holds what `name` held: by its name, or the only one by its values."""
    spelled = suggestion(name.lower(), [other.lower() for other in new])
    for other in new:
        if spelled == f" (did you mean '{other.lower()}'?)":
            return other
    alike = [c for c in new if _alike(_describe(_plain(frame[c], ("",))), schema["columns"][name])]
    return alike[0] if len(alike) == 1 else None


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one["kind"] != other["kind"]:
        return False
    if one["kind"] == "number" and one["median"] is not None and other["median"] is not None:
        return bool(other["quartiles"][0] <= one["median"] <= other["quartiles"][1])
    if one["kind"] == "category":
        return sum(one["shares"].get(text, 0.0) for text in other["shares"]) > 0.8
    return False


def _check_units(plain: pd.DataFrame, schema: Mapping[str, Any], found: _Findings) -> set[str]:
    """Columns that are a round factor of what they were."""
    changed = set()
    for name, known in schema["columns"].items():
        if name not in plain or known["kind"] != "number" or not known["median"]:
            continue
        values = pd.to_numeric(plain[name], errors="coerce").to_numpy(np.float64)
        values = values[np.isfinite(values)]
        factor = _unit_factor(values, known) if values.size else None
        if factor is not None:
            changed.add(name)
            way = f"{factor:g} times" if factor > 1 else f"1/{1 / factor:g} of"
            found.problem(
                "unit", name, f"column '{name}' is {way} what it was: was its unit changed?"
            )
    return changed


def _unit_factor(values: np.ndarray, known: Mapping[str, Any]) -> float | None:
    """The factor, if both the level and the spread of the values have changed by it."""
    low, high = known["quartiles"]
    level = float(np.median(values)) / known["median"]
    spread = float(np.subtract(*np.quantile(values, [0.75, 0.25])))
    for factor in (*_UNITS, *(1 / unit for unit in _UNITS)):
        same_level = 1 / _UNIT_SPREAD < level / factor < _UNIT_SPREAD
        wanted = (high - low) * factor
        if same_level and (wanted == 0 or wanted / 3 <= spread <= wanted * 3):
            return factor
    return None


def _check_values(
    plain: pd.DataFrame,
    schema: Mapping[str, Any],
    units: set[str],
    allow_missing: bool,
    tolerance: float,
    bounds: Mapping[str, float],
    found: _Findings,
) -> None:
    """Types, ranges and gaps, row by row, by pandera; a column that fails in many is a problem."""
    optional = set(schema["optional"])
    numbers = [n for n in map(str, plain) if schema["columns"][n]["kind"] == "number"]
    with _pandera() as pa:
        columns: dict[str, Any] = {}
        for name in map(str, plain):
            known = schema["columns"][name]
            nullable = allow_missing or name in optional or known["kind"] in ("text", "time")
            checks = []
            if name in numbers and name not in units and known["median"] is not None:
                room = tolerance * (known["max"] - known["min"] or abs(known["max"]) or 1.0)
                low, high = known["min"] - room, known["max"] + room
                checks = [pa.Check.in_range(low, high)]
            columns[name] = pa.Column(
                "float64" if name in numbers else None,
                checks,
                nullable=nullable,
                coerce=name in numbers,
            )
        try:
            pa.DataFrameSchema(columns).validate(plain, lazy=True)
            cases = None
        except pa.errors.SchemaErrors as error:
            cases = error.failure_cases  # it holds rows' values: only positions leave this function
    if cases is not None:
        at_row = cases[cases["index"].notna()]
        reasons = at_row["check"].map(_reason)
        for (name, reason), group in at_row.groupby(["column", reasons]):
            mask = np.zeros(len(plain), dtype=bool)
            mask[group["index"].to_numpy(dtype=np.int64)] = True
            _note_broken(str(name), str(reason), mask, bounds["removed"], found)


def _reason(check: str) -> str:
    """What pandera's check is called here."""
    if check == "not_nullable":
        return "missing"
    return "range" if check.startswith("in_range") else "type"


def _note_broken(name: str, reason: str, mask: np.ndarray, most: float, found: _Findings) -> None:
    what = {
        "missing": "is missing",
        "range": "is far outside the known range",
        "type": "is not a number",
    }[reason]
    if mask.mean() > most:
        found.problem(reason, name, f"column '{name}' {what} in {_share(mask.mean())} of the rows")
    found.rows(reason, mask)


def _check_shares(
    plain: pd.DataFrame, schema: Mapping[str, Any], bounds: Mapping[str, float], found: _Findings
) -> None:
    """Missing values and categories, as shares of the column."""
    optional = set(schema["optional"])
    unseen_most = shift_most = 0.0
    for name in map(str, plain):
        known = schema["columns"][name]
        gaps = float(plain[name].isna().mean()) if len(plain) else 0.0
        rise = gaps - known.get("missing", 0.0)
        if rise > bounds["missing"] and name not in optional and known["kind"] != "time":
            found.problem(
                "missing",
                name,
                f"column '{name}' is missing in {gaps:.0%} of the rows, "
                f"{known.get('missing', 0.0):.0%} in training",
            )
        if known["kind"] != "category" or gaps == 1.0:
            continue
        shares = _shares(plain[name])
        unseen = sum(share for text, share in shares.items() if text not in known["shares"])
        texts = {*shares, *known["shares"]}
        shift = sum(abs(shares.get(t, 0.0) - known["shares"].get(t, 0.0)) for t in texts) / 2
        unseen_most, shift_most = max(unseen, unseen_most), max(shift, shift_most)
        if unseen > bounds["unseen"]:
            found.problem(
                "category", name, f"column '{name}' holds unknown texts in {unseen:.0%} of the rows"
            )
        elif shift > bounds["shift"]:
            found.problem(
                "category_drift",
                name,
                f"the categories of column '{name}' have shifted by {shift:.0%}",
            )
    found.metrics |= {"unseen_share": unseen_most, "category_shift": shift_most}


def _check_keys(plain: pd.DataFrame, keys: Sequence[str], found: _Findings) -> None:
    """Rows that contradict another one; nobody knows which of them is right."""
    if not keys or not set(keys) <= set(plain):
        return
    again = plain.drop_duplicates().duplicated(list(keys))
    if again.any():
        found.problem(
            "duplicates",
            keys[-1],
            f"{_share(again.sum() / len(plain))} of the rows give a series another value for a "
            "period that it already has",
        )


def _share(share: float) -> str:
    return f"{share:.{0 if share >= 0.01 else 3}%}"  # 0% would read as none


def _check_time(frame: pd.DataFrame, schema: Mapping[str, Any], found: _Findings) -> None:
    """Times that are missing, are no times, go backwards, or are older than those of training."""
    time = schema["time"]
    if time is None or time not in frame or frame.empty:
        return
    keys = _time_keys(frame[time])
    broken = keys.isna().to_numpy()
    found.rows("time", broken)
    if broken.all():
        found.problem("time", time, f"column '{time}' holds no time that can be read")
        return
    present = keys[~broken]
    found.metrics["out_of_order"] = (
        float((present.diff() < present.iloc[0] * 0).sum())
        if (pd.api.types.is_numeric_dtype(present))
        else float((present.diff() < pd.Timedelta(0)).sum())
    )
    newest = schema.get("newest")
    if schema.get("keys") and pd.api.types.is_numeric_dtype(present):
        newest = None  # the years of series, which a history keeps as dates
    if newest is not None and _as_number(present.max()) < newest:
        found.problem(
            "time_order", time, f"every row is older than the newest one of training ('{time}')"
        )


def _check_broken(n_rows: int, most: float, found: _Findings) -> None:
    """Too many broken rows in all, where no column alone has been named for them."""
    for reason, mask in found.broken.items():
        named = any(item["check"] == reason for item in found.problems)
        if not named and n_rows and mask.mean() > most:
            what = {"duplicates": "are there twice", "time": "have no time"}.get(
                reason, f"are broken ({reason})"
            )
            found.problem(reason, "", f"{_share(mask.mean())} of the rows {what}")


@contextmanager
def _pandera() -> Iterator[Any]:
    """pandera, imported where rows are checked and nowhere else: a served model needs none of it.

    If pyspark is installed, pandera imports its pandas interface, now and at the first check, which
    warns that it does not know pandas 3. Nothing here uses that interface.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "PySpark does not yet fully support pandas", category=FutureWarning
        )
        import pandera.pandas as pa

        yield pa


def _describe(column: pd.Series) -> dict[str, Any]:
    gaps = float(column.isna().mean()) if len(column) else 0.0
    present = column.dropna()
    if len(present) and isinstance(present.iloc[0], (list, tuple, dict, np.ndarray)):
        return {"kind": "text", "missing": gaps}
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = present.to_numpy(np.float64)
        return {"kind": "number", "missing": gaps} | _range(values[np.isfinite(values)])
    shares = _shares(column)
    if pd.api.types.is_datetime64_any_dtype(column) or len(shares) > _MOST_CATEGORIES:
        return {"kind": "text", "missing": gaps}
    return {"kind": "category", "missing": gaps, "shares": shares}


def _range(values: np.ndarray) -> dict[str, Any]:
    if not values.size:
        return {"min": None, "max": None, "median": None, "quartiles": None}
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "median": float(median),
        "quartiles": [float(low), float(high)],
    }


def _shares(column: pd.Series) -> dict[str, float]:
    present = column.dropna()
    texts = present.astype(str)
    lowered = texts.str.strip().str.lower().replace(_BOOLEANS)
    if lowered.isin(["true", "false"]).all():
        texts = lowered
    counts = texts.value_counts(normalize=True)
    return {str(text): float(share) for text, share in counts.items()}


def _plain(column: pd.Series, markers: Sequence[str]) -> pd.Series:
    """The column with marker texts as missing, and as numbers if nothing but numbers is left."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return column
    column = column.astype(object)
    column = column.mask(column.isin(list(markers)))
    kind = pd.api.types.infer_dtype(column, skipna=True)
    return pd.to_numeric(column) if kind in _NUMERIC else column


def _texts_of_lists(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with cells of lists as texts, which can be compared."""
    listy = [
        name
        for name in map(str, frame)
        if frame[name].dtype == object
        and frame[name].map(lambda v: isinstance(v, (list, dict, set, np.ndarray))).any()
    ]
    return frame.assign(**{name: frame[name].map(repr) for name in listy}) if listy else frame


def _time_keys(column: pd.Series) -> pd.Series:
    column = column.infer_objects()
    if pd.api.types.is_numeric_dtype(column):
        return column
    keys = column
    if not pd.api.types.is_datetime64_any_dtype(column):
        keys = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    return keys.dt.tz_convert("UTC").dt.tz_localize(None) if keys.dt.tz is not None else keys


def _as_number(value: Any) -> float:
    return value.timestamp() if isinstance(value, pd.Timestamp) else float(value)


def _newest(df: pd.DataFrame, time: str) -> float | None:
    newest = _as_number(_time_keys(df[time]).max())
    return newest if math.isfinite(newest) else None
