"""Pictures of a fitted model and of its batches, in the style of `plots`.

Where rows are drawn they are counted in cells, or (the cluster map) sampled and moved a little:
no picture gives a row away.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.files import write_whole
from tsclust_model.models.evidence import ShownForecast
from tsclust_model.plots import COLOURS, DPI, GREY, SIZE, colour, marker, new_figure, shown_text
from tsclust_model.results import NOISE

MOST_LABELS = 20
"""Clusters that a picture names; more are drawn and not named."""

MAP_ROWS = 4_000

_CELLS = 30

_MIDDLE = (0.005, 0.995)

_NODES = 60

_PALE = "#cccccc"

_NAMED = 0.025  # a narrower cluster has no room for its number

_STEPS = 100

_HEAT = LinearSegmentedColormap.from_list("rows", ["#cfe3f2", COLOURS[0], "#002a45"])


def cluster_map(
    X: np.ndarray, labels: np.ndarray, *, names: Mapping[int, str] | None = None, seed: int = 0
) -> Figure:
    """Rows on the first two principal components, coloured by cluster; noise is grey crosses.

    Of scaled rows, shape (n, n_features), 4,000 at most are drawn, each shifted (by 0.05 at most)
    so that no dot is a row's exact place. A cluster without a name is called by its number.
    """
    points, explained = _principal(X)
    figure, plot = new_figure(
        f"1st principal component ({explained[0]:.0%} of the variance), standard deviations",
        f"2nd principal component ({explained[1]:.0%}), standard deviations",
    )
    rng = np.random.default_rng(seed)
    shown = np.sort(rng.permutation(len(X))[:MAP_ROWS])
    dots = points + rng.uniform(-0.05, 0.05, points.shape)
    noise = shown[labels[shown] == NOISE]
    if noise.size:
        plot.scatter(*dots[noise].T, s=12, c=GREY, marker="x", linewidths=0.7, label="noise")
    clusters = by_size(labels)
    small = [cluster for cluster, _ in clusters[MOST_LABELS:]]
    if small:
        rows = shown[np.isin(labels[shown], small)]
        name = f"{len(small)} smaller segments"
        plot.scatter(*dots[rows].T, s=6, c=_PALE, marker="o", linewidths=0, label=name)
    for cluster, _ in clusters[:MOST_LABELS]:
        rows = shown[labels[shown] == cluster]
        plot.scatter(
            *dots[rows].T, s=9, c=colour(cluster), marker=marker(cluster), linewidths=0, alpha=0.7
        )
    for cluster, rows in clusters[:MOST_LABELS]:
        text = shown_text((names or {}).get(cluster, str(cluster)), 18)
        plot.annotate(
            text,
            points[rows].mean(axis=0),
            ha="center",
            va="center",
            fontsize=8,
            weight="bold",
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": colour(cluster), "alpha": 0.9},
        )
    if noise.size or small:
        plot.legend(fontsize=7, loc="best")
    return figure


def condensed_tree_plot(
    parent: np.ndarray,
    birth: np.ndarray,
    point_node: np.ndarray,
    point_lambda: np.ndarray,
    label: np.ndarray,
) -> Figure:
    """HDBSCAN's condensed tree: clusters thin out and split as the density rises.

    Parameters
    ----------
    parent : ndarray of int64, shape (n_nodes,)
        Node above each node; a node's number is higher than its parent's, 0 is the root.
    birth : ndarray of float64, shape (n_nodes,)
        Lambda (1 / distance) at which a node begins; the root's is -inf.
    point_node, point_lambda : ndarray, shape (n,)
        Node that each row falls out of, and at which lambda.
    label : ndarray of int64, shape (n_nodes,)
        Cluster of each node, -1 where it is part of none.
    """
    figure, plot = new_figure("rows", "density: 1 / distance, in 1 / standard deviations")
    own = np.bincount(point_node, minlength=len(parent))
    size = own.copy()
    for node in range(len(parent) - 1, 0, -1):
        size[parent[node]] += size[node]
    tops = {node for node in range(1, len(parent)) if label[node] != label[parent[node]]}
    drawn = _drawn_nodes(parent, size, tops)
    left = {0: 0.0}
    highest = float(np.quantile(point_lambda[np.isfinite(point_lambda)], 0.99)) * 1.05
    for node in range(len(parent)):
        if node not in drawn or node not in left:
            continue
        lambdas = np.minimum(np.sort(point_lambda[point_node == node]), highest)
        children = np.flatnonzero(parent[1:] == node) + 1
        start = max(float(birth[node]), 0.0)
        end = min(float(birth[children].min()), highest) if len(children) else None
        outline, middle = _outline(lambdas, int(size[node]), left[node], start, end)
        shade = colour(int(label[node])) if label[node] != NOISE else _PALE
        plot.add_patch(Polygon(outline, closed=True, facecolor=shade, edgecolor="none"))
        if node in tops and label[node] != NOISE and size[node] >= _NAMED * size[0]:
            plot.annotate(
                str(int(label[node])),
                (middle, start),
                ha="center",
                va="top",
                xytext=(0, -2),
                textcoords="offset points",
                fontsize=8,
                weight="bold",
            )
        at = middle - float(size[children].sum()) / 2
        for child in children.tolist():
            left[child] = at
            at += int(size[child])
    plot.set_xlim(0, max(int(size[0]), 1))
    plot.set_ylim(highest, 0)
    return figure


def _drawn_nodes(parent: np.ndarray, size: np.ndarray, tops: set[int]) -> set[int]:
    """The largest nodes, and the way from the root to each of the 20 largest clusters."""
    drawn = set(np.argsort(-size, kind="stable")[:_NODES].tolist())
    for node in sorted(tops, key=lambda top: -size[top])[:MOST_LABELS]:
        while node not in drawn:
            drawn.add(node)
            node = int(parent[node])
    return drawn


def predicted_plot(truth: np.ndarray, prediction: np.ndarray, unit: str, few: int = 1) -> Figure:
    """Predicted against actual, shape (n,) each, with the line where both are equal.

    Rows are counted in cells; cells with fewer than `few` rows are not drawn.
    """
    unit = shown_text(unit)
    figure, plot = new_figure(f"predicted: {unit}", f"actual: {unit}")
    _cells(figure, plot, prediction, truth, few)
    plot.axline((0, 0), slope=1, color=COLOURS[3], linewidth=1, linestyle="--", label="equal")
    plot.legend(fontsize=7, loc="upper left")
    return figure


def residual_plot(truth: np.ndarray, prediction: np.ndarray, unit: str, few: int = 1) -> Figure:
    """Actual minus predicted, over predicted; the parameters are those of `predicted_plot`."""
    unit = shown_text(unit)
    figure, plot = new_figure(f"predicted: {unit}", "actual - predicted, same unit")
    _cells(figure, plot, prediction, truth - prediction, few)
    plot.axhline(0, color=COLOURS[3], linewidth=1, linestyle="--")
    return figure


def confusion_plot(
    truth: np.ndarray, predicted: np.ndarray, names: Sequence[str], few: int = 1
) -> Figure:
    """What was predicted of the rows of each class, as shares of the class.

    `truth` and `predicted`, shape (n,), are positions in `names`, of which the first 20 are drawn;
    rows of another class (-1) are left out. Cells with fewer than `few` rows are blank.
    """
    shown = list(names)[:MOST_LABELS]
    known = (truth >= 0) & (truth < len(shown)) & (predicted < len(shown))
    counts = np.zeros((len(shown), len(shown)), dtype=np.int64)
    np.add.at(counts, (truth[known], predicted[known]), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, plot = new_figure("predicted class", "actual class", long_names=True)
    image = plot.imshow(np.where(counts >= few, shares, np.nan), cmap=_HEAT, vmin=0, vmax=1)
    texts = [shown_text(name, 20) for name in shown]
    plot.set_xticks(range(len(shown)), texts, rotation=90, fontsize=7)
    plot.set_yticks(range(len(shown)), texts, fontsize=7)
    for i, j in np.argwhere(counts >= few) if len(shown) <= 10 else ():
        ink = "white" if shares[i, j] > 0.4 else "black"
        plot.text(j, i, f"{shares[i, j]:.0%}", ha="center", va="center", fontsize=7, color=ink)
    bar = figure.colorbar(image, ax=plot)
    bar.set_label("share of the actual class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def history_plot(
    history: Mapping[str, Sequence[float]], thresholds: Mapping[str, float] | None = None
) -> Figure:
    """Metrics over batches (oldest first), one panel each; values over a threshold are alerts."""
    names = list(history)
    height = max(1.7 * len(names), 2.4)
    figure = Figure(figsize=(SIZE[0], height), dpi=DPI, layout="constrained")
    panels = figure.subplots(max(len(names), 1), 1, sharex=True, squeeze=False)[:, 0]
    for plot, name in zip(panels, names, strict=False):
        values = np.asarray(history[name], dtype=np.float64)
        batches = np.arange(1, len(values) + 1)
        dots = "o" if len(values) <= 60 else ""
        plot.plot(batches, values, color=COLOURS[0], linewidth=1.2, marker=dots, markersize=3)
        limit = (thresholds or {}).get(name)
        if limit is not None:
            plot.axhline(limit, color=GREY, linewidth=1, linestyle="--", label="threshold")
            over = values > limit
            if over.any():
                plot.scatter(
                    batches[over],
                    values[over],
                    color=COLOURS[3],
                    marker="^",
                    s=28,
                    zorder=3,
                    label=f"alert ({int(over.sum())})",
                )
            plot.legend(fontsize=7, loc="upper left")
        plot.set_ylabel(shown_text(_with_unit(name)), fontsize=8)
        plot.grid(alpha=0.3)
    panels[-1].set_xlabel("batch")
    return figure


def forecast_plot(series: Sequence[ShownForecast], unit: str) -> Figure:
    """Forecasts of some series with their intervals, one panel each, after what was known."""
    columns = 2 if len(series) > 1 else 1
    rows = max(-(-len(series) // columns), 1)
    figure = Figure(figsize=(SIZE[0], 1.6 * rows + 0.6), dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for plot, shown in zip(panels, series, strict=False):
        steps = np.arange(1, len(shown.prediction) + 1)
        before = np.arange(1 - len(shown.past), 1)
        plot.plot(before, shown.past, color=GREY, linewidth=1, label="known")
        interval = {"color": COLOURS[5], "alpha": 0.4, "linewidth": 0, "label": "interval"}
        plot.fill_between(steps, shown.lower, shown.upper, **interval)
        plot.plot(steps, shown.prediction, color=COLOURS[0], linewidth=1.5, label="forecast")
        if shown.actual is not None:
            plot.plot(steps, shown.actual, color=COLOURS[3], linewidth=1, ls="--", label="actual")
        plot.set_title(shown_text(shown.name), fontsize=8)
        plot.tick_params(labelsize=7)
    for plot in panels[len(series) :]:
        plot.set_visible(False)
    panels[0].legend(fontsize=6, loc="best")
    figure.supxlabel("steps from the last known value", fontsize=8)
    figure.supylabel(shown_text(unit), fontsize=8)
    return figure


def create_cluster_visualization(
    X: np.ndarray | pd.DataFrame, labels: Sequence[int] | np.ndarray, save_path: str | Path
) -> str:
    """Save a map of clusters: columns are standardised, and projected to two dimensions by PCA.

    Parameters
    ----------
    X : array-like, shape (n_samples, n_features)
        Finite numbers.
    labels : array-like of int, shape (n_samples,)
        -1 is noise, which is drawn as grey crosses.
    save_path : str or Path
        Ends in .png or .svg.

    Returns
    -------
    str
        `save_path`.

    Raises
    ------
    DataValidationError
        X is not finite numbers, or the labels are not one a row.
    ConfigurationError
        Another suffix.
    """
    values, known = np.array(X, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataValidationError("X must be a table of finite numbers; remove or fill the others")
    if known.shape != (len(values),):
        raise DataValidationError(f"labels has {known.size} values for {len(values)} rows")
    scale = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return save_figure(cluster_map(scaled, known.astype(np.int64)), save_path)


def create_performance_plots(
    metrics_history: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    save_path: str | Path,
    *,
    thresholds: Mapping[str, float] | None = None,
) -> str:
    """Save a panel for each metric over the batches, with alerts marked.

    Parameters
    ----------
    metrics_history : mapping of str to sequence, or sequence of mapping
        Of each metric its values, oldest first, as numbers or as the records of
        `TimeSeriesClusteringPipeline.get_performance_metrics`; or one mapping a batch, of metrics
        to numbers (what is no number, a time say, is left out).
    save_path : str or Path
        Ends in .png or .svg.
    thresholds : mapping of str to float, optional
        Highest value without an alert.

    Returns
    -------
    str
        `save_path`.

    Raises
    ------
    DataValidationError
        There is no value.
    ConfigurationError
        Another suffix.
    """
    if not isinstance(metrics_history, Mapping):
        metrics_history = _by_metric(metrics_history)
    plain = {
        str(name): [float(v["value"] if isinstance(v, Mapping) else v) for v in values]
        for name, values in metrics_history.items()
        if len(values)
    }
    if not plain:
        raise DataValidationError("metrics_history holds no value; process a batch first")
    return save_figure(history_plot(plain, thresholds), save_path)


def _by_metric(batches: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """One mapping a batch as one list a metric; a record of one value counts as that metric."""
    history: dict[str, list[float]] = {}
    for batch in batches:
        if not isinstance(batch, Mapping):
            raise DataValidationError(
                f"metrics_history holds a {type(batch).__name__}; give one mapping a batch, of "
                "metrics to numbers"
            )
        if {"metric_name", "value"} <= set(batch):
            batch = {str(batch["metric_name"]): batch["value"]}
        for name, value in batch.items():
            if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
                history.setdefault(str(name), []).append(float(value))
    return history


def save_figure(figure: Figure, save_path: str | Path) -> str:
    """Write a figure as PNG or SVG, by the suffix, and return the path."""
    path = Path(save_path)
    canvases = {".png": FigureCanvasAgg, ".svg": FigureCanvasSVG}
    if path.suffix.lower() not in canvases:
        raise ConfigurationError(f"{path.name} must end in .png or .svg")
    canvas, content = canvases[path.suffix.lower()](figure), io.BytesIO()
    canvas.print_figure(content, format=path.suffix.lower()[1:])
    write_whole(path, content.getvalue())
    return str(save_path)


def by_size(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each cluster and the positions of its rows, the largest first; noise left out."""
    order = np.argsort(labels, kind="stable")
    clusters, starts = np.unique(labels[order], return_index=True)
    parts = zip(clusters, np.split(order, starts)[1:], strict=True)
    rows_of = [(int(cluster), rows) for cluster, rows in parts if cluster != NOISE]
    return sorted(rows_of, key=lambda part: -len(part[1]))


