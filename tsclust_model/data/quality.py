"""The data-quality check of new rows: are they what the model was fitted on, and which are broken?

New rows are held against the schema of the training rows with pandera. Broken rows (a duplicate, a
string in a column of numbers, a value far outside the known range) are removed and counted by
reason; what is wrong with the table as a whole (a column that is gone or has another unit, too many
broken rows) is a problem, and problems warn or block. The texts name columns and shares, never
values.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from tsclust_model.data.columns import OK, is_nested, named_strings, numbers_or_times
from tsclust_model.data.frames import as_pandas
from tsclust_model.data.quality_schema import (
    QualitySchema,
    as_seconds,
    category_shares,
    describe,
    infer_quality_schema,
    plain_column,
)
from tsclust_model.errors import DataValidationError, closest
from tsclust_model.shown import one_line

MODES = ("off", "warn", "block")

SCHEMA_CHECKS = ("removed", "renamed", "type", "unit")
"""Checks that say the table is another one than the model knows."""

_UNITS = (1e2, 1e3, 1e6)

_UNIT_SPREAD = 1.5


class QualityProblem(TypedDict):
    """Something wrong with a table; `column` is empty where it is no single one."""

    check: str
    column: str
    message: str
    severity: str


class QualityReport(TypedDict):
    """Of `validate_data_quality`.

    ``decision`` is off, ok, warn or block; ``removed`` are rows by reason, ``removed_rows`` their
    positions.
    """

    step: str
    mode: str
    decision: str
    problems: list[QualityProblem]
    removed: dict[str, int]
    removed_rows: list[int]
    n_rows: int
    n_kept: int
    metrics: dict[str, float]


@one_line
@dataclass(frozen=True)
class _Limits:
    """What counts as broken, and as a problem of the table; see `validate_data_quality`."""

    allow_missing: bool
    duplicates: bool
    time: str | None
    markers: Sequence[str]
    max_removed_share: float
    max_missing_rise: float
    max_unseen_share: float
    max_category_shift: float
    range_tolerance: float
    min_rows: int


@one_line
@dataclass
class _Findings:
    """What one look at a table collects; `broken` holds masks of rows by reason."""

    problems: list[tuple[str, str, str]] = field(default_factory=list)
    broken: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def problem(self, check: str, column: str, message: str) -> None:
        self.problems.append((check, column, message))

    def rows(self, reason: str, mask: np.ndarray) -> None:
        if mask.any():
            self.broken[reason] = self.broken.get(reason, np.zeros(len(mask), dtype=bool)) | mask


def validate_data_quality(
    df: pd.DataFrame,
    step_name: str,
    *,
    schema: QualitySchema | None = None,
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
) -> QualityReport:
    """Check a table, count broken rows, and decide whether it may be used; see `QualityReport`.

    Parameters
    ----------
    df : DataFrame
        It is not changed; `kept_rows` takes the broken rows out.
    step_name : str
        Where in the pipeline this is, for the record.
    schema : mapping, optional
        From `infer_quality_schema`; without it, only duplicates, times and infinities are checked.
    mode : {'off', 'warn', 'block'}
        What a failed check does at most.
    checks : mapping of str to mode, optional
        Checks with a less strict mode: ``removed``, ``renamed``, ``added``, ``type``, ``unit``,
        ``missing``, ``range``, ``duplicates``, ``time``, ``time_order``, ``category``,
        ``category_drift``, ``too_few``.
    allow_missing, duplicates : bool
        Whether a row may lack a column that is not optional, and whether a copy is broken.
    time, markers
        The column of times (default: the schema's), and strings that mean "missing".
    max_removed_share, max_missing_rise, max_unseen_share, max_category_shift : float
        The most that is no problem, 0 to 1: broken rows of one column or in all; missing values
        above training's share; strings that training did not have; total variation distance of a
        column's categories from training's.
    range_tolerance : float
        How far outside the known range a number may be, in widths of that range.
    min_rows : int
    """
    for asked in (mode, *(checks or {}).values()):
        if asked not in MODES:
            raise DataValidationError(f"quality mode {asked!r} must be one of {', '.join(MODES)}")
    df = as_pandas(df)
    if not isinstance(df, pd.DataFrame):
        raise DataValidationError(f"{step_name} was given a {type(df).__name__}; give a DataFrame")
    limits = _Limits(
        allow_missing, duplicates, time, markers, max_removed_share, max_missing_rise,
        max_unseen_share, max_category_shift, range_tolerance, min_rows,
    )  # fmt: skip
    findings = _Findings()
    if mode != "off":
        _look(named_strings(df).reset_index(drop=True), schema, limits, findings)
    return _report(step_name, mode, len(df), findings, dict(checks or {}))


def kept_rows(df: pd.DataFrame, report: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that `validate_data_quality` has not called broken, with a fresh index."""
    kept = np.ones(len(df), dtype=bool)
    kept[list(report["removed_rows"])] = False
    return df[kept].reset_index(drop=True)


def likely_rename(name: str, frame: pd.DataFrame, schema: QualitySchema) -> str:
    """`` ('other' is new: was it renamed?)`` of a column that is gone, or nothing."""
    if name not in schema["columns"]:
        return ""
    other = _likely_name(name, _new_columns(frame, schema), frame, schema)
    return "" if other is None else f" ('{other}' is new: was it renamed?)"


def _look(
    frame: pd.DataFrame, schema: QualitySchema | None, limits: _Limits, findings: _Findings
) -> None:
    if len(frame) < limits.min_rows:
        findings.problem(
            "too_few", "", f"{len(frame)} rows are fewer than min_rows {limits.min_rows}"
        )
    if schema is None:
        numbers = frame.select_dtypes("number").to_numpy(np.float64, na_value=np.nan)
        findings.rows("range", np.isinf(numbers).any(axis=1))
        schema = infer_quality_schema(frame.head(0), columns=())
    else:
        columns = [name for name in schema["columns"] if name in frame]
        plain = pd.DataFrame(
            {name: plain_column(frame[name], limits.markers) for name in columns},
            index=frame.index,
        )
        _check_names(frame, schema, findings)
        units = _check_units(plain, schema, findings)
        _check_values(plain, schema, units, limits, findings)
        _check_shares(plain, schema, limits, findings)
        _check_keys(plain, schema.get("keys", []), findings)
    _check_time(frame, schema, limits.time or schema["time"], findings)
    if limits.duplicates and len(frame):
        findings.rows("duplicates", _comparable(frame).duplicated().to_numpy())
    _check_broken(len(frame), limits.max_removed_share, findings)
    gaps = float(frame.isna().to_numpy().mean()) if frame.size else 0.0
    findings.metrics["missing_share"] = gaps


def _report(
    step: str, mode: str, n_rows: int, findings: _Findings, checks: Mapping[str, str]
) -> QualityReport:
    def severity(check: str) -> str:
        return min(mode, checks.get(check, mode), key=MODES.index)

    removed: dict[str, int] = {}
    gone = np.zeros(n_rows, dtype=bool)
    for reason, mask in findings.broken.items():  # a row counts once, with its first reason
        if severity(reason) != "off":
            removed[reason] = int((mask & ~gone).sum())
            gone |= mask
    problems: list[QualityProblem] = [
        {"check": check, "column": column, "message": message, "severity": severity(check)}
        for check, column, message in findings.problems
        if severity(check) != "off"
    ]
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
        "metrics": {name: float(value) for name, value in (figures | findings.metrics).items()},
    }


