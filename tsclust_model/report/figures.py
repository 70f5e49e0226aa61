"""The figures of a performance report: one JSON-ready dict, which page and model card show.

No figure is about fewer than `SMALLEST_GROUP` rows, so that none is about a patient: smaller
groups are put together, and smaller segments have no profile. Rows are named by id only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import norm

from tsclust_model import __version__
from tsclust_model.boosting.segment_gain import gain_sentence, mean_error, segment_gain
from tsclust_model.clustering import profiles as cluster_profiles
from tsclust_model.clustering.prepared import Prepared
from tsclust_model.metrics import (
    METRICS,
    calculate_classification_metrics,
    calculate_model_metrics,
)
from tsclust_model.mlflow_integration.kinds import AnyGeneration
from tsclust_model.models.compare import Comparison
from tsclust_model.models.evidence import Evidence, OutputRows, SegmentRows, shows_ids
from tsclust_model.monitoring.drift import DriftWindow
from tsclust_model.monitoring.reference import Reference
from tsclust_model.report.groups import SHOWN, SMALLEST_GROUP, Group, segment_name, shown_groups
from tsclust_model.results import NOISE
from tsclust_model.series.features import SHAPE_FEATURES
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.output_model import WAYS as SERIES_WAYS
from tsclust_model.series.output_model import SeriesModel

FORMAT = 1

NUMBER_COLUMNS = [
    {"name": "bias", "label": "Mean error", "format": "signed"},
    {"name": "interval_coverage", "label": "In intervals", "format": "share"},
]

ROW_COLUMNS = [
    {"name": "mae", "label": "MAE", "format": "number"},
    {"name": "r2", "label": "R²", "format": "number"},
    *NUMBER_COLUMNS,
]

CLASS_COLUMNS = [
    {"name": "accuracy", "label": "Right", "format": "share"},
    {"name": "auc", "label": "AUC", "format": "number"},
]
"""What is shown of a group beside the measure."""

TOLD = (
    *("phase", "made_at", "model_name", "version", "run_id", "source", "period", "reason"),
    *("replaced", "baseline", "n_holdout", "n_evaluated", "n_trained_on", "n_not_scored"),
)
"""What only the caller of `report_figures` knows; None is not shown."""

_APART = 3

_WORSE = 0.10

_ALPHA = 0.05

WAYS = {
    "global": "one global model",
    "cluster": "segments' own models alone",
    "blend": "blend (what is served)",
    "control": "blend with shuffled segments (control)",
    "bank": "exponential filters (no model)",
    "theta": "Theta (no model)",
    "seasonal_naive": "the value a season ago",
    "naive": "the training rows' median, or shares of classes (no model)",
    "last_value": "the last value (no model)",
}


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
    generation: AnyGeneration,
    segments: SegmentRows,
    evidence: Evidence | None,
    about: Mapping[str, Any],
    *,
    folds: Evidence | None = None,
    comparison: Comparison | None = None,
    moves: Mapping[str, Any] | None = None,
    newest: DriftWindow | None = None,
    watched: Watched | None = None,
    names: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """All figures of a report.

    Parameters
    ----------
    generation : Generation
    segments : SegmentRows
    evidence : Evidence or None
        None where no row with a known outcome was forecast unseen.
    about : mapping
        What only the caller knows, by the names of `TOLD`.
    folds : Evidence, optional
        Of the fit itself, where `evidence` is of other rows: what segments are worth there.
    comparison : Comparison, optional
        Of the old and the new generation.
    moves : mapping, optional
        See `moved_rows`.
    newest : DriftWindow, optional
        Rows to compare with the training rows.
    watched : Watched, optional
    names : mapping of int to str, optional
        Names that people gave to segments.

    Returns
    -------
    dict
        JSON-ready: ``format``, ``model``, ``segments``, ``worth``, ``totals``, ``subgroups``,
        ``accuracy``, ``importance``, ``drift``, ``generations``; ``next`` and ``pictures`` are
        empty: `report_advice` and `report_pictures` fill them.
    """
    names = dict(names or {})
    planning = generation.info["config"].get("planning_columns", [])
    audit = generation.info["config"].get("audit_columns", [])
    figures: dict[str, Any] = {
        "format": FORMAT,
        "package": __version__,
        "smallest_group": SMALLEST_GROUP,
        "model": _model(generation, about),
        "segments": _segments(generation, segments, names),
        "measure": None,
        "worth": None,
        "totals": None,
        "subgroups": [],
        "accuracy": None,
        "importance": _importance(generation),
        "drift": _drift(generation, newest, watched or Watched()),
        "generations": None,
        "next": [],
        "pictures": [],
    }
    if evidence is not None and len(evidence.labels):
        measure = evidence.measure
        figures |= {
            "measure": {
                "name": measure.name,
                "label": measure.label,
                "unit": measure.unit,
                "columns": _columns(generation, evidence),
            },
            "worth": _worth(generation, [found for found in (folds, evidence) if found]),
            "totals": _totals(evidence, planning, generation.coverage, names),
            "subgroups": _subgroups(evidence, audit),
            "accuracy": _accuracy(generation, evidence, names),
        }
    if isinstance(generation, SeriesGeneration):
        _add_rolling_origins(figures, generation)
    if comparison is not None or moves is not None:
        figures["generations"] = {
            "comparison": None if comparison is None else _compared(comparison),
            "lineage": generation.info["lineage"],
            "moves": None if moves is None else dict(moves),
        }
    return figures


def _columns(generation: AnyGeneration, evidence: Evidence) -> list[dict[str, str]]:
    """What is shown beside the measure; of series a row is a sum, which has no MAE of its own."""
    if evidence.classes:
        return CLASS_COLUMNS
    return NUMBER_COLUMNS if isinstance(generation, SeriesGeneration) else ROW_COLUMNS


def _model(generation: AnyGeneration, about: Mapping[str, Any]) -> dict[str, Any]:
    info, roles = generation.info, generation.roles
    config = info["config"]
    return (
        dict.fromkeys(TOLD)
        | dict(about)
        | {
            "target": roles.target,
            "resources": list(roles.resources),
            "features": generation.schema.names,
            "cluster_features": _clustered(generation),
            "rows_are": _unit(generation),
            "horizon": roles.horizon,
            "id": roles.id,
            "show_ids": shows_ids(generation),
            "time": roles.time,
            "n_rows": info["n_rows"],
            "fitted_rows": info.get("fitted_rows", info["n_rows"]),
            "data_sha256": info.get("data_sha256"),
            "lineage": info["lineage"],
            "settings": {
                "min_cluster_size": config["hdbscan_params"].get("min_cluster_size"),
                "min_samples": config["hdbscan_params"].get("min_samples"),
                "min_cluster_rows": config["min_cluster_rows"],
                "combine": config["combine"],
                "coverage": config["coverage"],
                "missing_values": config["missing_values"],
                "noise_threshold": config["noise_threshold"],
                "max_reference_rows": config["max_reference_rows"],
            },
            "reference_rows": len(generation.segmentation.density.points),
        }
    )


def _segments(
    generation: AnyGeneration, rows: SegmentRows, names: Mapping[int, str]
) -> dict[str, Any]:
    """Size, strength and profile of each segment, the largest first."""
    own_models = _own_models(generation)
    inside = rows.labels != NOISE
    clusters, codes = np.unique(rows.labels[inside], return_inverse=True)
    numbered = np.full(len(rows.labels), NOISE)
    numbered[inside] = codes
    prepared = Prepared(
        rows.X, rows.original, rows.features, rows.ids, inside, None, {}, ()
    )  # what profiles read of an analysis
    found = []
    for cluster, profile in zip(
        clusters.tolist(), cluster_profiles.profiles(prepared, numbered), strict=True
    ):
        members = rows.labels == cluster
        large = int(members.sum()) >= SMALLEST_GROUP
        found.append(
            {
                "id": cluster,
                "name": segment_name(cluster, names),
                "rows": int(members.sum()),
                "share": float(members.mean()),
                "fallback_rows": int((rows.served == cluster).sum() - members.sum()),
                "strength": float(rows.strength[members].mean()),
                "own_model": cluster in own_models,
                "profile": profile["characteristics"][:_APART] if large else [],
                "differences": [
                    item["difference"]
                    for item in sorted(
                        profile["characteristics"],
                        key=lambda item: rows.features.index(item["feature"]),
                    )
                ]
                if large
                else [],
                "representatives": profile["representative_samples"][:_APART] if large else [],
            }
        )
    found.sort(key=lambda segment: -segment["rows"])
    noise = int((rows.labels == NOISE).sum())
    return {
        "n_rows": len(rows.labels),
        "n_segments": len(found),
        "noise_rows": noise,
        "noise_ratio": noise / max(len(rows.labels), 1),
        "features": rows.features,
        "silhouette": generation.info["clustering"].get("silhouette_score"),
        "found": found,
        "rest": {
            "n": len(found[SHOWN:]),
            "rows": sum(segment["rows"] for segment in found[SHOWN:]),
            "share": sum(segment["share"] for segment in found[SHOWN:]),
        },
    }


def _add_rolling_origins(figures: dict[str, Any], generation: SeriesGeneration) -> None:
    """What the fit found out inside the training part, where only the means are kept."""
    metric = generation.metric
    scores = generation.info["scores"][metric.name]
    everyone = scores.get("global")
    ways = [
        {
            "way": way,
            "label": WAYS[way],
            "value": scores[way],
            "error": None,
            "saved": None if way == "global" or not everyone else 1 - scores[way] / everyone,
            "saved_error": None,
        }
        for way in WAYS
        if scores.get(way) is not None
    ]
    table = {"basis": "rolling origins inside the training series", "ways": ways}
    gain = _credited(generation.info["scores"].get("gain"), _weight(generation))
    if figures["worth"] is not None:
        figures["worth"] |= {"tables": [table, *figures["worth"]["tables"]], "gain": gain}
        return
    figures["measure"] = {"name": metric.name, "label": metric.label, "unit": "", "columns": []}
    figures["worth"] = {
        "tables": [table],
        "saved": next((way["saved"] for way in ways if way["way"] == "blend"), None),
        "gain": gain,
        "weight": _weight(generation),
        "combine": generation.info["config"]["combine"],
        "n_own_models": len(_own_models(generation)),
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


def _worth(generation: AnyGeneration, found: Sequence[Evidence]) -> dict[str, Any]:
    """What segments are worth, on each kind of rows; `saved` is on the last of them.

    ``gain`` is what they save beyond shuffled ones on the folds of the fit.
    """
    tables = [{"basis": evidence.basis, "ways": _ways(evidence)} for evidence in found]
    blend = next(way for way in tables[-1]["ways"] if way["way"] == "blend")  # type: ignore[index]
    return {
        "tables": tables,
        "saved": blend["saved"],  # type: ignore[index]
        "gain": _gain(generation, found),
        "weight": _weight(generation),
        "combine": generation.info["config"]["combine"],
        "n_own_models": len(_own_models(generation)),
    }


def _gain(generation: AnyGeneration, found: Sequence[Evidence]) -> dict[str, Any] | None:
    """What segments save beyond shuffled ones, on rows with a control or as training knew it."""
    gain = generation.info.get("segment_gain")
    for evidence in found:
        losses = evidence.losses
        if "control" in losses:
            known = segment_gain(
                *(losses["global"], losses["blend"], losses["control"]),
                root=evidence.measure.root,
                parts=evidence.parts,
                units=evidence.units,
            )
            gain = None if known is None else known.to_dict()
    return _credited(gain, _weight(generation))


def _credited(gain: Mapping[str, Any] | None, weight: float) -> dict[str, Any] | None:
    """The gain with what it says in words."""
    return None if gain is None else dict(gain) | {"sentence": gain_sentence(gain, weight)}


def _ways(evidence: Evidence) -> list[dict[str, Any]]:
    """Each way of forecasting, and what it saves of the global model's error."""
    measure, everyone = evidence.measure, evidence.losses.get("global")
    ways = []
    for way, label in WAYS.items():
        losses = evidence.losses.get(way)
        if losses is None:
            continue
        entry = {
            "way": way,
            "label": label,
            "value": measure.value(losses),
            "error": measure.error(losses, evidence.parts),
            "saved": None,
            "saved_error": None,
        }
        if everyone is not None and way != "global" and everyone.mean() > 0:
            before, after = measure.value(everyone), entry["value"]
            entry["saved"] = 1 - after / before  # type: ignore[operator]
            spread = mean_error(everyone - losses, evidence.parts, evidence.units)
            slope = (2 if measure.root else 1) * float(everyone.mean())
            entry["saved_error"] = None if spread is None else spread / slope
        ways.append(entry)
    return ways


