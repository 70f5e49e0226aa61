"""Pictures of a clustering: matplotlib figures made without pyplot, or plotly's HTML.

Colours are Okabe and Ito's, which people with any colour vision tell apart; beyond eight
clusters the marker tells the rest. Noise is grey.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram, linkage

from tsclust_model.errors import ConfigurationError
from tsclust_model.files import write_whole
from tsclust_model.results import NOISE

COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00"),
    *("#CC79A7", "#56B4E9", "#F0E442", "#000000"),
)
GREY = "#767676"
_MARKERS = "os^Dv<>P"
_PLOTLY_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "x", "star")
SIZE, DPI = (5.6, 3.8), 130
"""Inches, and dots per inch: legible at one dot a pixel, also at half a page."""

_SHOWN_LEAVES = 30


def cluster_name(cluster: int) -> str:
    return "noise" if cluster == NOISE else f"cluster {cluster}"


def scatter_plot(points: np.ndarray, labels: np.ndarray, axes: tuple[str, str]) -> Figure:
    """Rows in two dimensions, shape (n, 2), coloured by cluster; `axes` names the dimensions."""
    figure, plot = new_figure(*axes)
    for cluster in np.unique(labels):
        rows = labels == cluster
        plot.scatter(
            *points[rows].T,
            s=14,
            c=colour(cluster),
            marker=marker(cluster),
            label=f"{cluster_name(cluster)} ({rows.sum()})",
            linewidths=0,
        )
    _legend(plot, len(np.unique(labels)))
    return figure


def silhouette_plot(values: np.ndarray, labels: np.ndarray) -> Figure:
    """Sorted silhouettes (-1 to 1) of each cluster's rows, noise left out, and their mean."""
    figure, plot = new_figure("silhouette coefficient", "rows by cluster", long_names=True)
    start = 0
    clusters = np.unique(labels)
    middles = []
    for cluster in clusters:
        own = np.sort(values[labels == cluster])
        rows = np.arange(start, start + len(own))
        plot.fill_betweenx(rows, 0, own, color=colour(cluster), step="mid")
        middles.append(start + len(own) / 2)
        start += len(own)
    plot.axvline(float(values.mean()), color=GREY, linestyle="--", label="mean")
    if len(clusters) <= 24:
        plot.set_yticks(middles, [cluster_name(int(c)) for c in clusters], fontsize=7)
    else:
        plot.set_yticks([])
    plot.legend(fontsize=7, loc="upper left")
    return figure


def dendrogram_plot(X: np.ndarray) -> Figure:
    """The last 30 merges of Ward's method, whose linkage is quadratic: give it a sample."""
    figure, plot = new_figure(
        "rows (a number in brackets counts them)", "merge distance (Ward)", long_names=True
    )
    dendrogram(
        linkage(X, "ward"),
        p=_SHOWN_LEAVES,
        truncate_mode="lastp",
        no_labels=False,
        show_leaf_counts=True,
        color_threshold=0,
        above_threshold_color=COLOURS[0],
        ax=plot,
    )
    # A leaf that is one row would show the row's number.
    leaves = [text.get_text() for text in plot.get_xticklabels()]
    plot.set_xticklabels([leaf if leaf.startswith("(") else "(1)" for leaf in leaves])
    plot.tick_params(axis="x", labelrotation=90, labelsize=7)
    return figure


