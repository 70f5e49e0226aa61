"""Which clustering suits a table? One request in, one result out.

`analyze` goes one way: load, prepare, sweep, cluster, evaluate, describe, draw, advise. The
request and the result are the models of `analysis_request`; docs/analysis.md has every formula.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from tqdm import tqdm

from tsclust_model import __version__, cluster_profiles, plots
from tsclust_model.advice import Advice, Candidate, Judged, require_best, sweep
from tsclust_model.analysis_cache import AnalysisCache
from tsclust_model.analysis_request import (
    AnalysisRequest,
    VisualizationConfiguration,
    parse_request,
)
from tsclust_model.cluster_evaluation import (
    evaluate_clustering,
    require_classes,
    silhouette_values,
)
from tsclust_model.clusterers import (
    Clustering,
    check_parameters,
    fit_clustering,
    fit_labels,
    transferred,
)
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ClusteringError
from tsclust_model.preparation import Prepared, load_table, prepare
from tsclust_model.results import NOISE

SCATTER_ROWS = 5_000
TSNE_ROWS = 2_000
DENDROGRAM_ROWS = 500
_PLOTS = ("scatter_plot", "silhouette_plot", "dendrogram", "cluster_heatmap")
_SHOWN_FEATURES = 3
_CLOSE = 0.02

_log = logging.getLogger("tsclust_model.analysis")


def analyze(
    request: AnalysisRequest | Mapping[str, Any],
    table: pd.DataFrame | None = None,
    *,
    plot_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Cluster a table as asked, judge it, and say which clustering suits it.

    Parameters
    ----------
    request : mapping or AnalysisRequest
        ``docs/analysis_request.schema.json``.
    table : DataFrame, optional
        Used instead of reading ``clustering_data.data_source``; its index labels the rows.
    plot_dir : path, optional
        Where ``save_plots`` writes; default: PLOT_OUTPUT_DIR, or ``plots``.

    Returns
    -------
    dict
        ``docs/analysis_result.schema.json``: plain values, strict JSON.

    Raises
    ------
    ConfigurationError
        A field of the request is unknown or impossible.
    DataLoadError, PreprocessingError, ClusteringError, EvaluationError

    Examples
    --------
    >>> from tsclust_model import make_hospital
    >>> result = analyze(
    ...     {
    ...         "clustering_data": {"data_source": "hospital", "features": ["age", "creatinine"]},
    ...         "clustering_configuration": {"algorithm": "kmeans", "n_clusters": 3},
    ...         "visualization_configuration": {"generate_plots": False},
    ...     },
    ...     make_hospital(120),
    ... )
    >>> result["clustering_results"]["model_info"]["n_clusters"]
    3
    """
    started, start = _now(), time.perf_counter()
    asked = parse_request(request)
    _require_possible(asked)
    wanted = asked.clustering_configuration
    seed = wanted.random_state
    frame = load_table(asked.clustering_data) if table is None else table
    data = prepare(frame, asked.clustering_data, asked.preprocessing_configuration, seed)
    evaluation = asked.evaluation_configuration
    require_classes(
        data.target, asked.clustering_data.target_variable, evaluation.evaluation_metrics
    )
    X = data.X[data.inlier]
    _event("clustering_started", algorithm=wanted.algorithm, n_rows=len(X), n_dimensions=X.shape[1])
    cache = AnalysisCache(os.environ.get("CLUSTERING_MODEL_CACHE"))
    only = wanted.n_clusters if wanted.algorithm == "auto" else None
    advice = cache.advice(X, seed, only, partial(sweep, watch=_progress))
    chosen = _chosen(asked, advice, X)
    found = cache.clustering(X, chosen, seed, partial(_cluster, X, chosen, seed))
    trained = _now()
    _event(
        "clusters_created",
        algorithm=found.algorithm,
        n_clusters=found.n_clusters,
        noise_ratio=found.noise_ratio,
    )
    metrics = evaluate_clustering(
        X,
        found,
        None if data.target is None else data.target[data.inlier],
        evaluation,
        partial(_refit, X, found),
        seed,
    )
    _event(
        "evaluation_completed",
        **{name: metrics[name] for name in ("silhouette_score", "davies_bouldin_score", "dbcv")},
    )
    everyone = _with_left_out(found, data.inlier)
    profiles = cluster_profiles.profiles(data, everyone.labels)
    results = {
        "model_info": _model_info(asked, found, trained, len(X), data.notes),
        "clusters": {
            "cluster_assignments": cluster_profiles.assignments(
                data.sample_ids, everyone.labels, everyone.confidence
            ),
            "cluster_centers": cluster_profiles.centers(data, everyone.labels),
            "cluster_statistics": cluster_profiles.statistics(data, everyone.labels, seed),
        },
        "evaluation_metrics": metrics,
        "cluster_analysis": {
            "feature_importance": cluster_profiles.feature_importance(data, everyone.labels, seed),
            "cluster_profiles": profiles,
            "outlier_analysis": cluster_profiles.outlier_analysis(data, everyone.labels, seed),
        },
        "visualizations": _visualizations(asked, data, everyone, profiles, plot_dir),
        "recommendations": _recommendations(advice, X, found, metrics, profiles, seed),
    }
    return {
        "clustering_results": results,
        "metadata": {
            "processing_timestamp": started.isoformat(),
            "processing_duration": time.perf_counter() - start,
            "data_statistics": data.statistics,
            "version": __version__,
            "request_metadata": dict(asked.clustering_data.metadata),
        },
    }