def _totals(
    evidence: Evidence, planning: Sequence[str], coverage: float, names: Mapping[int, str]
) -> dict[str, Any]:
    """Sums of each output over all rows, by segment, and by the planning columns."""

    def row(group: Group) -> dict[str, Any]:
        return {
            "group": group.name,
            "merged": group.merged,
            "n_rows": int(group.rows.sum()),
            "outputs": {
                name: _total(output, group.rows, coverage)
                for name, output in evidence.outputs.items()
            },
        }

    everyone = Group("all", np.ones(len(evidence.labels), dtype=bool))
    chosen = [name for name in planning if name in evidence.groups]
    by = [("segment", shown_groups(evidence.labels, names))]
    by += [(name, shown_groups(evidence.groups[name])) for name in chosen]
    return {
        "basis": evidence.basis,
        "coverage": coverage,
        "outputs": list(evidence.outputs),
        "all": row(everyone) if len(evidence.labels) >= SMALLEST_GROUP else None,
        "by": [{"column": name, "groups": [row(group) for group in groups]} for name, groups in by],
    }


def _total(output: OutputRows, rows: np.ndarray, coverage: float) -> dict[str, float] | None:
    found = output.total(rows, coverage)
    return found if found["n_rows"] >= SMALLEST_GROUP else None


