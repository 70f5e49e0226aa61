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
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from tsclust_model import __version__, plots
from tsclust_model.analysis.algorithms import (
    Clustering,
    check_parameters,
    eps_place,
    fit_clustering,
    fit_labels,
    require_rows,
    transferred,
    whole_parameters,
)
from tsclust_model.analysis.cache import AnalysisCache
from tsclust_model.analysis.evaluation import (
    Refit,
    evaluate_clustering,
    require_classes,
    silhouette_values,
)
from tsclust_model.analysis.preparation import load_table, prepare
from tsclust_model.analysis.schema import (
    AnalysisRequest,
    PreprocessingConfiguration,
    VisualizationConfiguration,
    parse_request,
)
from tsclust_model.analysis.sweep import Advice, Candidate, Judged, require_best, sweep
from tsclust_model.analysis.tendency import Tendency, clustering_tendency
from tsclust_model.clustering import profiles as cluster_profiles
from tsclust_model.clustering.prepared import Prepared
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ClusteringError, PreprocessingError, counted
from tsclust_model.results import NOISE

SCATTER_ROWS = 5_000

TSNE_ROWS = 2_000

DENDROGRAM_ROWS = 500

_PLOTS = ("scatter_plot", "silhouette_plot", "dendrogram", "cluster_heatmap")

_SHOWN_FEATURES = 3

_CLOSE = 0.02

_ONE_THREAD = 500_000  # numbers up to which a fit is too short for threads

_SHOWN_DIFFERENCE = 0.05

_log = logging.getLogger("tsclust_model.analysis.analyze")


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
    frame = load_table(asked.clustering_data) if table is None else table
    require_rows(wanted.n_clusters, len(frame))
    data = prepare(frame, asked.clustering_data, asked.preprocessing_configuration, seed)
    evaluation = asked.evaluation_configuration
    require_classes(
        data.target, asked.clustering_data.target_variable, evaluation.evaluation_metrics
    )
    X = data.X[data.inlier]
    require_rows(wanted.n_clusters, len(X))
    _event("clustering_started", algorithm=wanted.algorithm, n_rows=len(X), n_dimensions=X.shape[1])
    tendency = None
    if evaluation.cluster_validation or wanted.algorithm == "auto":
        tendency = clustering_tendency(X, seed)
    cache = AnalysisCache(os.environ.get("CLUSTERING_MODEL_CACHE"))
    advice = _advice(asked, X, cache)
    chosen = _chosen(asked, advice, tendency, X)
    with threadpool_limits(limits=1 if X.size <= _ONE_THREAD else threads):
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
        _refit(X, found, seed),
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
            "cluster_profiles": [_by_feature(profile) for profile in profiles],
            "outlier_analysis": cluster_profiles.outlier_analysis(data, everyone.labels, seed),
        },
        "visualizations": _visualizations(asked, data, everyone, profiles, plot_dir),
        "recommendations": _recommendations(advice, tendency, X, found, metrics, profiles, seed),
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
    return PipelineConfig(
        hdbscan_params=parameters,
        cluster_features=statistics["features"],
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
) -> dict[str, Any]:
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


def _cluster(X: np.ndarray, chosen: Mapping[str, Any], random_state: int) -> Clustering:
    return fit_clustering(
        X, chosen["algorithm"], chosen["parameters"], chosen["n_clusters"], random_state
    )


def _refit(X: np.ndarray, found: Clustering, random_state: int) -> Refit:
    """The same clustering of other rows; what its parameters mean is looked up once."""
    fitted = X
    if found.n_fitted < len(X):  # its parameters are those of a sample of so many rows
        rng = np.random.default_rng(random_state)
        fitted = X[rng.choice(len(X), found.n_fitted, replace=False)]
    place = eps_place(found.parameters, fitted, random_state)

    def refit(rows: np.ndarray, seed: int) -> np.ndarray:
        parameters = transferred(found.parameters, fitted, rows, seed, place)
        return fit_labels(rows, found.algorithm, parameters, seed)

    return refit


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
            return f"{counted(found.n_clusters, 'cluster')}; silhouettes need two or more"
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


def _by_feature(profile: dict[str, Any]) -> dict[str, Any]:
    """The characteristics of a profile as an object, what sets it apart most first."""
    figures = {
        item["feature"]: {name: value for name, value in item.items() if name != "feature"}
        for item in profile["characteristics"]
    }
    return profile | {"characteristics": figures}


def _recommendations(
    advice: Advice | None,
    tendency: Tendency | None,
    X: np.ndarray,
    found: Clustering,
    metrics: dict[str, Any],
    profiles: list[dict[str, Any]],
    seed: int,
) -> dict[str, Any]:
    cloud = tendency is not None and not tendency.present
    best = None if advice is None or cloud else advice.best
    suggested: dict[str, Any] = {}
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
            *_about_groups(tendency, found),
            *_about_ranking(advice, cloud),
            *_about_clustering(found, metrics),
            *_about_clusters(profiles),
        ],
        "sweep": [] if advice is None else [_sweep_row(item) for item in advice.judged],
        "sweep_rows": 0 if advice is None else advice.n_rows,
        "sweep_candidates": 0 if advice is None else advice.n_candidates,
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


def _about_groups(tendency: Tendency | None, found: Clustering) -> list[str]:
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
    if found.n_clusters > 1:
        line += f"; the {found.n_clusters} clusters of {found.algorithm} only cut it up"
    return [line]


def _about_ranking(advice: Advice | None, cloud: bool) -> list[str]:
    """What the table of the sweep says, in words."""
    if advice is None:
        return [
            "no other algorithm was tried; clustering_configuration.recommend = true sweeps them, "
            "and algorithm 'auto' takes the best"
        ]
    ranked = [item for item in advice.judged if item.score is not None]
    n_tried = len(advice.judged)
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


def _described(item: Judged) -> str:
    name = item.candidate.algorithm
    linkage = f" ({item.candidate.linkage} linkage)" if item.candidate.linkage else ""
    return f"{name}{linkage} with {counted(item.n_clusters, 'cluster')}"


def _about_clustering(found: Clustering, metrics: dict[str, Any]) -> list[str]:
    lines = []
    folds, null = metrics["cross_validation"], metrics["cluster_validation"]
    if folds is not None and found.n_clusters > 1:
        lines.append(
            f"the clustering at hand ({found.algorithm}, {found.n_clusters} clusters, "
            f"{_percent(found.noise_ratio)} noise) comes back on random subsets with an adjusted "
            f"Rand index of {_rounded(folds['mean_adjusted_rand_score'])} (1 is the same clusters)"
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


def _about_clusters(profiles: list[dict[str, Any]]) -> list[str]:
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
