"""What an analysis recommends, in figures and in sentences."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

from tsclust_model.analysis.algorithms import Clustering
from tsclust_model.analysis.sweep import Advice, EvaluatedCandidate
from tsclust_model.analysis.tendency import Tendency
from tsclust_model.clustering.profiles import Profile
from tsclust_model.config import Params
from tsclust_model.errors import counted

_SHOWN_FEATURES = 3

_CLOSE = 0.02

_SHOWN_DIFFERENCE = 0.05


class SweepRow(TypedDict):
    """A candidate of the sweep, and what was measured of it; see `EvaluatedCandidate`."""

    algorithm: str
    parameters: Params
    n_clusters: int
    noise_ratio: float
    stability: float | None
    agreement: float | None
    connectivity: float | None
    modularity: float | None
    dbcv: float | None
    silhouette_score: float | None
    mean_rank: float | None
    support: float | None
    score: float | None
    excluded: str | None


class Recommendations(TypedDict):
    """What suits the table, in figures and in sentences."""

    groups: dict[str, Any] | None
    optimal_clusters: int | None
    algorithm_recommendation: str | None
    parameter_suggestions: Params
    interpretation_guidance: list[str]
    sweep: list[SweepRow]
    sweep_rows: int
    sweep_candidates: int


def recommendations(
    advice: Advice | None,
    tendency: Tendency | None,
    X: np.ndarray,
    clustering: Clustering,
    metrics: dict[str, Any],
    profiles: list[Profile],
    seed: int,
) -> Recommendations:
    cloud = tendency is not None and not tendency.present
    best = None if advice is None or cloud else advice.best
    suggested: Params = {}
    if best is not None:
        suggested["parameters"] = best.candidate.parameters(X, seed)
        if best.candidate.n_clusters is not None:
            suggested["n_clusters"] = best.candidate.n_clusters
    optimal = 1 if cloud else None if best is None else best.n_clusters
    return {
        "groups": None if tendency is None else vars(tendency),
        "optimal_clusters": optimal,
        "algorithm_recommendation": None if best is None else best.candidate.algorithm,
        "parameter_suggestions": suggested,
        "interpretation_guidance": [
            *_about_groups(tendency, clustering),
            *_about_ranking(advice, cloud),
            *_about_clustering(clustering, metrics),
            *_about_clusters(profiles),
        ],
        "sweep": [] if advice is None else [_sweep_row(item) for item in advice.evaluated],
        "sweep_rows": 0 if advice is None else advice.n_rows,
        "sweep_candidates": 0 if advice is None else advice.n_candidates,
    }


def _sweep_row(item: EvaluatedCandidate) -> SweepRow:
    return {
        "algorithm": item.candidate.algorithm,
        "parameters": item.parameters,
        "n_clusters": item.n_clusters,
        "noise_ratio": item.noise_ratio,
        "stability": item.stability,
        "agreement": item.agreement,
        "connectivity": item.connectivity,
        "modularity": item.modularity,
        "dbcv": item.dbcv,
        "silhouette_score": item.silhouette,
        "mean_rank": item.mean_rank,
        "support": item.support,
        "score": item.score,
        "excluded": item.excluded,
    }


def _about_groups(tendency: Tendency | None, clustering: Clustering) -> list[str]:
    """That there are none, where there are none."""
    if tendency is None or tendency.present:
        return []
    kind = next(
        kind
        for kind, bounds in tendency.bounds.items()
        if all(tendency.figures[name] <= bound for name, bound in bounds.items())
    )
    cloud = "even" if kind == "uniform" else "bell-shaped"
    line = (
        f"there are no groups: one {cloud} cloud of rows explains this table (its silhouette is "
        f"{tendency.figures['silhouette']:.2f}, and such clouds reach up to "
        f"{tendency.bounds[kind]['silhouette']:.2f} by chance)"
    )
    if clustering.n_clusters > 1:
        line += f"; the {clustering.n_clusters} clusters of {clustering.algorithm} only cut it up"
    return [line]


def _about_ranking(advice: Advice | None, cloud: bool) -> list[str]:
    """What the table of the sweep says, in words."""
    if advice is None:
        return [
            "no other algorithm was tried; clustering_configuration.recommend = true sweeps them, "
            "and algorithm 'auto' takes the best"
        ]
    ranked = [item for item in advice.evaluated if item.score is not None]
    n_tried = len(advice.evaluated)
    cut = []
    if not advice.complete:
        cut = [
            f"{n_tried} of {counted(advice.n_candidates, 'candidate')} of the sweep were tried "
            "within clustering_configuration.time_budget; more time may rank another first"
        ]
    if not ranked:
        tried = counted(n_tried, "candidate")
        return [*cut, f"none of {tried} could be ranked: see 'excluded' in the sweep"]
    if cloud:
        return cut
    best = ranked[0]
    lines = [
        *cut,
        f"{_described(best)} ranks first of {counted(len(ranked), 'ranked candidate')} "
        f"({n_tried} tried) with a score of {best.score:.2f}: refits on "
        f"random four fifths of the rows agree with it by {_rounded(best.stability)} (adjusted "
        f"Rand), other families of algorithms by {_rounded(best.agreement)}, "
        f"and {best.connectivity:.0%} of the nearest rows are in the same cluster"
        + ("" if best.dbcv is None else f"; density validity (DBCV) is {_rounded(best.dbcv)}"),
    ]
    close = [
        item for item in ranked[1:] if float(best.score or 0) - float(item.score or 0) < _CLOSE
    ]
    if close:
        numbers = sorted({item.n_clusters for item in (best, *close)})
        lines.append(
            f"{counted(len(close), 'more candidate')} {'is' if len(close) == 1 else 'are'} within "
            f"{_CLOSE} of it, with {', '.join(map(str, numbers))} clusters: "
            + ("the number of clusters is settled, " if len(numbers) == 1 else "compare them; ")
            + f"next is {_described(close[0])}"
        )
    return lines


def _described(item: EvaluatedCandidate) -> str:
    name = item.candidate.algorithm
    linkage = f" ({item.candidate.linkage} linkage)" if item.candidate.linkage else ""
    return f"{name}{linkage} with {counted(item.n_clusters, 'cluster')}"


def _about_clustering(clustering: Clustering, metrics: dict[str, Any]) -> list[str]:
    lines = []
    folds, null = metrics["cross_validation"], metrics["cluster_validation"]
    if folds is not None and clustering.n_clusters > 1:
        lines.append(
            f"the clustering at hand ({clustering.algorithm}, {clustering.n_clusters} clusters, "
            f"{_percent(clustering.noise_ratio)} noise) comes back on random subsets with an "
            f"adjusted Rand index of {_rounded(folds['mean_adjusted_rand_score'])} "
            "(1 is the same clusters)"
        )
    if null is not None and null["excess"] is not None:
        size = _rounded(abs(null["excess"]))
        side = "above" if null["excess"] > 0 else "below"
        lines.append(
            f"its silhouette is {_rounded(null['silhouette_score'])}, "
            + ("the same as" if size == "0.00" else f"{size} {side}")
            + " that of the same columns shuffled one by one, where there is nothing to find"
        )
    return lines


def _about_clusters(profiles: list[Profile]) -> list[str]:
    lines = []
    for profile in profiles:
        apart = [
            f"{item['feature']} ({item['difference']:+.1f} sd)"
            for item in profile["characteristics"][:_SHOWN_FEATURES]
            if abs(item["difference"]) > _SHOWN_DIFFERENCE
        ]
        lines.append(
            f"cluster {profile['cluster_id']} ({_percent(profile['share'])} of the rows) "
            + (f"is set apart by {', '.join(apart)}" if apart else "has the means of all rows")
        )
    return lines


def _rounded(value: float | None) -> str:
    """Two decimals, and no minus before a zero."""
    return f"{round(float(value or 0), 2) + 0.0:.2f}"


def _percent(share: float) -> str:
    """Whole percents; a little is not none."""
    return "under 1%" if 0 < share < 0.005 else f"{share:.0%}"