def _subgroups(evidence: Evidence, audit: Sequence[str]) -> list[dict[str, Any]]:
    """Errors by group; `worse` is more than 10% over everybody else's, and more than chance."""
    losses, measure = evidence.losses["blend"], evidence.measure
    known = [name for name in audit if name in evidence.groups]
    columns = [(name, shown_groups(evidence.groups[name])) for name in known]
    columns = [(name, groups) for name, groups in columns if groups]
    n_tests = max(sum(len(groups) for _, groups in columns), 1)
    limit = float(norm.isf(_ALPHA / n_tests))
    found = []
    for name, groups in columns:
        rows = []
        for group in groups:
            own, others = losses[group.rows], losses[~group.rows]
            entry = _errors(evidence, group.rows) | {"group": group.name, "merged": group.merged}
            entry |= {"ratio": None, "worse": False}
            if len(others) >= SMALLEST_GROUP and others.mean() > 0:
                entry["ratio"] = measure.value(own) / measure.value(others)  # type: ignore[operator]
                error = np.hypot(mean_error(own) or 0.0, mean_error(others) or 0.0)
                beyond = own.mean() - others.mean() > limit * error
                entry["worse"] = bool(beyond and entry["ratio"] > 1 + _WORSE)
            rows.append(entry)
        found.append({"column": name, "groups": rows})
    return found