async def clustering_analysis_tool(
    request: AnalysisRequest | Mapping[str, Any], table: pd.DataFrame | None = None
) -> dict[str, Any]:
    """`analyze` in a worker thread, so that the event loop goes on.

    Parameters
    ----------
    request : mapping or AnalysisRequest
    table : DataFrame, optional

    Returns
    -------
    dict
        As `analyze`.
    """
    return await asyncio.to_thread(analyze, request, table)


def recommended_config(
    request: AnalysisRequest | Mapping[str, Any], result: Mapping[str, Any]
) -> PipelineConfig:
    """The configuration that trains a pipeline on the recommended clustering.

    The pipeline clusters by HDBSCAN: where another algorithm is recommended, this is the best
    HDBSCAN of the same sweep.

    Parameters
    ----------
    request : mapping or AnalysisRequest
    result : mapping
        What `analyze` returned for it.

    Raises
    ------
    ClusteringError
        The pipeline cannot prepare the rows in that way, or no HDBSCAN was ranked.
    """
    asked = parse_request(request)
    require_promotable(asked)
    advised = result["clustering_results"]["recommendations"]
    statistics = result["metadata"]["data_statistics"]
    ranked = [
        row
        for row in advised["sweep"]
        if row["algorithm"] == "hdbscan" and row["score"] is not None
    ]
    if not ranked:
        raise ClusteringError(
            "promote_to_config needs an HDBSCAN that finds two clusters or more, and the sweep "
            f"of {len(advised['sweep'])} candidates has none; see recommendations.sweep"
        )
    parameters = _for_all_rows(
        ranked[0]["parameters"], advised["sweep_rows"], statistics["n_rows_used"]
    )
    return PipelineConfig(
        hdbscan_params=parameters,
        cluster_features=statistics["features"],
        missing_values="impute" if statistics["n_rows_dropped"] else "error",
        random_state=asked.clustering_configuration.random_state,
    )


def require_promotable(request: AnalysisRequest) -> None:
    """Refuse what the pipeline cannot repeat, before anything is computed.

    Raises
    ------
    ClusteringError
    """
    settings = request.preprocessing_configuration
    for name, needed in (
        ("scaling", "standard"),
        ("dimensionality_reduction", "none"),
        ("outlier_detection", False),
    ):
        value = getattr(settings, name)
        if value != needed:
            raise ClusteringError(
                f"preprocessing_configuration.{name} is {value!r}, which the pipeline does not do; "
                f"ask with {needed!r} to promote_to_config"
            )