def cluster_heatmap(
    differences: np.ndarray, features: list[str], clusters: Sequence[int] | None = None
) -> Figure:
    """How far each cluster's means are from those of all rows, in their standard deviations.

    `differences` has shape (n_clusters, n_features); `clusters` are the ids, default 0, 1, 2 ...
    """
    figure, plot = new_figure("feature", "cluster", long_names=True)
    most = max(float(np.abs(differences).max()), 1e-12)
    image = plot.imshow(differences, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
    plot.set_xticks(range(len(features)), map(shown_text, features), rotation=90, fontsize=7)
    names = range(len(differences)) if clusters is None else clusters
    plot.set_yticks(range(len(differences)), map(str, names))
    bar = figure.colorbar(image, ax=plot)
    bar.set_label("mean, in standard deviations from all rows'", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def require_plotly() -> None:
    """Say what to install for interactive plots.

    Raises
    ------
    ConfigurationError
    """
    if importlib.util.find_spec("plotly") is None:
        raise ConfigurationError(
            "visualization_configuration.interactive_plots is true, which needs one more package: "
            "pip install 'tsclust-model[analysis]'"
        )


def interactive(name: str, **parts: Any) -> Any:
    """The plotly figure of one of the four plots, from the same arguments."""
    import plotly.figure_factory as factory
    import plotly.graph_objects as go

    if name == "dendrogram":
        figure = factory.create_dendrogram(
            parts["X"],
            linkagefun=lambda _: linkage(parts["X"], "ward"),
            labels=[""] * len(parts["X"]),
        )
        return _titled(figure, "rows", "merge distance (Ward)")
    if name == "cluster_heatmap":
        names = [cluster_name(i) for i in range(len(parts["differences"]))]
        heat = go.Heatmap(
            z=parts["differences"], x=parts["features"], y=names, colorscale="PuOr", zmid=0
        )
        return _titled(go.Figure(heat), "feature", "cluster")
    labels = parts["labels"]
    figure = go.Figure()
    start = 0
    for cluster in np.unique(labels):
        rows = labels == cluster
        if name == "scatter_plot":
            x, y = parts["points"][rows].T
        else:
            x = np.sort(parts["values"][rows])
            y = np.arange(start, start + len(x))
        start += int(rows.sum())
        figure.add_trace(
            go.Scattergl(
                x=x,
                y=y,
                mode="markers",
                name=cluster_name(int(cluster)),
                marker={
                    "color": colour(int(cluster)),
                    "symbol": _PLOTLY_MARKERS[cluster // len(COLOURS) % len(_PLOTLY_MARKERS)],
                },
            )
        )
    axes = parts.get("axes", ("silhouette coefficient", "rows by cluster"))
    return _titled(figure, *axes)


def as_html(figure: Any, script: str = "cdn") -> str:
    """A page that fetches plotly's script; from beside it with the `script` 'directory'."""
    return str(figure.to_html(include_plotlyjs=script, div_id="plot"))


def shown_pictures(visualizations: Mapping[str, Any]) -> list[tuple[str, bytes, str]]:
    """Name, content and suffix of the pictures in a result."""
    pictures = []
    for name in DRAW:
        text = visualizations[name]
        if text is None:
            continue
        if text.lstrip().startswith("<"):
            pictures.append((name, text.encode(), "html"))
        else:
            pictures.append((name, base64.b64decode(text), "png"))
    return pictures


def save(content: bytes | Any, path: Path) -> None:
    """Write a PNG, or a plotly figure whose script lies beside it and needs no network."""
    if isinstance(content, bytes):
        write_whole(path, content)
        return
    from plotly.offline import get_plotlyjs

    write_whole(path, as_html(content, "directory"))
    if not (script := path.with_name("plotly.min.js")).exists():
        write_whole(script, get_plotlyjs())


def new_figure(x: str, y: str, long_names: bool = False) -> tuple[Figure, Any]:
    """A figure of one plot with named axes; measuring long names of ticks takes a while."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained" if long_names else None)
    plot = figure.add_subplot()
    if not long_names:
        figure.subplots_adjust(left=0.13, right=0.98, bottom=0.13, top=0.98)
    plot.set_xlabel(x, fontsize=8)
    plot.set_ylabel(y, fontsize=8)
    plot.tick_params(labelsize=8)
    return figure, plot


def _titled(figure: Any, x: str, y: str) -> Any:
    return figure.update_layout(xaxis_title=x, yaxis_title=y, template="plotly_white")


def colour(cluster: int) -> str:
    """The colour of a cluster; noise is grey."""
    return GREY if cluster == NOISE else COLOURS[cluster % len(COLOURS)]


def marker(cluster: int) -> str:
    """The marker of a cluster, which tells those of one colour apart."""
    return _MARKERS[cluster // len(COLOURS) % len(_MARKERS)]


def shown_text(text: str, longest: int = 40) -> str:
    """A name as plain text on one line: matplotlib would take dollars for mathematics."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    plain = plain if len(plain) <= longest else plain[: longest - 1] + "…"
    return plain.replace("$", r"\$")


def _legend(plot: Any, entries: int) -> None:
    if entries <= 24:
        plot.legend(fontsize=7, loc="best", ncols=1 if entries <= 12 else 2)


DRAW: dict[str, Callable[..., Figure]] = {
    "scatter_plot": scatter_plot,
    "silhouette_plot": silhouette_plot,
    "dendrogram": dendrogram_plot,
    "cluster_heatmap": cluster_heatmap,
}