def _accuracy(
    generation: AnyGeneration, evidence: Evidence, names: Mapping[int, str]
) -> dict[str, Any]:
    """Errors and coverage of what is served, in all and by segment."""
    everyone = np.ones(len(evidence.labels), dtype=bool)
    weights = _weights(generation)
    return {
        "basis": evidence.basis,
        "coverage": generation.coverage,
        "all": _errors(evidence, everyone) | {"group": f"all {_unit(generation)}"},
        "segments": [
            _errors(evidence, group.rows)
            | {
                "group": group.name,
                "merged": group.merged,
                "weight": weights.get(int(evidence.labels[group.rows][0]), 0.0),
            }
            for group in shown_groups(evidence.labels, names)
        ],
        "resources": list(evidence.resources),
    }


def _errors(evidence: Evidence, rows: np.ndarray) -> dict[str, Any]:
    target, losses = evidence.target, evidence.losses["blend"][rows]
    resources: dict[str, Any] = {}
    for name in evidence.resources:
        output = evidence.outputs[name]
        known = rows & output.known
        resources[name] = None
        if known.sum() >= SMALLEST_GROUP:
            errors = output.truth[known] - output.prediction[known]
            resources[name] = {
                "rmse": float(np.sqrt(np.square(errors).mean())),
                "coverage": _covered(output, known),
            }
    found: dict[str, Any] = {
        "n_rows": int(rows.sum()),
        "value": evidence.measure.value(losses),
        "error": evidence.measure.error(losses),
        "resources": resources,
    }
    if evidence.classes is not None:
        classes = evidence.classes
        metrics = calculate_classification_metrics(classes.codes[rows], classes.probabilities[rows])
        return found | {name: metrics[name] for name in ("accuracy", "auc")}
    assert target is not None
    known = rows & target.known
    errors = target.prediction[known] - target.truth[known]
    metrics = calculate_model_metrics(target.truth[known], target.prediction[known])
    return found | {
        "mae": metrics["mae"],
        "r2": metrics["r2"],
        "bias": float(errors.mean()) if known.any() else None,
        "interval_coverage": _covered(target, known),
    }


