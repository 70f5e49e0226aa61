"""A performance report as one self-contained HTML page and a model card, from its figures alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tsclust_model.report.groups import SHOWN
from tsclust_model.report.schema import Figures, Segments
from tsclust_model.report.tables import (
    accuracy_table,
    changes_table,
    importance_table,
    method_table,
    number,
    percent,
    resource_tables,
    signed,
    subgroup_table,
    totals_table,
)

SECTIONS = (
    ("model", "The model"),
    ("segments", "Segments"),
    ("gain", "Gain"),
    ("totals", "Totals"),
    ("subgroups", "Subgroups"),
    ("accuracy", "Accuracy"),
    ("importance", "Features"),
    ("drift", "Drift"),
    ("generations", "Generations"),
    ("next", "What next"),
)

_TEMPLATE = "page.html.j2"

_UNKNOWN = "Not known: no row with a known outcome was forecast out of sample."


def render(figures: Figures) -> str:
    """The page: no script, no network, light and dark, also for phones and paper.

    The figures' texts may be anything: they are shown as text.
    """
    model, generations = figures["model"], figures["generations"]
    return _template().render(
        **{key: figures[key] for key in ("model", "segments", "measure", "gain", "totals")},
        **{key: figures[key] for key in ("accuracy", "drift", "generations")},
        **_tables(figures),
        figures=figures,
        sections=SECTIONS,
        shown=SHOWN,
        unknown=_UNKNOWN,
        rows=model["rows_are"].capitalize(),
        tiles=_tiles(figures),
        facts=_facts(model),
        credit=_credited(figures),
        about_segments=_about_segments(model, figures["segments"]),
        about_weight=_about_weight(figures),
        about_columns=_about_columns(figures),
        comparison=generations and generations["comparison"],
    )


def plain_figures(figures: Figures) -> dict[str, Any]:
    """The figures without the pictures' bytes, for the JSON beside the page."""
    pictures = [
        {key: value for key, value in picture.items() if key != "png"}
        for picture in figures["pictures"]
    ]
    return dict(figures) | {"pictures": pictures}


def model_card(figures: Figures) -> str:
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


def run_note(figures: Figures) -> str:
    """What a run did, in Markdown, for its description."""
    model = figures["model"]
    named = f" of {_md(model['model_name'])}" if model.get("model_name") else ""
    version = f", version {_md(model['version'])}" if model.get("version") else ""
    steps = "\n".join(f"- {_md(text)}" for text in figures["next"])
    return (
        f"{model['phase'].capitalize()}{named}{version}. {_quality(figures)}\n\n{steps}\n\n"
        "The whole report is `performance-report.html` among the artifacts."
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"num": number, "pct": percent, "signed": signed, "count": _count}
    return environment.get_template(_TEMPLATE)


def _count(n: int, what: str) -> str:
    return f"{number(n)} {what}" + ("" if n == 1 else "s")


def _tables(figures: Figures) -> dict[str, Any]:
    """The tables of each section, and what stands where there are none."""
    model, measure, gain = figures["model"], figures["measure"], figures["gain"]
    totals, accuracy, rows_are = figures["totals"], figures["accuracy"], model["rows_are"]
    moves = figures["generations"] and figures["generations"]["moves"]
    least = figures["smallest_group"]
    tables: dict[str, Any] = {
        "method_tables": [],
        "totals_tables": {},
        "subgroup_tables": [],
        "accuracy_tables": [],
        "importance_table": importance_table(figures["importance"]),
        "changes_table": moves and changes_table(moves, rows_are),
        "no_planning": totals and len(totals["by"]) == 1 and model["has_groups"],
    }
    if gain and measure:
        tables["method_tables"] = [method_table(one, measure["label"]) for one in gain["tables"]]
    if totals and totals["all"]:
        tables["totals_tables"] = {
            name: [
                totals_table(totals, by, name, rows_are, least)
                for by in totals["by"]
                if by["groups"]
            ]
            for name in totals["outputs"]
        }
    if accuracy and measure:
        own = [accuracy_table(accuracy, measure, rows_are), *resource_tables(accuracy)]
        tables["accuracy_tables"] = own
        subgroups = figures["subgroups"]
        tables["subgroup_tables"] = [subgroup_table(one, measure, rows_are) for one in subgroups]
    return tables