def _require_possible(asked: AnalysisRequest) -> None:
    """What can be refused before the table is read."""
    wanted = asked.clustering_configuration
    if wanted.algorithm != "auto":
        check_parameters(wanted.algorithm, wanted.parameters, wanted.n_clusters)
    elif wanted.parameters:
        raise ClusteringError(
            f"clustering_configuration.parameters is {wanted.parameters}, but 'auto' chooses "
            "them; leave them out, or name an algorithm"
        )
    drawing = asked.visualization_configuration
    if drawing.generate_plots and drawing.interactive_plots:
        plots.require_plotly()


def _chosen(asked: AnalysisRequest, advice: Advice, X: np.ndarray) -> dict[str, Any]:
    """Algorithm, parameters and number of clusters to fit."""
    wanted = asked.clustering_configuration
    if wanted.algorithm != "auto":
        return wanted.model_dump(include={"algorithm", "parameters", "n_clusters"})
    best = require_best(advice, len(X)).candidate
    return {
        "algorithm": best.algorithm,
        "parameters": best.parameters(X, wanted.random_state),
        "n_clusters": best.n_clusters,
    }


def _cluster(X: np.ndarray, chosen: Mapping[str, Any], random_state: int) -> Clustering:
    return fit_clustering(
        X, chosen["algorithm"], chosen["parameters"], chosen["n_clusters"], random_state
    )


def _refit(X: np.ndarray, found: Clustering, rows: np.ndarray, random_state: int) -> np.ndarray:
    fitted = X
    if found.n_fitted < len(X):  # its parameters are those of a sample of so many rows
        rng = np.random.default_rng(random_state)
        fitted = X[rng.choice(len(X), found.n_fitted, replace=False)]
    parameters = transferred(found.parameters, fitted, rows, random_state)
    return fit_labels(rows, found.algorithm, parameters, random_state)


def _with_left_out(found: Clustering, inlier: np.ndarray) -> Clustering:
    """Labels and confidences of all rows; those left out are noise."""
    labels = np.full(len(inlier), NOISE, dtype=np.int64)
    confidence = np.zeros(len(inlier))
    labels[inlier], confidence[inlier] = found.labels, found.confidence
    return replace(found, labels=labels, confidence=confidence)


