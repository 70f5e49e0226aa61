"""The tables of the page as rows of cells, from the figures alone; the template lays them out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tsclust_model.models.evidence import Column, MethodTable
from tsclust_model.report.groups import SHOWN, segment_name
from tsclust_model.report.schema import (
    Accuracy,
    Changes,
    GroupErrors,
    GroupTotals,
    Importance,
    MeasureShown,
    Subgroups,
    Totals,
    TotalsBy,
)
from tsclust_model.shown import one_line

_NOTHING = "–"

_RESOURCES = 3  # side by side


@dataclass(frozen=True)
class Range:
    """A bar from `low` to `high` with a dot and a tick, in percent of the width."""

    label: str
    dot: float
    low: float
    high: float
    tick: float | None = None


@one_line
@dataclass(frozen=True)
class Cell:
    """A text, with small print, a tag, a bar (0 to 1) or a range beside it."""

    text: str = ""
    note: str = ""
    strong: bool = False
    tag: str = ""
    bad: bool = False
    bar: float | None = None
    range: Range | None = None
    span: int = 1


@one_line
@dataclass(frozen=True)
class Table:
    """The first cell of a row is its name, the last is a range if `drawn`; the others are numbers
    to be aligned, or not."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    name: str = ""  # in the caption
    note: str = ""
    numbers: bool = True
    drawn: bool = False


def number(value: float | None, digits: int = 4) -> str:
    """A number for people: as many digits, thousands separated, a dash for None."""
    if value is None:
        return _NOTHING
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share (0 to 1) as a percentage."""
    return _NOTHING if value is None else f"{100 * value:.{digits}f}%"


def signed(value: float | None, digits: int = 3) -> str:
    """A number with its sign."""
    return _NOTHING if value is None else ("+" if value >= 0 else "−") + number(abs(value), digits)


def method_table(table: MethodTable, label: str) -> Table:
    """Each method's error, and what it saves."""
    values = [score["value"] or 0.0 for score in table["ways"]]
    most = (max(values) * 1.1) or 1.0
    rows = []
    for score, value in zip(table["ways"], values, strict=True):
        error = score["error"] or 0.0
        bar = [100 * x / most for x in (value, value - error, value + error)]
        rows.append(
            [
                Cell(score["label"]),
                _with_error(score["value"], score["error"]),
                _with_error(score["saved"], score["saved_error"], share=True),
                Cell(range=Range(f"{score['label']}: {number(score['value'])}", *bar)),
            ]
        )
    return Table(["Method", label, "Saved", "from 0"], rows, f"On {table['basis']}", drawn=True)


def totals_table(totals: Totals, by: TotalsBy, output: str, rows_are: str, least: int) -> Table:
    """An output's totals by group, and (by segment) of all rows."""
    shown = [t for g in by["groups"] if g["merged"] == 1 and (t := g["outputs"][output])]
    high = max([x for t in shown for x in (t["upper"], t["actual"])], default=0.0) * 1.02
    low = min([0.0, *(t["lower"] for t in shown)])

    def row(group: GroupTotals, name: str, drawn: bool) -> list[Cell]:
        total = group["outputs"][output]
        if total is None:
            return [Cell(name), Cell(f"known in fewer than {least} rows", span=4)]
        between = f"{number(total['lower'])} to {number(total['upper'])}"
        bar = None
        if drawn:
            values = (total["expected"], total["lower"], total["upper"], total["actual"])
            places = [100 * (value - low) / ((high - low) or 1.0) for value in values]
            bar = Range(f"{name}: {number(total['expected'])}, {between}", *places)
        expected = Cell(number(total["expected"]), f"({between})", strong=True)
        counts = Cell(number(total["n_rows"]))
        return [Cell(name), counts, expected, Cell(number(total["actual"])), Cell(range=bar)]

    rows = [row(group, group["group"], group["merged"] == 1) for group in by["groups"]]
    if totals["all"] and by is totals["by"][0]:
        rows.append(row(totals["all"], f"all {rows_are}", False))
    axis = "from 0" if low == 0 else ""
    heads = [by["column"], rows_are.capitalize(), "Expected", "Actual", axis]
    note = "(bar: interval, tick: actual)"
    return Table(heads, rows, "by", by["column"], note, drawn=True)


