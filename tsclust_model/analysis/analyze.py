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
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from tsclust_model import __version__, plots
from tsclust_model.analysis.algorithms import Clustering, fit_clustering, fit_labels
from tsclust_model.analysis.cache import AnalysisCache
from tsclust_model.analysis.drawing import visualizations
from tsclust_model.analysis.evaluation import (
    Refit,
    evaluate_clustering,
    require_classes,
)
from tsclust_model.analysis.guidance import recommendations
from tsclust_model.analysis.parameters import (
    check_parameters,
    eps_place,
    require_rows,
    transferred,
    whole_parameters,
)
from tsclust_model.analysis.preparation import COUNTS_ROWS, load_table, prepare
from tsclust_model.analysis.schema import (
    AnalysisRequest,
    PreprocessingConfiguration,
    parse_request,
)
from tsclust_model.analysis.sweep import Advice, Candidate, require_best, sweep
from tsclust_model.analysis.tendency import Tendency, clustering_tendency
from tsclust_model.clustering import profiles as cluster_profiles
from tsclust_model.clustering.profiles import Prepared, Profile
from tsclust_model.config import Params, PipelineConfig
from tsclust_model.data.frames import as_pandas
from tsclust_model.errors import ClusteringError, PreprocessingError, counted
from tsclust_model.results import NOISE

_ONE_THREAD = 500_000  # numbers up to which a fit is too short for threads

_log = logging.getLogger("tsclust_model.analysis.analyze")


class Chosen(TypedDict):
    """What is fitted."""

    algorithm: str
    parameters: Params
    n_clusters: int | None


class Clusters(TypedDict):
    """Which rows are in which cluster, and what the clusters are like."""

    cluster_assignments: list[cluster_profiles.SampleCluster]
    cluster_centers: list[cluster_profiles.Center]
    cluster_statistics: list[cluster_profiles.Statistics]


class ClusterAnalysis(TypedDict):
    """What tells the clusters apart, and rows that are in none."""

    feature_importance: list[cluster_profiles.Importance]
    cluster_profiles: list[Mapping[str, Any]]
    outlier_analysis: cluster_profiles.Outliers


