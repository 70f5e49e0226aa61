"""The figures of a performance report, as page and model card show them.

No figure is about fewer than `SMALLEST_GROUP` rows, so that none is about a patient: smaller
groups are put together, and smaller segments have no profile. Rows are named by id only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from scipy.stats import norm

from tsclust_model import __version__
from tsclust_model.boosting.segment_gain import gain_sentence, mean_error
from tsclust_model.clustering.profiles import profiles
from tsclust_model.metrics import METRICS
from tsclust_model.models.base import FittedPipeline
from tsclust_model.models.compare import Comparison
from tsclust_model.models.evidence import Evidence, ReportInputs
from tsclust_model.report.groups import (
    SHOWN,
    SMALLEST_GROUP,
    Group,
    segment_changes,
    segment_name,
    shown_groups,
)
from tsclust_model.report.schema import (
    Accuracy,
    Credit,
    Drift,
    Figures,
    Gain,
    Generations,
    GroupErrors,
    GroupTotals,
    Segment,
    Segments,
    Subgroups,
    Totals,
)
from tsclust_model.results import NOISE

FORMAT = 2

TOLD = (
    *("phase", "made_at", "model_name", "version", "run_id", "source", "period", "reason"),
    *("replaced", "baseline", "n_holdout", "n_evaluated", "n_trained_on", "n_not_scored"),
    "covariates",
)
"""What only the caller of `report_figures` knows; None is not shown."""

_HDBSCAN = ("min_cluster_size", "min_samples")
_SETTINGS = (
    *("min_cluster_rows", "combine", "coverage", "missing_values", "noise_threshold"),
    "max_reference_rows",
)

_APART = 3

_WORSE = 0.10

_ALPHA = 0.05


@dataclass(frozen=True)
class Watched:
    """What batches have shown, oldest first.

    Attributes
    ----------
    history : dict of str to list of float
        Values of each metric.
    thresholds : dict of str to float
        Highest value without an alert.
    alerts : list of str
        In words, newest last.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)


def report_figures(
    model: FittedPipeline,
    inputs: ReportInputs,
    about: Mapping[str, Any],
    comparison: Comparison | None,
    watched: Watched,
    names: Mapping[int, str],
) -> Figures:
    """All figures of a report, without what to do next and without pictures.

    Parameters
    ----------
    model : FittedModel
    inputs : ReportInputs
    about : mapping
        What only the caller knows, by the names of `TOLD`.
    comparison : Comparison or None
        Of the generation before with this one.
    watched : Watched
    names : mapping of int to str
        Names that people gave to segments.
    """
    config, evidence = model.info["config"], inputs.evidence
    if evidence is not None and not len(evidence.labels):
        evidence = None
    figures: Figures = {
        "format": FORMAT,
        "package": __version__,
        "smallest_group": SMALLEST_GROUP,
        "model": _model(model, inputs, about),
        "segments": _segments(model, inputs, names),
        "measure": None,
        "gain": _gain(inputs, evidence, config["combine"]),
        "totals": None,
        "subgroups": [],
        "accuracy": None,
        "importance": [
            {"feature": name, "global": everywhere, "served": served}
            for name, (everywhere, served) in inputs.traits.importance.items()
        ],
        "drift": _drift(model, inputs, watched),
        "generations": _generations(model, inputs, comparison),
        "next": [],
        "pictures": [],
    }
    if figures["gain"] is not None:
        metric = model.metric
        figures["measure"] = {
            "name": metric.name,
            "label": metric.label,
            "unit": model.roles.target if metric.squared else "",
            "columns": [] if evidence is None else list(evidence.target.columns),
        }
    if evidence is not None:
        planning = config.get("planning_columns", [])
        figures["totals"] = _totals(evidence, planning, model.coverage, names)
        figures["subgroups"] = _subgroups(evidence, config.get("audit_columns", []))
        figures["accuracy"] = _accuracy(model, evidence, inputs.traits.own_shares, names)
    return figures