def subgroup_table(column: Subgroups, measure: MeasureShown, rows_are: str) -> Table:
    """Errors of the groups of a column, and by how much they are above those of the others."""
    heads = [column["column"], rows_are.capitalize(), measure["label"], "To the others"]
    rows = []
    for group in column["groups"]:
        ratio, worse = group["ratio"], group["worse"]
        name = Cell(group["group"], tag="served worse" if worse else "", bad=True)
        versus = Cell(_NOTHING if ratio is None else f"× {number(ratio, 3)}")
        rows.append([name, *_errors(group), versus, *_scores(group, measure["columns"])])
    heads += [shown["label"] for shown in measure["columns"]]
    return Table(heads, rows, "by", column["column"])


def accuracy_table(accuracy: Accuracy, measure: MeasureShown, rows_are: str) -> Table:
    """Errors of each segment and of all rows."""
    heads = ["Segment", rows_are.capitalize(), measure["label"]]
    heads += [column["label"] for column in measure["columns"]]
    rows = []
    for group in (*accuracy["segments"], accuracy["all"]):
        share = _NOTHING
        if "weight" in group and group["merged"] == 1:
            share = percent(group["weight"], 0)
        scores = _scores(group, measure["columns"])
        rows.append([Cell(group["group"]), *_errors(group), *scores, Cell(share)])
    return Table([*heads, "Own model's share"], rows)


def resource_tables(accuracy: Accuracy) -> list[Table]:
    """Errors of the resources, three side by side."""
    names = accuracy["resources"]
    tables = []
    for part in (names[i : i + _RESOURCES] for i in range(0, len(names), _RESOURCES)):
        rows = []
        for group in (*accuracy["segments"], accuracy["all"]):
            scores = [group["resources"][name] for name in part]
            rows.append([Cell(group["group"]), *map(_resource, scores)])
        caption = "Resources: RMSE, and share of the rows inside their intervals"
        tables.append(Table(["Segment", *part], rows, caption))
    return tables


def importance_table(importance: Sequence[Importance]) -> Table:
    """The most important features, and the others together."""
    rows = [
        [Cell(row["feature"]), *(Cell(percent(x), bar=x) for x in (row["served"], row["global"]))]
        for row in importance[:SHOWN]
    ]
    others = importance[SHOWN:]
    if others:
        together = (sum(row["served"] for row in others), sum(row["global"] for row in others))
        rows.append([Cell(f"{len(others)} others together"), *(Cell(percent(x)) for x in together)])
    return Table(["Feature", "Served", "Global model"], rows, numbers=False)


def changes_table(changes: Changes, rows_are: str) -> Table:
    """From which segment to which rows went."""
    rows = [
        [
            Cell(segment_name(flow["from"], {})),
            Cell(segment_name(flow["to"], {}), tag="" if flow["from"] == flow["to"] else "changed"),
            Cell(number(flow["rows"])),
        ]
        for flow in changes["flows"]
    ]
    if changes["other_rows"]:
        others = number(changes["other_rows"])
        rows.append([Cell("smaller flows together"), Cell(_NOTHING), Cell(others)])
    return Table(["Before", "Now", rows_are.capitalize()], rows)


def _with_error(value: float | None, error: float | None, share: bool = False) -> Cell:
    text = percent(value) if share else number(value)
    if error is None or value is None:
        return Cell(text)
    return Cell(text, f"± {percent(error) if share else number(error, 2)}")


def _errors(group: GroupErrors) -> Iterable[Cell]:
    return Cell(number(group["n_rows"])), _with_error(group["value"], group["error"])


def _scores(group: Any, columns: Sequence[Column]) -> Iterable[Cell]:
    shown = {"signed": signed, "share": percent, "number": lambda value: number(value, 3)}
    return [Cell(shown[column["format"]](group[column["name"]])) for column in columns]


def _resource(scores: dict[str, float | None] | None) -> Cell:
    if scores is None:
        return Cell(_NOTHING)
    return Cell(number(scores["rmse"]), percent(scores["coverage"]))
