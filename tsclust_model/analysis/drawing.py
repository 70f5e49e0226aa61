"""The plots of an analysis: what each shows, or why it is left out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from tsclust_model import plots
from tsclust_model.analysis.algorithms import Clustering
from tsclust_model.analysis.evaluation import (
    silhouette_values,
)
from tsclust_model.analysis.schema import (
    AnalysisRequest,
    VisualizationConfiguration,
)
from tsclust_model.clustering.profiles import Prepared, Profile
from tsclust_model.errors import counted

SCATTER_ROWS = 5_000

TSNE_ROWS = 2_000

DENDROGRAM_ROWS = 500

_PLOTS = ("scatter_plot", "silhouette_plot", "dendrogram", "cluster_heatmap")


def visualizations(
    asked: AnalysisRequest,
    data: Prepared,
    clustering: Clustering,
    profiles: list[Profile],
    plot_dir: str | Path | None,
) -> Mapping[str, Any]:
    drawing = asked.visualization_configuration
    shown: dict[str, Any] = dict.fromkeys(_PLOTS) | {"files": {}, "omitted": {}}
    for name in _PLOTS:
        if not drawing.generate_plots or name not in (drawing.plot_types or _PLOTS):
            shown["omitted"][name] = "not asked for"
            continue
        parts = _plot_parts(name, asked, data, clustering, profiles)
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
    clustering: Clustering,
    profiles: list[Profile],
) -> dict[str, Any] | str:
    """The arguments of a plot, or why there is none."""
    seed = asked.clustering_configuration.random_state
    if name == "scatter_plot":
        tsne = asked.preprocessing_configuration.dimensionality_reduction == "tsne"
        rows = _sampled(len(data.X), TSNE_ROWS if tsne else SCATTER_ROWS, seed)
        points, axes = _two_dimensions(data, clustering, rows, tsne, seed)
        return {"points": points, "labels": clustering.labels[rows], "axes": axes}
    if name == "silhouette_plot":
        silhouettes = silhouette_values(data.X, clustering.labels, seed)
        if silhouettes is None:
            return f"{counted(clustering.n_clusters, 'cluster')}; silhouettes need two or more"
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
    data: Prepared, clustering: Clustering, rows: np.ndarray, tsne: bool, seed: int
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
        return np.column_stack([X[:, 0], clustering.confidence[rows]]), (name, "confidence")
    if X.shape[1] == 2:
        if len(data.features) == 2:
            return data.original[rows], (data.features[0], data.features[1])
        return X, ("dimension 1", "dimension 2")
    pca = PCA(2, random_state=seed).fit(data.X)
    first, second = pca.explained_variance_ratio_
    axes = f"component 1 ({first:.0%} of variance)", f"component 2 ({second:.0%})"
    return pca.transform(X), axes


def _sampled(n: int, most: int, random_state: int) -> np.ndarray:
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(random_state).choice(n, most, replace=False))