def _tiles(figures: Figures) -> list[tuple[str, str]]:
    """The headline: figures and what they are."""
    segments, accuracy, measure = figures["segments"], figures["accuracy"], figures["measure"]
    rows_are, credit = figures["model"]["rows_are"], _credited(figures)
    n_segments = segments["n_segments"]
    among = f"segment{'' if n_segments == 1 else 's'} in {number(segments['n_rows'])} {rows_are}"
    tiles = [
        (number(n_segments), among),
        (percent(segments["noise_ratio"]), f"noise: {rows_are} in no segment"),
    ]
    if not accuracy or not measure:
        return tiles
    overall, unit = accuracy["all"], f" ({measure['unit']})" if measure["unit"] else ""
    tiles.append((number(overall["value"], 3), f"{measure['label']} out of sample{unit}"))
    if "accuracy" in overall:
        right = "of the rows: the likeliest class was right"
        tiles.append((percent(overall["accuracy"]), right))
    if credit:
        saved = percent(credit["beyond"] if credit["earned"] else 0)
        saved += f" ± {percent(credit['error'])}" if credit["earned"] else ""
        chance = "" if credit["earned"] else ": no more than chance"
        tiles.append((saved, f"of the error saved by segments beyond shuffled ones{chance}"))
    if overall.get("interval_coverage") is not None:
        wanted = percent(accuracy["coverage"], 0)
        tiles.append((percent(overall["interval_coverage"]), f"inside the {wanted} intervals"))
    return tiles


def _credited(figures: Figures) -> Any:
    """What segments save beyond shuffled ones; None where there are no segments."""
    gain = figures["gain"]
    return gain["credit"] if gain and figures["segments"]["n_segments"] else None


def _about_segments(model: Mapping[str, Any], segments: Segments) -> str:
    n_rows, rows_are = number(segments["n_rows"]), model["rows_are"]
    if not segments["n_segments"]:
        return (
            f"No segment was found: all {n_rows} {rows_are} are noise, and the global model serves "
            "them all."
        )
    text = (
        f"{_count(segments['n_segments'], 'segment')}; {number(segments['noise_rows'])} of "
        f"{n_rows} {rows_are} ({percent(segments['noise_ratio'])}) are noise and are assigned "
        "to the nearest segment."
    )
    if segments["silhouette"] is not None:
        text += f" Silhouette {number(segments['silhouette'], 2)} (1 is best)."
    text += (
        " Strength is how firmly the rows belong to it, 0 to 1. Means are compared with those of "
        "all rows, in their standard deviations (SD)."
    )
    if any(segment["representatives"] for segment in segments["shown"]):
        by = "id" if model["show_ids"] else "number (oldest first)"
        text += f" Typical rows are given by {by} only."
    return text


def _about_weight(figures: Figures) -> str:
    gain = figures["gain"]
    if not gain:
        return ""
    n_own, combine = gain["n_own_models"], gain["combine"]
    setting = "" if combine == "blend" else f" (set by combine: {combine})"
    own = "has a model of its own" if n_own == 1 else "have models of their own"
    weight = number(gain["weight"])
    return f"Segments have weight {weight} in the forecast{setting}; {n_own} of them {own}."


def _about_columns(figures: Figures) -> str:
    accuracy = figures["accuracy"]
    if not accuracy:
        return ""
    if "bias" not in accuracy["all"]:
        return (
            "Right is the share of rows whose likeliest class happened; AUC is 0.5 for guessing "
            "and 1 at best."
        )
    wanted = f"{percent(accuracy['coverage'], 0)} of the {figures['model']['rows_are']}"
    text = f"Mean error is forecast minus outcome; {wanted} should be inside their intervals."
    losses = [
        f"{name.upper()} {number(loss)}"
        for name, loss in accuracy["quantile_losses"].items()
        if loss is not None
    ]
    return text + (f" Quantiles 0.1 to 0.9: {', '.join(losses)}." if losses else "")