def _model(model: FittedPipeline, inputs: ReportInputs, about: Mapping[str, Any]) -> dict[str, Any]:
    info, roles, traits = model.info, model.roles, inputs.traits
    config = info["config"]
    hdbscan = {name: config["hdbscan_params"].get(name) for name in _HDBSCAN}
    return (
        dict.fromkeys(TOLD)
        | inputs.facts
        | dict(about)
        | {
            "target": roles.target,
            "resources": list(roles.resources),
            "features": model.schema.names,
            "cluster_features": traits.clustered,
            "rows_are": model.unit,
            "horizon": roles.horizon,
            "ahead": traits.ahead,
            "has_groups": traits.has_groups,
            "id": roles.id,
            "show_ids": model.shows_ids,
            "time": roles.time,
            "n_rows": info["n_rows"],
            "fitted_rows": info.get("fitted_rows", info["n_rows"]),
            "data_sha256": info.get("data_sha256"),
            "lineage": info["lineage"],
            "settings": hdbscan | {name: config[name] for name in _SETTINGS},
            "reference_rows": len(model.segmentation.density.points),
        }
    )


def _segments(model: FittedPipeline, inputs: ReportInputs, names: Mapping[int, str]) -> Segments:
    """Size, strength and profile of each segment, the largest first."""
    rows = inputs.segments
    clusters, numbered = np.unique(rows.labels[rows.labels != NOISE], return_inverse=True)
    labels = np.full(len(rows.labels), NOISE)
    labels[rows.labels != NOISE] = numbered
    shown: list[Segment] = []
    for cluster, profile in zip(clusters.tolist(), profiles(rows, labels), strict=True):
        members = rows.labels == cluster
        large = int(members.sum()) >= SMALLEST_GROUP
        apart = profile["characteristics"] if large else []
        differences = {item["feature"]: item["difference"] for item in apart}
        shown.append(
            {
                "id": cluster,
                "name": segment_name(cluster, names),
                "rows": int(members.sum()),
                "share": float(members.mean()),
                "fallback_rows": int((rows.served == cluster).sum() - members.sum()),
                "strength": float(rows.strength[members].mean()),
                "own_model": cluster in inputs.traits.own_shares,
                "profile": apart[:_APART],
                "differences": [differences[name] for name in rows.features if large],
                "representatives": profile["representative_samples"][:_APART] if large else [],
            }
        )
    shown.sort(key=lambda segment: -segment["rows"])
    noise = int((rows.labels == NOISE).sum())
    return {
        "n_rows": len(rows.labels),
        "n_segments": len(shown),
        "noise_rows": noise,
        "noise_ratio": noise / max(len(rows.labels), 1),
        "features": rows.features,
        "silhouette": model.info["clustering"].get("silhouette_score"),
        "least_rows": inputs.traits.least_rows,
        "shown": shown,
        "rest": {
            "n": len(shown[SHOWN:]),
            "rows": sum(segment["rows"] for segment in shown[SHOWN:]),
            "share": sum(segment["share"] for segment in shown[SHOWN:]),
        },
    }


def _gain(inputs: ReportInputs, evidence: Evidence | None, combine: str) -> Gain | None:
    tables = [] if inputs.fold_methods is None else [inputs.fold_methods]
    tables += [] if evidence is None else [evidence.methods]
    if not tables:
        return None
    traits, gain = inputs.traits, inputs.traits.gain
    credit = None
    if gain is not None:
        credit = cast("Credit", dict(gain) | {"sentence": gain_sentence(gain, traits.weight)})
    saved = [score["saved"] for score in tables[-1]["ways"] if score["way"] == "blend"]
    return {
        "tables": tables,
        "saved": saved[0] if saved else None,
        "credit": credit,
        "weight": traits.weight,
        "combine": combine,
        "n_own_models": len(traits.own_shares),
    }


def _totals(
    evidence: Evidence, planning: Sequence[str], coverage: float, names: Mapping[int, str]
) -> Totals:
    def row(group: Group) -> GroupTotals:
        totals = {
            name: output.total(group.rows, coverage) for name, output in evidence.outputs.items()
        }
        return {
            "group": group.name,
            "merged": group.merged,
            "n_rows": int(group.rows.sum()),
            "outputs": {
                name: total if total["n_rows"] >= SMALLEST_GROUP else None
                for name, total in totals.items()
            },
        }

    overall = Group("all", np.ones(len(evidence.labels), dtype=bool))
    by = [("segment", shown_groups(evidence.labels, names))]
    by += [
        (name, shown_groups(evidence.groups[name])) for name in planning if name in evidence.groups
    ]
    return {
        "basis": evidence.basis,
        "coverage": coverage,
        "outputs": list(evidence.outputs),
        "all": row(overall) if len(evidence.labels) >= SMALLEST_GROUP else None,
        "by": [{"column": name, "groups": [row(group) for group in groups]} for name, groups in by],
    }