def _model_info(
    asked: AnalysisRequest,
    found: Clustering,
    trained: datetime,
    n_rows: int,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    sample = None
    if found.n_fitted < n_rows:
        nearest = (
            "its own prediction" if found.algorithm == "hdbscan" else "their nearest fitted row"
        )
        sample = {
            "rows_fitted": found.n_fitted,
            "rows_assigned": n_rows - found.n_fitted,
            "how": f"a seeded sample was fitted, the rest is assigned by {nearest}; "
            "min_cluster_size and eps are scaled to the sample",
        }
    return {
        "algorithm": found.algorithm,
        "requested_algorithm": asked.clustering_configuration.algorithm,
        "parameters": found.parameters,
        "n_clusters": found.n_clusters,
        "noise_ratio": found.noise_ratio,
        "training_timestamp": trained.isoformat(),
        "sample": sample,
        "notes": [*notes, *found.notes],
    }


def _visualizations(
    asked: AnalysisRequest,
    data: Prepared,
    found: Clustering,
    profiles: list[dict[str, Any]],
    plot_dir: str | Path | None,
) -> dict[str, Any]:
    drawing = asked.visualization_configuration
    shown: dict[str, Any] = dict.fromkeys(_PLOTS) | {"files": {}, "omitted": {}}
    for name in _PLOTS:
        if not drawing.generate_plots or name not in (drawing.plot_types or _PLOTS):
            shown["omitted"][name] = "not asked for"
            continue
        parts = _plot_parts(name, asked, data, found, profiles)
        if isinstance(parts, str):
            shown["omitted"][name] = parts
            continue
        content, text, suffix = _drawn(name, parts, drawing)
        shown[name] = text
        if drawing.save_plots:
            folder = Path(plot_dir or os.environ.get("PLOT_OUTPUT_DIR") or "plots")
            path = folder / f"{name}.{suffix}"
            plots.save(content, path)
            shown["files"][name] = str(path)
    return shown


def _drawn(
    name: str, parts: dict[str, Any], drawing: VisualizationConfiguration
) -> tuple[Any, str, str]:
    """What is saved, the text in the result, and the suffix of the file."""
    if drawing.interactive_plots:
        figure = plots.interactive(name, **parts)
        return figure, plots.as_html(figure), "html"
    content = plots.as_png(plots.DRAW[name](**parts))
    return content, plots.as_base64(content), "png"


def _plot_parts(
    name: str,
    asked: AnalysisRequest,
    data: Prepared,
    found: Clustering,
    profiles: list[dict[str, Any]],
) -> dict[str, Any] | str:
    """The arguments of a plot, or why there is none."""
    seed = asked.clustering_configuration.random_state
    if name == "scatter_plot":
        tsne = asked.preprocessing_configuration.dimensionality_reduction == "tsne"
        rows = _sampled(len(data.X), TSNE_ROWS if tsne else SCATTER_ROWS, seed)
        points, axes = _two_dimensions(data, found, rows, tsne, seed)
        return {"points": points, "labels": found.labels[rows], "axes": axes}
    if name == "silhouette_plot":
        silhouettes = silhouette_values(data.X, found.labels, seed)
        if silhouettes is None:
            return f"{found.n_clusters} clusters; silhouettes need two or more"
        return {"values": silhouettes[0], "labels": silhouettes[1]}
    if name == "dendrogram":
        return {"X": data.X[_sampled(len(data.X), DENDROGRAM_ROWS, seed)]}
    if not profiles:
        return "there is no cluster"
    place = {feature: i for i, feature in enumerate(data.features)}
    differences = np.zeros((len(profiles), len(place)))
    for profile in profiles:
        for item in profile["characteristics"]:
            differences[profile["cluster_id"], place[item["feature"]]] = item["difference"]
    return {"differences": differences, "features": data.features}


def _two_dimensions(
    data: Prepared, found: Clustering, rows: np.ndarray, tsne: bool, seed: int
) -> tuple[np.ndarray, tuple[str, str]]:
    X = data.X[rows]
    if tsne:
        embedded = TSNE(
            perplexity=min(30.0, (len(X) - 1) / 3),
            init="pca" if X.shape[1] > 1 else "random",
            random_state=seed,
        ).fit_transform(X)
        return embedded, ("t-SNE 1 (distances mean little)", "t-SNE 2")
    if X.shape[1] == 1:
        name = data.features[0] if len(data.features) == 1 else "dimension 1"
        return np.column_stack([X[:, 0], found.confidence[rows]]), (name, "confidence")
    if X.shape[1] == 2:
        if len(data.features) == 2:
            return data.original[rows], (data.features[0], data.features[1])
        return X, ("dimension 1", "dimension 2")
    pca = PCA(2, random_state=seed).fit(data.X)
    first, second = pca.explained_variance_ratio_
    axes = f"component 1 ({first:.0%} of variance)", f"component 2 ({second:.0%})"
    return pca.transform(X), axes


def _recommendations(
    advice: Advice,
    X: np.ndarray,
    found: Clustering,
    metrics: dict[str, Any],
    profiles: list[dict[str, Any]],
    seed: int,
) -> dict[str, Any]:
    best = advice.best
    suggested: dict[str, Any] = {}
    if best is not None:
        suggested["parameters"] = best.candidate.parameters(X, seed)
        if best.candidate.n_clusters is not None:
            suggested["n_clusters"] = best.candidate.n_clusters
    return {
        "optimal_clusters": None if best is None else best.n_clusters,
        "algorithm_recommendation": None if best is None else best.candidate.algorithm,
        "parameter_suggestions": suggested,
        "interpretation_guidance": [
            *_about_ranking(advice),
            *_about_clustering(found, metrics),
            *_about_clusters(profiles),
        ],
        "sweep": [_sweep_row(item) for item in advice.judged],
        "sweep_rows": advice.n_rows,
    }


def _sweep_row(item: Judged) -> dict[str, Any]:
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


def _about_ranking(advice: Advice) -> list[str]:
    """What the table of the sweep says, in words."""
    ranked = [item for item in advice.judged if item.score is not None]
    n_tried = len(advice.judged)
    if not ranked:
        return [f"none of {n_tried} candidates could be ranked: see 'excluded' in the sweep"]
    best = ranked[0]
    lines = [
        f"{_described(best)} ranks first of {len(ranked)} ranked candidates ({n_tried} tried) "
        f"with a score of {best.score:.2f}: refits on "
        f"random four fifths of the rows agree with it by {best.stability:.2f} (adjusted Rand), "
        f"other families of algorithms by {best.agreement:.2f}, and {best.connectivity:.0%} of the "
        "nearest rows are in the same cluster"
        + ("" if best.dbcv is None else f"; density validity (DBCV) is {best.dbcv:.2f}")
    ]
    close = [
        item for item in ranked[1:] if float(best.score or 0) - float(item.score or 0) < _CLOSE
    ]
    if close:
        numbers = sorted({item.n_clusters for item in (best, *close)})
        lines.append(
            f"{len(close)} more candidates are within {_CLOSE} of it, with "
            f"{', '.join(map(str, numbers))} clusters: "
            + ("the number of clusters is settled, " if len(numbers) == 1 else "compare them; ")
            + f"next is {_described(close[0])}"
        )
    return lines


def _described(item: Judged) -> str:
    name = item.candidate.algorithm
    linkage = f" ({item.candidate.linkage} linkage)" if item.candidate.linkage else ""
    return f"{name}{linkage} with {item.n_clusters} clusters"


def _about_clustering(found: Clustering, metrics: dict[str, Any]) -> list[str]:
    lines = []
    folds, null = metrics["cross_validation"], metrics["cluster_validation"]
    if folds is not None:
        lines.append(
            f"the clustering at hand ({found.algorithm}, {found.n_clusters} clusters, "
            f"{found.noise_ratio:.0%} noise) comes back on random subsets with an adjusted Rand "
            f"index of {folds['mean_adjusted_rand_score']:.2f} (1 is the same clusters)"
        )
    if null is not None and null["excess"] is not None:
        lines.append(
            f"its silhouette is {null['silhouette_score']:.2f}, {abs(null['excess']):.2f} "
            f"{'above' if null['excess'] > 0 else 'below'} that of the same columns shuffled one "
            "by one, where there is nothing to find"
        )
    return lines


def _about_clusters(profiles: list[dict[str, Any]]) -> list[str]:
    return [
        f"cluster {profile['cluster_id']} ({profile['share']:.0%} of the rows) is set apart by "
        + ", ".join(
            f"{item['feature']} ({item['difference']:+.1f} sd)"
            for item in profile["characteristics"][:_SHOWN_FEATURES]
        )
        for profile in profiles
    ]


def _for_all_rows(parameters: Mapping[str, Any], n_swept: int, n_rows: int) -> dict[str, Any]:
    size = max(2, round(parameters["min_cluster_size"] * n_rows / n_swept))
    return dict(parameters) | {"min_cluster_size": size}


def _sampled(n: int, most: int, random_state: int) -> np.ndarray:
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(random_state).choice(n, most, replace=False))


def _progress(tried: list[Candidate]) -> Any:
    return tqdm(tried, desc="sweep", unit="candidate", leave=False, disable=None)


def _event(event: str, **figures: Any) -> None:
    _log.info(event, extra={"event": event, **figures})


def _now() -> datetime:
    return datetime.now(UTC)