def _new_columns(frame: pd.DataFrame, schema: QualitySchema) -> list[str]:
    known = {*schema["seen"], *schema["columns"]}
    return [name for name in map(str, frame.columns) if name not in known]


def _check_names(frame: pd.DataFrame, schema: QualitySchema, findings: _Findings) -> None:
    """Columns that are gone, new, or one under the name of the other."""
    known = [name for name in schema["columns"] if name not in schema["optional"]]
    new = _new_columns(frame, schema)
    for name in known:
        if name in frame.columns:
            continue
        other = _likely_name(name, new, frame, schema)
        if other is None:
            findings.problem("removed", name, f"column '{name}' is gone")
        else:
            new.remove(other)
            findings.problem(
                "renamed", name, f"column '{name}' is gone and '{other}' is new: was it renamed?"
            )
    for name in new:
        findings.problem("added", name, f"column '{name}' is new; the model does not use it")


def _likely_name(
    name: str, new: Sequence[str], frame: pd.DataFrame, schema: QualitySchema
) -> str | None:
    """The new column that holds what `name` held: by its name, or the only one by its values."""
    spelled = closest(name.lower(), [other.lower() for other in new])
    if spelled is not None:
        return next(other for other in new if other.lower() == spelled)
    known = schema["columns"][name]
    alike = [other for other in new if _alike(describe(plain_column(frame[other], ("",))), known)]
    return alike[0] if len(alike) == 1 else None


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one["kind"] != other["kind"]:
        return False
    if one["kind"] == "number" and one["median"] is not None and other["median"] is not None:
        return bool(other["quartiles"][0] <= one["median"] <= other["quartiles"][1])
    if one["kind"] == "category":
        return sum(one["shares"].get(text, 0.0) for text in other["shares"]) > 0.8
    return False