def _facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the first section says of a model, label by label; what is not known is left out."""
    lineage = model["lineage"]
    sha256 = model["data_sha256"]
    fitted = number(model["n_rows"])
    if model["fitted_rows"] != model["n_rows"]:
        fitted += f" (segments found on a sample of {number(model['fitted_rows'])})"
    counts = (
        ("Holdout rows", "n_holdout"),
        ("Rows evaluated", "n_evaluated"),
        ("Rows trained on", "n_trained_on"),
        ("Rows not scored", "n_not_scored"),
    )
    facts = [
        ("Data", model.get("source")),
        ("Rows fitted", fitted),
        *((label, number(model[key]) if model.get(key) else None) for label, key in counts),
        ("Period", _period(model).removeprefix(", ") or None),
        ("Digest of the data", f"sha256 {sha256[:16]}…" if sha256 else None),
        ("Rows belong to", model["id"]),
        ("Ordered by", model["time"]),
        ("Covariates", model["covariates"]),
        ("Previous version", model.get("replaced")),
        ("Compared with", model.get("baseline")),
        (
            "Segment ids",
            f"{len(lineage['kept'])} kept, {len(lineage['born'])} new, "
            f"{len(lineage['retired'])} gone since the previous version",
        ),
        ("MLflow run", model.get("run_id")),
    ]
    return [(label, str(value)) for label, value in facts if value]


def _period(model: Mapping[str, Any]) -> str:
    period = model.get("period")
    return f", {period[0]} to {period[1]}" if period else ""


def _quality(figures: Figures) -> str:
    accuracy, measure, gain = figures["accuracy"], figures["measure"], figures["gain"]
    if not accuracy or not measure or not gain:
        return "Not measured: no row with a known outcome was forecast out of sample."
    overall, label = accuracy["all"], measure["label"]
    text = f"{label} {number(overall['value'])}"
    if overall["error"] is not None:
        text += f" ± {number(overall['error'], 2)}"
    text += f" on {_md(accuracy['basis'])}"
    shown = [column["name"] for column in measure["columns"]]
    if "mae" in shown and overall["mae"] is not None:
        text += f"; MAE {number(overall['mae'])}"
        text += f", R² {number(overall['r2'])}" if overall["r2"] is not None else ""
    naive = next((w for w in gain["tables"][-1]["ways"] if w["way"] == "naive"), None)
    if naive is not None:
        what = "shares of the classes" if "accuracy" in overall else "median"
        text += f"; without a model, by the {what} of the training rows, {number(naive['value'])}"
    if overall.get("accuracy") is not None:
        text += f"; {percent(overall['accuracy'])} of the classes right"
    covered = overall.get("interval_coverage")
    if covered is not None:
        unit, wanted = figures["model"]["rows_are"], percent(accuracy["coverage"], 0)
        text += f"; {percent(covered)} of the {unit} inside their {wanted} intervals"
    credit = gain["credit"]
    if credit and figures["segments"]["n_segments"]:
        text += f". {_md(credit['sentence'])}"
    return text + "."


def _limits(figures: Figures) -> str:
    segments = figures["segments"]
    rows_are = figures["model"]["rows_are"]
    limits = [
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
        limits.append("served worse: " + ", ".join(worse))
    if not figures["subgroups"] and figures["model"]["has_groups"]:
        limits.append("errors by subgroup were not looked at (`audit_columns`)")
    return "; ".join(limits) + "."


def _md(text: Any) -> str:
    """A name as text in Markdown: one line, nothing of it is markup."""
    plain = " ".join(str(text).split())
    escaped = "".join(f"\\{c}" if c in "\\`*_[]()#!|~" else c for c in plain)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