def _covered(output: OutputRows, rows: np.ndarray) -> float | None:
    inside = output.inside[rows]
    inside = inside[np.isfinite(inside)]
    return float(inside.mean()) if inside.size else None


def _importance(generation: AnyGeneration) -> list[dict[str, Any]]:
    """Share of the target's gain of each feature, in the global model and in what is served."""
    if isinstance(generation, SeriesGeneration):
        return []  # its features are windows of the series itself
    model = generation.target
    everyone = _shares(model.global_booster)
    served = everyone
    if model.weight > 0 and model.clusters:
        sizes = {int(k): n for k, n in generation.info["cluster_sizes"].items() if int(k) != NOISE}
        total = max(sum(sizes.values()), 1)
        own = sum(
            _shares(booster) * sizes.get(cluster, 0) / total
            for cluster, booster in model.cluster_boosters.items()
        )
        covered = sum(sizes.get(cluster, 0) for cluster in model.clusters) / total
        served = (1 - model.weight * covered) * everyone + model.weight * own
    names = generation.schema.names
    order = np.argsort(-served, kind="stable")
    return [
        {"feature": names[i], "global": float(everyone[i]), "served": float(served[i])}
        for i in order
    ]


def _own_models(generation: AnyGeneration) -> set[int]:
    """Segments that have a model of their own."""
    return {cluster for cluster in generation.target.texts if cluster != NOISE}


def _weights(generation: AnyGeneration) -> dict[int, float]:
    """Share of its own model in the forecast of each segment."""
    target, own = generation.target, _own_models(generation)
    if isinstance(target, SeriesModel):
        place = SERIES_WAYS.index("cluster")
        return {c: found[place] for c, found in target.shares.items() if c in own}
    return dict.fromkeys(own, target.weight)


def _weight(generation: AnyGeneration) -> float:
    """Share of segments' own models in all."""
    if isinstance(generation, SeriesGeneration):
        return float(generation.info["scores"]["cluster_weight"])
    return generation.target.weight


def _unit(generation: AnyGeneration) -> str:
    """What a row of the report's tables counts."""
    return "series" if isinstance(generation, SeriesGeneration) else "rows"


def _clustered(generation: AnyGeneration) -> list[str]:
    """What segments are found on."""
    if isinstance(generation, SeriesGeneration):
        return [name.replace("_", " ") for name in SHAPE_FEATURES]
    return list(generation.schema.cluster_features)


def _shares(booster: Any) -> np.ndarray:
    gains = np.asarray(booster.feature_importance("gain"), dtype=np.float64)
    return gains / gains.sum() if gains.sum() > 0 else gains


def _drift(
    generation: AnyGeneration, newest: DriftWindow | None, watched: Watched
) -> dict[str, Any]:
    reference: Reference = generation.reference
    found: dict[str, Any] = {
        "reference": {
            "noise_ratio": reference.noise_ratio,
            "usual_noise": reference.usual_noise,
        },
        "noise_threshold": generation.info["config"]["noise_threshold"],
        "newest": None,
        "history": {name: list(values) for name, values in watched.history.items()},
        "thresholds": dict(watched.thresholds),
        "alerts": list(watched.alerts),
    }
    if newest is not None and len(newest.X) >= SMALLEST_GROUP:
        found["newest"] = {
            "n_rows": len(newest.X),
            "noise_ratio": float(newest.is_noise.mean()),
            "moved": reference.features.moved(newest.X),
        }
    return found
