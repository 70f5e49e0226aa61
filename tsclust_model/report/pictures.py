"""The pictures of a report, as PNG files in text, each with a caption and a text for the blind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure
from sklearn import config_context
from sklearn.metrics import silhouette_samples

from tsclust_model import plots
from tsclust_model.metrics import SILHOUETTE_ROWS, silhouette_rows
from tsclust_model.models.base import FittedPipeline
from tsclust_model.models.evidence import ReportInputs, SegmentRows
from tsclust_model.report import charts
from tsclust_model.report.schema import Drift, Figures, Picture, Segments
from tsclust_model.results import NOISE

_FEATURES = 20

_WORKING_MIB = 128  # distances at a time; scikit-learn takes 1,024

_DRAW: Mapping[str, Callable[..., Figure]] = {
    "confusion": charts.confusion_plot,
    "predicted": charts.predicted_plot,
    "residuals": charts.residual_plot,
    "forecasts": charts.forecast_plot,
}
"""What draws a `Chart`, by its name."""


def report_pictures(model: FittedPipeline, inputs: ReportInputs, figures: Figures) -> list[Picture]:
    """The pictures of all sections."""
    segments, rows = figures["segments"], inputs.segments
    drawn = [_map(rows, segments)]
    if segments["n_segments"]:
        drawn += [*_silhouettes(rows, segments), _tree(model), *_heatmap(segments)]
    evidence = inputs.evidence
    if evidence is not None and len(evidence.labels):
        own = evidence.target.charts(evidence.name)
        drawn += [
            _picture(
                chart.name,
                "accuracy",
                chart.caption,
                chart.alt,
                _DRAW[chart.name](*chart.arguments),
            )
            for chart in (*own, *inputs.charts)
        ]
    return [*drawn, *_batches(figures["drift"])]


def _picture(name: str, section: str, caption: str, alt: str, figure: Figure) -> Picture:
    figure.patch.set_alpha(0.0)  # the page is light or dark
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    png = plots.as_base64(plots.as_png(figure))
    return {"name": name, "section": section, "caption": caption, "alt": alt, "png": png}


def _map(rows: SegmentRows, segments: Segments) -> Picture:
    names = {item["id"]: str(item["id"]) for item in segments["shown"][: charts.MOST_LABELS]}
    most = charts.MAP_ROWS
    sample = f"{most:,} of {len(rows.X):,} rows, drawn at random; " if len(rows.X) > most else ""
    return _picture(
        "cluster_map",
        "segments",
        f"Map of the segments: {sample}every dot is moved a little, so that none is a row's exact "
        "place. Crosses are noise.",
        f"Scatter of {segments['n_segments']} segments on two principal components.",
        charts.cluster_map(rows.X, rows.labels, names=names),
    )


def _silhouettes(rows: SegmentRows, segments: Segments) -> Iterator[Picture]:
    """Silhouettes of the largest segments; none of fewer than two."""
    shown = [item["id"] for item in segments["shown"][: charts.MOST_LABELS]]
    inside = np.flatnonzero(np.isin(rows.labels, shown) & (rows.labels != NOISE))
    sample = inside[silhouette_rows(rows.labels[inside])]
    labels = rows.labels[sample]
    if not 2 <= len(np.unique(labels)) < len(labels):
        return
    with config_context(working_memory=_WORKING_MIB):
        values = silhouette_samples(rows.X[sample], labels)
    caption = "How well rows fit their segment (1) rather than the nearest other one (-1)."
    if segments["n_segments"] > len(shown):
        caption += f" The {len(shown)} largest segments."
    if len(inside) > SILHOUETTE_ROWS:
        caption += f" A sample of {len(values):,} of {len(inside):,} rows."
    alt = f"Silhouettes of the rows of each segment; their mean is {float(values.mean()):.2f}."
    yield _picture("silhouette", "segments", caption, alt, plots.silhouette_plot(values, labels))


def _tree(model: FittedPipeline) -> Picture:
    density = model.segmentation.density
    return _picture(
        "condensed_tree",
        "segments",
        "How HDBSCAN found them: with rising density (downwards) the rows thin out and split; "
        "coloured parts are the segments.",
        "Condensed tree of HDBSCAN with the chosen segments in colour.",
        charts.condensed_tree_plot(
            density.parent,
            density.birth,
            density.point_cluster,
            density.point_lambda,
            density.label,
        ),
    )


def _heatmap(segments: Segments) -> Iterator[Picture]:
    profiled = [i for i in segments["shown"][: charts.MOST_LABELS] if i["differences"]]
    if not profiled:
        return
    differences = np.array([item["differences"] for item in profiled])
    first = np.sort(np.argsort(-np.abs(differences).max(axis=0), kind="stable")[:_FEATURES])
    yield _picture(
        "cluster_heatmap",
        "segments",
        "What sets segments apart: means in standard deviations from those of all rows.",
        "Heat map of segments by clustered columns.",
        plots.cluster_heatmap(
            differences[:, first],
            [segments["features"][i] for i in first],
            [item["id"] for item in profiled],
        ),
    )


def _batches(drift: Drift) -> Iterator[Picture]:
    if drift["history"]:
        yield _picture(
            "batches",
            "drift",
            "What batches have shown; triangles are values over their threshold.",
            f"Lines of {', '.join(drift['history'])} over batches.",
            charts.history_plot(drift["history"], drift["thresholds"]),
        )