def _check_units(plain: pd.DataFrame, schema: QualitySchema, findings: _Findings) -> set[str]:
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
            findings.problem(
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
    schema: QualitySchema,
    units: set[str],
    limits: _Limits,
    findings: _Findings,
) -> None:
    """Types, ranges and gaps, row by row, by pandera; a column that fails in many is a problem."""
    optional = set(schema["optional"])
    with _pandera() as pa:
        columns: dict[str, Any] = {}
        for name in map(str, plain):
            known = schema["columns"][name]
            is_number, checks = known["kind"] == "number", []
            nullable = limits.allow_missing or name in optional or known["kind"] in ("text", "time")
            if is_number and name not in units and known["median"] is not None:
                width = known["max"] - known["min"] or abs(known["max"]) or 1.0
                room = limits.range_tolerance * width
                checks = [pa.Check.in_range(known["min"] - room, known["max"] + room)]
            dtype = "float64" if is_number else None
            columns[name] = pa.Column(dtype, checks, nullable=nullable, coerce=is_number)
        try:
            pa.DataFrameSchema(columns).validate(plain, lazy=True)
            return
        except pa.errors.SchemaErrors as error:
            cases = error.failure_cases  # it holds rows' values: only positions leave this function
    at_row = cases[cases["index"].notna()]
    for (name, reason), group in at_row.groupby(["column", at_row["check"].map(_reason)]):
        mask = np.zeros(len(plain), dtype=bool)
        mask[group["index"].to_numpy(dtype=np.int64)] = True
        _note_broken(str(name), str(reason), mask, limits.max_removed_share, findings)


def _reason(check: str) -> str:
    """What pandera's check is called here."""
    if check == "not_nullable":
        return "missing"
    return "range" if check.startswith("in_range") else "type"


def _note_broken(
    name: str, reason: str, mask: np.ndarray, most: float, findings: _Findings
) -> None:
    what = {
        "missing": "is missing",
        "range": "is far outside the known range",
        "type": "is not a number",
    }[reason]
    if mask.mean() > most:
        share = _share(mask.mean())
        findings.problem(reason, name, f"column '{name}' {what} in {share} of the rows")
    findings.rows(reason, mask)


