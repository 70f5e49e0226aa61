"""A performance report as one self-contained HTML page and a model card, from its figures alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tsclust_model.report.groups import SHOWN

SECTIONS = (
    ("model", "The model"),
    ("segments", "Segments"),
    ("worth", "Their worth"),
    ("totals", "Totals"),
    ("subgroups", "Subgroups"),
    ("accuracy", "Accuracy"),
    ("importance", "Features"),
    ("drift", "Drift"),
    ("generations", "Generations"),
    ("next", "What next"),
)

_TEMPLATE = "page.html.j2"

_NOTHING = "–"


def render(figures: Mapping[str, Any]) -> str:
    """The page: no script, no network, light and dark, also for phones and paper.

    Parameters
    ----------
    figures : mapping
        Of `report_figures.report_figures`, with ``next`` and ``pictures``. Its texts may be
        anything: they are shown as text.
    """
    return _template().render(
        figures=figures,
        sections=SECTIONS,
        shown=SHOWN,
        facts=_facts(figures["model"]),
        **{
            name: figures[name]
            for name in ("model", "segments", "measure", "worth", "totals", "accuracy", "drift")
        },
    )


def plain_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures without the pictures' bytes, for the JSON beside the page."""
    pictures = [
        {key: value for key, value in picture.items() if key != "png"}
        for picture in figures["pictures"]
    ]
    return dict(figures) | {"pictures": pictures}


def model_card(figures: Mapping[str, Any]) -> str:
    """What a registered version is, in Markdown: data, quality, limits, use and privacy."""
    model, segments = figures["model"], figures["segments"]
    resources = "".join(f", {_md(name)}" for name in model["resources"])
    clustered = ", ".join(_md(name) for name in model["cluster_features"][:SHOWN])
    unit = model["rows_are"]
    lines = [
        f"**What.** Forecasts {_md(model['target'])}{resources} from "
        f"{len(model['features'])} columns, by {segments['n_segments']} density segments "
        f"(HDBSCAN on {clustered}) and LightGBM, blended with one global model.",
        f"**Data.** {number(model['n_rows'])} {unit} from {_md(model.get('source') or 'memory')}"
        f"{_md(_period(model))}; sha256 {(model['data_sha256'] or 'unknown')[:12]}.",
        f"**How good.** {_quality(figures)}",
        f"**Limits.** {_limits(figures)}",
        "**Intended use.** Planning for groups of cases (beds, staff, supplies) by people who read "
        "the intervals. Not for deciding about a single patient, and not for other populations "
        "than that of the data.",
        f"**Privacy.** The model holds {number(model['reference_rows'])} scaled training {unit}: "
        "its neighbour search looks among them. `max_reference_rows` "
        + (
            f"limits them to {number(model['settings']['max_reference_rows'])} here"
            if model["settings"]["max_reference_rows"]
            else "limits how many (not set here)"
        )
        + ". Treat the model as you treat the table.",
    ]
    return "\n\n".join(lines)


def run_note(figures: Mapping[str, Any]) -> str:
    """What a run did, in Markdown, for its description."""
    model = figures["model"]
    named = f" of {_md(model['model_name'])}" if model.get("model_name") else ""
    version = f", version {_md(model['version'])}" if model.get("version") else ""
    steps = "\n".join(f"- {_md(text)}" for text in figures["next"])
    return (
        f"{model['phase'].capitalize()}{named}{version}. {_quality(figures)}\n\n{steps}\n\n"
        "The whole report is `performance-report.html` among the artifacts."
    )


def number(value: float | None, digits: int = 4) -> str:
    """A number for people: as many digits, thousands parted, a dash for None."""
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


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "num": number,
        "pct": percent,
        "signed": signed,
    }
    return environment.get_template(_TEMPLATE)