def _principal(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows on their first two principal components, and the share of variance of each."""
    centred = X - X.mean(axis=0)
    variance, axes = np.linalg.eigh(np.atleast_2d(centred.T @ centred / max(len(X), 1)))
    first = np.argsort(-variance, kind="stable")[:2]
    # The sign of a component is arbitrary; its largest entry is made positive.
    axes = axes[:, first]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    points, shares = centred @ axes, variance[first] / max(float(variance.sum()), 1e-300)
    if points.shape[1] == 1:  # one column has no second component
        points, shares = np.column_stack([points, np.zeros(len(X))]), np.append(shares, 0.0)
    return points, shares


def _outline(
    lambdas: np.ndarray, size: int, left: float, start: float, end: float | None
) -> tuple[np.ndarray, float]:
    """The outline of a node that begins with `size` rows at `left`, and its middle."""
    middle = left + size / 2
    steps = np.linspace(0, len(lambdas) - 1, min(_STEPS, len(lambdas)))
    shown = lambdas[steps.astype(np.int64)]
    widths = size - np.searchsorted(lambdas, shown, side="right")
    heights = [start, *shown]
    halves = np.array([size, *widths]) / 2
    if end is not None:
        inside = np.array(heights) <= end
        heights = [*np.array(heights)[inside], end]
        halves = np.append(halves[inside], halves[inside][-1])
    right_side = np.column_stack([middle + halves, heights])
    left_side = np.column_stack([middle - halves, heights])[::-1]
    return np.vstack([right_side, left_side]), middle


def _cells(figure: Figure, plot: Any, x: np.ndarray, y: np.ndarray, few: int) -> None:
    if not len(x):
        return
    cells = int(np.clip(np.sqrt(len(x)) / 2, 8, _CELLS))
    if few > 1:  # neither may the ends of an axis be a row's
        inside = np.ones(len(x), dtype=bool)
        for values in (x, y):
            low, high = np.quantile(values, _MIDDLE)
            inside &= (low <= values) & (values <= high)
        x, y = x[inside], y[inside]
    drawn = plot.hexbin(x, y, gridsize=cells, mincnt=few, cmap=_HEAT, linewidths=0.1)
    shown = np.asarray(drawn.get_offsets())
    if few > 1 and len(shown):
        cell = drawn.get_paths()[0].get_extents()
        low, high = shown.min(axis=0), shown.max(axis=0)
        plot.set_xlim(low[0] - cell.width, high[0] + cell.width)
        plot.set_ylim(low[1] - cell.height, high[1] + cell.height)
    bar = figure.colorbar(drawn, ax=plot)
    bar.set_label("rows in a cell", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _with_unit(name: str) -> str:
    units = {
        "noise_ratio": "noise ratio (0 to 1)",
        "processing_time": "processing time (s)",
        "memory_usage": "memory (MB)",
        "rmse": "RMSE (target's unit)",
    }
    return units.get(name, name)