def _subgroups(evidence: Evidence, audit: Sequence[str]) -> list[Subgroups]:
    """Errors by group; `worse` is more than 10% over that of all others, and more than chance."""
    losses = evidence.losses["blend"]
    columns = {
        name: shown_groups(evidence.groups[name]) for name in audit if name in evidence.groups
    }
    n_tests = max(sum(map(len, columns.values())), 1)
    limit = float(norm.isf(_ALPHA / n_tests))

    def compared(group: Group) -> GroupErrors:
        own, others = losses[group.rows], losses[~group.rows]
        ratio, worse = None, False
        if len(others) >= SMALLEST_GROUP and others.mean() > 0:
            ratio = evidence.value(own) / evidence.value(others)
            error = np.hypot(mean_error(own) or 0.0, mean_error(others) or 0.0)
            beyond = own.mean() - others.mean() > limit * error
            worse = bool(beyond and ratio > 1 + _WORSE)
        return _errors(evidence, group) | {"merged": group.merged, "ratio": ratio, "worse": worse}

    return [
        {"column": name, "groups": [compared(group) for group in groups]}
        for name, groups in columns.items()
        if groups
    ]


def _accuracy(
    model: FittedPipeline, evidence: Evidence, own: Mapping[int, float], names: Mapping[int, str]
) -> Accuracy:
    overall = Group(f"all {model.unit}", np.ones(len(evidence.labels), dtype=bool))
    return {
        "basis": evidence.basis,
        "coverage": model.coverage,
        "all": _errors(evidence, overall),
        "segments": [
            _errors(evidence, group)
            | {
                "merged": group.merged,
                "weight": own.get(int(evidence.labels[group.rows][0]), 0.0),
            }
            for group in shown_groups(evidence.labels, names)
        ],
        "resources": list(evidence.resources),
        "quantile_losses": dict(evidence.quantile_losses),
    }


def _errors(evidence: Evidence, group: Group) -> GroupErrors:
    losses = evidence.losses["blend"][group.rows]
    resources: dict[str, dict[str, float | None] | None] = {}
    for name, output in evidence.resources.items():
        known = group.rows & output.known
        errors = output.truth[known] - output.prediction[known]
        resources[name] = None
        if len(errors) >= SMALLEST_GROUP:
            rmse = float(np.sqrt(np.square(errors).mean()))
            resources[name] = {"rmse": rmse, "coverage": output.covered(known)}
    shown = {
        "group": group.name,
        "n_rows": int(group.rows.sum()),
        "value": evidence.value(losses),
        "error": evidence.error(losses),
        "resources": resources,
    }
    return cast("GroupErrors", shown | evidence.target.scores(group.rows))


def _drift(model: FittedPipeline, inputs: ReportInputs, watched: Watched) -> Drift:
    reference, newest = model.reference, inputs.newest
    shown: Drift = {
        "reference": {
            "noise_ratio": reference.noise_ratio,
            "usual_noise": reference.usual_noise,
        },
        "noise_threshold": model.info["config"]["noise_threshold"],
        "newest": None,
        "history": {name: list(values) for name, values in watched.history.items()},
        "thresholds": dict(watched.thresholds),
        "alerts": list(watched.alerts),
    }
    if newest is not None and len(newest.X) >= SMALLEST_GROUP:
        shown["newest"] = {
            "n_rows": len(newest.X),
            "noise_ratio": float(newest.is_noise.mean()),
            "drifted": reference.features.shifted(newest.X),
        }
    return shown


def _generations(
    model: FittedPipeline, inputs: ReportInputs, comparison: Comparison | None
) -> Generations | None:
    if comparison is None and inputs.relabelled is None:
        return None
    return {
        "comparison": None if comparison is None else _compared(comparison),
        "lineage": model.info["lineage"],
        "moves": None if inputs.relabelled is None else segment_changes(*inputs.relabelled),
    }


def _compared(comparison: Comparison) -> dict[str, Any]:
    """A comparison with the standard error of what is saved (delta method)."""
    metric = METRICS[comparison.metric]
    before, error = comparison.champion, comparison.standard_error
    spread = None
    if before and error is not None and np.isfinite(error):
        spread = error / ((2 if metric.squared else 1) * metric.loss(before))
    kept = ("n_rows", "improvement", "margin", "better", "reason")
    return {name: getattr(comparison, name) for name in kept} | {
        "label": metric.label,
        "old": before,
        "new": comparison.challenger,
        "improvement_error": spread,
    }