def analyze(
    request: AnalysisRequest | Mapping[str, Any],
    table: pd.DataFrame | None = None,
    *,
    plot_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Cluster a table as requested, evaluate the result, and say which clustering suits the table.

    Parameters
    ----------
    request : mapping or AnalysisRequest
        ``docs/analysis_request.schema.json``.
    table : DataFrame, optional
        Used instead of reading ``clustering_data.data_source``.
    plot_dir : path, optional
        Where ``save_plots`` writes; default: PLOT_OUTPUT_DIR, or ``plots``.

    Returns
    -------
    dict
        ``docs/analysis_result.schema.json``: plain values, strict JSON.

    Raises
    ------
    ConfigurationError
        A field of the request is unknown or invalid.
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
    # On a busy machine threads wait for each other longer than they work.
    with threadpool_limits(limits=1) as bounded:
        return _analyze(request, table, plot_dir, bounded.get_original_num_threads())


def _analyze(
    request: AnalysisRequest | Mapping[str, Any],
    table: pd.DataFrame | None,
    plot_dir: str | Path | None,
    threads: dict[str, int],
) -> dict[str, Any]:
    """`analyze` in one thread, but for the fit of a large table, which has `threads`."""
    started, start = _now(), time.perf_counter()
    asked = parse_request(request)
    _require_possible(asked)
    wanted = asked.clustering_configuration
    seed = wanted.random_state
    frame = load_table(asked.clustering_data) if table is None else as_pandas(table)
    require_rows(wanted.n_clusters, len(frame))
    data = prepare(frame, asked.clustering_data, asked.preprocessing_configuration, seed)
    evaluation = asked.evaluation_configuration
    require_classes(
        data.target, asked.clustering_data.target_variable, evaluation.evaluation_metrics
    )
    X = data.X[data.inlier]
    require_rows(wanted.n_clusters, len(X))
    _event("clustering_started", algorithm=wanted.algorithm, n_rows=len(X), n_dimensions=X.shape[1])
    cache = AnalysisCache(os.environ.get("CLUSTERING_MODEL_CACHE"))
    tendency = None
    if evaluation.cluster_validation or wanted.algorithm == "auto":
        tendency = cache.tendency(X, seed, clustering_tendency)
    advice = _advice(asked, X, cache)
    chosen = _chosen(asked, advice, tendency, X)
    with threadpool_limits(limits=1 if X.size <= _ONE_THREAD else threads):
        clustering = cache.clustering(X, chosen, seed, partial(_cluster, X, chosen, seed))
    trained = _now()
    facts = ("algorithm", "n_clusters", "noise_ratio")
    _event("clusters_created", **{name: getattr(clustering, name) for name in facts})
    target = None if data.target is None else data.target[data.inlier]
    refit = _refit(X, clustering, seed)
    metrics = evaluate_clustering(X, clustering, target, evaluation, refit, seed)
    _event(
        "evaluation_completed",
        **{name: metrics[name] for name in ("silhouette_score", "davies_bouldin_score", "dbcv")},
    )
    all_rows = _with_left_out(clustering, data.inlier)
    profiles = cluster_profiles.profiles(data, all_rows.labels)
    results = {
        "model_info": _model_info(asked, clustering, trained, len(X), data.notes),
        "clusters": _clusters(data, all_rows, seed),
        "evaluation_metrics": metrics,
        "cluster_analysis": _cluster_analysis(data, all_rows, profiles, seed),
        "visualizations": visualizations(asked, data, all_rows, profiles, plot_dir),
        "recommendations": recommendations(
            advice, tendency, X, clustering, metrics, profiles, seed
        ),
    }
    metadata = {
        "processing_timestamp": started.isoformat(),
        "processing_duration": time.perf_counter() - start,
        "data_statistics": data.statistics,
        "version": __version__,
        "request_metadata": dict(asked.clustering_data.metadata),
    }
    return {"clustering_results": results, "metadata": metadata}


def _clusters(data: Prepared, all_rows: Clustering, seed: int) -> Clusters:
    labels = all_rows.labels
    return {
        "cluster_assignments": cluster_profiles.assignments(
            data.sample_ids, labels, all_rows.confidence
        ),
        "cluster_centers": cluster_profiles.centers(data, labels),
        "cluster_statistics": cluster_profiles.statistics(data, labels, seed),
    }


def _cluster_analysis(
    data: Prepared, all_rows: Clustering, profiles: list[Profile], seed: int
) -> ClusterAnalysis:
    return {
        "feature_importance": cluster_profiles.feature_importance(data, all_rows.labels, seed),
        "cluster_profiles": [_by_feature(profile) for profile in profiles],
        "outlier_analysis": cluster_profiles.outlier_analysis(data, all_rows.labels, seed),
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
    HDBSCAN of the same sweep. Features that the request did not choose are left to the training,
    which knows the outcomes among them.

    Parameters
    ----------
    request : mapping or AnalysisRequest
    result : mapping
        What `analyze` returned for it.

    Raises
    ------
    ClusteringError
        The pipeline cannot prepare the rows in that way, no sweep was asked for, or no HDBSCAN
        was ranked.
    """
    asked = parse_request(request)
    require_promotable(asked)
    advised = result["clustering_results"]["recommendations"]
    if not advised["sweep"]:
        raise ClusteringError(
            "promote_to_config needs the sweep's best HDBSCAN, but no sweep was made; ask with "
            "clustering_configuration.recommend = true"
        )
    statistics = result["metadata"]["data_statistics"]
    ranked = [
        row
        for row in advised["sweep"]
        if row["algorithm"] == "hdbscan" and row["score"] is not None
    ]
    if not ranked:
        raise ClusteringError(
            "promote_to_config needs an HDBSCAN that finds two clusters or more, and the sweep "
            f"of {counted(len(advised['sweep']), 'candidate')} has none; see recommendations.sweep"
        )
    parameters = _for_all_rows(
        ranked[0]["parameters"], advised["sweep_rows"], statistics["n_rows_used"]
    )
    is_chosen = bool(asked.clustering_data.features)
    is_chosen |= asked.preprocessing_configuration.feature_selection
    left_out = statistics["columns_left_out"].items()
    identifiers = [name for name, reason in left_out if reason == COUNTS_ROWS]
    return PipelineConfig(
        hdbscan_params=parameters,
        cluster_features=statistics["features"] if is_chosen else None,
        drop_columns=[] if is_chosen else identifiers,
        missing_values="impute" if statistics["n_rows_dropped"] else "error",
        random_state=asked.clustering_configuration.random_state,
    )


def with_sweep(request: AnalysisRequest) -> AnalysisRequest:
    """The same request with the sweep, which `recommended_config` needs."""
    wanted = request.clustering_configuration.model_copy(update={"recommend": True})
    return request.model_copy(update={"clustering_configuration": wanted})


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
    _require_reduction(asked.preprocessing_configuration)
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


def _require_reduction(settings: PreprocessingConfiguration) -> None:
    kind, number = settings.dimensionality_reduction, settings.n_components
    if number is None or kind in ("pca", "umap") or (kind, number) == ("tsne", 2):
        return
    raise PreprocessingError(
        f"preprocessing_configuration.n_components is {number}, but dimensionality_reduction is "
        f"'{kind}', which reduces nothing that is clustered; name 'pca' or 'umap', or leave it out"
    )


def _advice(asked: AnalysisRequest, X: np.ndarray, cache: AnalysisCache) -> Advice | None:
    """The sweep, where it is wanted."""
    wanted = asked.clustering_configuration
    auto = wanted.algorithm == "auto"
    if not (auto or wanted.recommend):
        return None
    run = partial(sweep, watch=_progress, time_budget=wanted.time_budget)
    return cache.advice(X, wanted.random_state, wanted.n_clusters if auto else None, run)


def _chosen(
    asked: AnalysisRequest, advice: Advice | None, tendency: Tendency | None, X: np.ndarray
) -> Chosen:
    """Algorithm, parameters and number of clusters to fit."""
    wanted = asked.clustering_configuration
    if advice is None or wanted.algorithm != "auto":
        return {
            "algorithm": wanted.algorithm,
            "parameters": whole_parameters(wanted.algorithm, wanted.parameters),
            "n_clusters": wanted.n_clusters,
        }
    if tendency is not None and not tendency.present and wanted.n_clusters is None:
        return {"algorithm": "kmeans", "parameters": {}, "n_clusters": 1}
    best = require_best(advice, len(X)).candidate
    return {
        "algorithm": best.algorithm,
        "parameters": best.parameters(X, wanted.random_state),
        "n_clusters": best.n_clusters,
    }


def _cluster(X: np.ndarray, chosen: Chosen, random_state: int) -> Clustering:
    return fit_clustering(
        X, chosen["algorithm"], chosen["parameters"], chosen["n_clusters"], random_state
    )


def _refit(X: np.ndarray, clustering: Clustering, random_state: int) -> Refit:
    """The same clustering of other rows; what its parameters mean is looked up once."""
    fitted = X
    if clustering.n_fitted < len(X):  # its parameters are those of a sample of so many rows
        rng = np.random.default_rng(random_state)
        fitted = X[rng.choice(len(X), clustering.n_fitted, replace=False)]
    place = eps_place(clustering.parameters, fitted, random_state)

    def refit(rows: np.ndarray, seed: int) -> np.ndarray:
        parameters = transferred(clustering.parameters, fitted, rows, seed, place)
        return fit_labels(rows, clustering.algorithm, parameters, seed)

    return refit


def _with_left_out(clustering: Clustering, inlier: np.ndarray) -> Clustering:
    """Labels and confidences of all rows; those left out are noise."""
    labels = np.full(len(inlier), NOISE, dtype=np.int64)
    confidence = np.zeros(len(inlier))
    labels[inlier], confidence[inlier] = clustering.labels, clustering.confidence
    return replace(clustering, labels=labels, confidence=confidence)


def _model_info(
    asked: AnalysisRequest,
    clustering: Clustering,
    trained: datetime,
    n_rows: int,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    sample = None
    if clustering.n_fitted < n_rows:
        nearest = (
            "its own prediction"
            if clustering.algorithm == "hdbscan"
            else "their nearest fitted row"
        )
        sample = {
            "rows_fitted": clustering.n_fitted,
            "rows_assigned": n_rows - clustering.n_fitted,
            "how": f"a seeded sample was fitted, the rest is assigned by {nearest}; "
            "min_cluster_size and eps are scaled to the sample",
        }
    return {
        "algorithm": clustering.algorithm,
        "requested_algorithm": asked.clustering_configuration.algorithm,
        "parameters": clustering.parameters,
        "n_clusters": clustering.n_clusters,
        "noise_ratio": clustering.noise_ratio,
        "training_timestamp": trained.isoformat(),
        "sample": sample,
        "notes": [*notes, *clustering.notes],
    }


def _by_feature(profile: Profile) -> Mapping[str, Any]:
    """The characteristics of a profile as an object, what sets it apart most first."""
    figures = {
        item["feature"]: {name: value for name, value in item.items() if name != "feature"}
        for item in profile["characteristics"]
    }
    return {**profile, "characteristics": figures}


def _for_all_rows(parameters: Mapping[str, Any], n_swept: int, n_rows: int) -> Params:
    size = max(2, round(parameters["min_cluster_size"] * n_rows / n_swept))
    return dict(parameters) | {"min_cluster_size": size}


def _progress(tried: list[Candidate]) -> Any:
    return tqdm(tried, desc="sweep", unit="candidate", leave=False, disable=None)


def _event(event: str, **figures: Any) -> None:
    _log.info(event, extra={"event": event, **figures})


def _now() -> datetime:
    return datetime.now(UTC)