def _facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the first section says of a model, label by label; what is not known is left out."""
    lineage = model["lineage"]
    sha256 = model["data_sha256"]
    fitted = number(model["n_rows"])
    if model["fitted_rows"] != model["n_rows"]:
        fitted += f" (segments found on a sample of {number(model['fitted_rows'])})"
    found = [
        ("Data", model.get("source")),
        ("Rows fitted", fitted),
        ("Rows held out", number(model["n_holdout"]) if model.get("n_holdout") else None),
        ("Rows evaluated", number(model["n_evaluated"]) if model.get("n_evaluated") else None),
        ("Rows trained on", number(model["n_trained_on"]) if model["n_trained_on"] else None),
        ("Rows not scored", number(model["n_not_scored"]) if model.get("n_not_scored") else None),
        ("Period", _period(model).removeprefix(", ") or None),
        ("Digest of the data", f"sha256 {sha256[:16]}…" if sha256 else None),
        ("Rows belong to", model["id"]),
        ("Ordered by", model["time"]),
        ("Version before", model.get("replaced")),
        ("Compared with", model.get("baseline")),
        (
            "Segment ids",
            f"{len(lineage['kept'])} kept, {len(lineage['born'])} new, "
            f"{len(lineage['retired'])} gone since the last generation",
        ),
        ("MLflow run", model.get("run_id")),
    ]
    return [(label, str(value)) for label, value in found if value]


def _period(model: Mapping[str, Any]) -> str:
    period = model.get("period")
    return f", {period[0]} to {period[1]}" if period else ""


def _quality(figures: Mapping[str, Any]) -> str:
    accuracy = figures["accuracy"]
    if not accuracy:
        return "Not measured: no row with a known outcome was forecast unseen."
    everyone, label = accuracy["all"], figures["measure"]["label"]
    text = f"{label} {number(everyone['value'])}"
    if everyone["error"] is not None:
        text += f" ± {number(everyone['error'], 2)}"
    text += f" on {_md(accuracy['basis'])}"
    if not figures["model"]["horizon"] and everyone.get("mae") is not None:
        text += f"; MAE {number(everyone['mae'])}"
        text += f", R² {number(everyone['r2'])}" if everyone["r2"] is not None else ""
    naive = next((w for w in figures["worth"]["tables"][-1]["ways"] if w["way"] == "naive"), None)
    if naive is not None:
        what = "shares of the classes" if "accuracy" in everyone else "median"
        text += f"; without a model, by the {what} of the training rows, {number(naive['value'])}"
    if everyone.get("accuracy") is not None:
        text += f"; {percent(everyone['accuracy'])} of the classes right"
    covered = everyone.get("interval_coverage")
    if covered is not None:
        unit, wanted = figures["model"]["rows_are"], percent(accuracy["coverage"], 0)
        text += f"; {percent(covered)} of the {unit} inside their {wanted} intervals"
    gain = figures["worth"]["gain"]
    if gain and figures["segments"]["n_segments"]:
        text += f". {_md(gain['sentence'])}"
    return text + "."


def _limits(figures: Mapping[str, Any]) -> str:
    segments = figures["segments"]
    rows_are = figures["model"]["rows_are"]
    found = [
        f"{percent(segments['noise_ratio'])} of the {rows_are} are in no segment and are served as "
        "their nearest one"
    ]
    worse = [
        f"{_md(column['column'])} = {_md(group['group'])} (error × {number(group['ratio'], 3)})"
        for column in figures["subgroups"]
        for group in column["groups"]
        if group["worse"]
    ]
    if worse:
        found.append("served worse: " + ", ".join(worse))
    if not figures["subgroups"] and not figures["model"]["horizon"]:
        found.append("errors by subgroup were not looked at (`audit_columns`)")
    return "; ".join(found) + "."


def _md(text: Any) -> str:
    """A name as text in Markdown: one line, nothing of it is markup."""
    plain = " ".join(str(text).split())
    escaped = "".join(f"\\{c}" if c in "\\`*_[]()#!|~" else c for c in plain)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