def _check_shares(
    plain: pd.DataFrame, schema: QualitySchema, limits: _Limits, findings: _Findings
) -> None:
    """Missing values and categories, as shares of the column."""
    unseen_most = shift_most = 0.0
    for name in map(str, plain):
        known = schema["columns"][name]
        gaps = float(plain[name].isna().mean()) if len(plain) else 0.0
        usual = known.get("missing", 0.0)
        wanted = name not in schema["optional"] and known["kind"] != "time"
        if wanted and gaps - usual > limits.max_missing_rise:
            findings.problem(
                "missing",
                name,
                f"column '{name}' is missing in {gaps:.0%} of the rows, {usual:.0%} in training",
            )
        if known["kind"] != "category" or gaps == 1.0:
            continue
        shares = category_shares(plain[name])
        unseen = sum(share for text, share in shares.items() if text not in known["shares"])
        texts = {*shares, *known["shares"]}
        shift = sum(abs(shares.get(t, 0.0) - known["shares"].get(t, 0.0)) for t in texts) / 2
        unseen_most, shift_most = max(unseen, unseen_most), max(shift, shift_most)
        if unseen > limits.max_unseen_share:
            findings.problem(
                "category", name, f"column '{name}' holds unknown texts in {unseen:.0%} of the rows"
            )
        elif shift > limits.max_category_shift:
            findings.problem(
                "category_drift",
                name,
                f"the categories of column '{name}' have shifted by {shift:.0%}",
            )
    findings.metrics |= {"unseen_share": unseen_most, "category_shift": shift_most}


def _check_keys(plain: pd.DataFrame, keys: Sequence[str | None], findings: _Findings) -> None:
    """Rows that contradict another one; nobody knows which of them is right."""
    if not keys or not set(keys) <= set(plain):
        return
    again = plain.drop_duplicates().duplicated(list(keys))
    if again.any():
        findings.problem(
            "duplicates",
            str(keys[-1]),
            f"{_share(again.sum() / len(plain))} of the rows give a series another value for a "
            "period that it already has",
        )


def _share(share: float) -> str:
    return f"{share:.{0 if share >= 0.01 else 3}%}"  # 0% would read as none


def _check_time(
    frame: pd.DataFrame, schema: QualitySchema, time: str | None, findings: _Findings
) -> None:
    """Times that are missing, are no times, go backwards, or are older than those of training."""
    if time is None or time not in frame or frame.empty:
        return
    keys = numbers_or_times(frame[time], "coerce")
    broken = keys.isna().to_numpy()
    findings.rows("time", broken)
    if broken.all():
        findings.problem("time", time, f"column '{time}' holds no time that can be read")
        return
    present = keys[~broken]
    are_numbers = pd.api.types.is_numeric_dtype(present)
    backwards = present.diff() < (0 if are_numbers else pd.Timedelta(0))
    findings.metrics["out_of_order"] = float(backwards.sum())
    newest = schema.get("newest")
    if schema.get("keys") and are_numbers:
        newest = None  # the years of series, which a history keeps as dates
    if newest is not None and as_seconds(present.max()) < newest:
        findings.problem(
            "time_order", time, f"every row is older than the newest one of training ('{time}')"
        )


def _check_broken(n_rows: int, most: float, findings: _Findings) -> None:
    """Too many broken rows in all, where no column alone has been named for them."""
    named = {check for check, _, _ in findings.problems}
    for reason, mask in findings.broken.items():
        if reason not in named and n_rows and mask.mean() > most:
            what = {"duplicates": "are there twice", "time": "have no time"}.get(
                reason, f"are broken ({reason})"
            )
            findings.problem(reason, "", f"{_share(mask.mean())} of the rows {what}")


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


def _comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with nested cells as strings, which can be compared."""
    nested = [
        name
        for name in map(str, frame)
        if frame[name].dtype == object and frame[name].map(is_nested).any()
    ]
    return frame.assign(**{name: frame[name].map(repr) for name in nested}) if nested else frame
