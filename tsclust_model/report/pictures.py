"""The pictures of a report, as PNG files in text, each with a caption and a text for the blind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn import config_context
from sklearn.metrics import silhouette_samples

from tsclust_model import plots
from tsclust_model.metrics import SILHOUETTE_ROWS, silhouette_rows
from tsclust_model.mlflow_integration.kinds import AnyGeneration
from tsclust_model.models.evidence import Evidence, SegmentRows
from tsclust_model.report import charts as model_plots
from tsclust_model.results import NOISE

_FEW = 3

_ENOUGH = 100  # fewer rows hardly fill a cell

_FEATURES = 20

_WORKING_MIB = 128  # distances at a time; scikit-learn takes 1,024


def report_pictures(
    generation: AnyGeneration,
    segments: SegmentRows,
    evidence: Evidence | None,
    figures: Mapping[str, Any],
) -> list[dict[str, str]]:
    """Pictures for the sections of a report.

    Returns
    -------
    list of dict
        ``name``, ``section``, ``caption``, ``alt`` and ``png`` (base64).
    """
    found: list[dict[str, str]] = []

    def add(name: str, section: str, caption: str, alt: str, draw: Callable[[], Figure]) -> None:
        found.append(_picture(name, section, caption, alt, draw()))

    _add_segments(add, generation, segments, figures["segments"])
    if evidence is not None and len(evidence.labels):
        _add_accuracy(add, evidence)
    history = figures["drift"]["history"]
    if history:
        add(
            "batches",
            "drift",
            "What batches have shown; triangles are values over their threshold.",
            f"Lines of {', '.join(history)} over batches.",
            lambda: model_plots.history_plot(history, figures["drift"]["thresholds"]),
        )
    return found


def forecast_picture(series: Sequence[Mapping[str, Any]], unit: str) -> dict[str, str]:
    """The picture of some series' forecasts; see `tsclust_model.report.charts.forecast_plot`."""
    return _picture(
        "forecasts",
        "accuracy",
        "Forecasts of a few series of the largest segments, by id, with their intervals.",
        f"Known values, forecasts and outcomes of {len(series)} series.",
        model_plots.forecast_plot(series, unit),
    )


def _picture(name: str, section: str, caption: str, alt: str, figure: Figure) -> dict[str, str]:
    figure.patch.set_alpha(0.0)  # the page is light or dark
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    png = plots.as_base64(plots.as_png(figure))
    return {"name": name, "section": section, "caption": caption, "alt": alt, "png": png}


def _add_segments(
    add: Callable[..., None],
    generation: AnyGeneration,
    rows: SegmentRows,
    figures: Mapping[str, Any],
) -> None:
    shown = figures["found"][: model_plots.MOST_LABELS]
    names = {item["id"]: str(item["id"]) for item in shown}
    most = model_plots.MAP_ROWS
    sample = f"{most:,} of {len(rows.X):,} rows, drawn at random; " if len(rows.X) > most else ""
    add(
        "cluster_map",
        "segments",
        f"Map of the segments: {sample}every dot is moved a little, so that none is a row's exact "
        "place. Crosses are noise.",
        f"Scatter of {figures['n_segments']} segments on two principal components.",
        lambda: model_plots.cluster_map(rows.X, rows.labels, names=names),
    )
    if not shown:
        return
    caption = "How well rows fit their segment (1) rather than the nearest other one (-1)."
    if len(figures["found"]) > len(shown):
        caption += f" The {len(shown)} largest segments."
    large = np.where(np.isin(rows.labels, list(names)), rows.labels, NOISE)
    values = _silhouettes(rows.X, large)
    if values is not None:
        inside = int((large != NOISE).sum())
        if inside > SILHOUETTE_ROWS:
            caption += f" A sample of {len(values[0]):,} of {inside:,} rows."
        mean = float(values[0].mean())
        add(
            "silhouette",
            "segments",
            caption,
            f"Silhouettes of the rows of each segment; their mean is {mean:.2f}.",
            lambda: plots.silhouette_plot(*values),
        )
    density = generation.segmentation.density
    add(
        "condensed_tree",
        "segments",
        "How HDBSCAN found them: with rising density (downwards) the rows thin out and split; "
        "coloured parts are the segments.",
        "Condensed tree of HDBSCAN with the chosen segments in colour.",
        lambda: model_plots.condensed_tree_plot(
            density.parent,
            density.birth,
            density.point_cluster,
            density.point_lambda,
            density.label,
        ),
    )
    profiled = [item for item in shown if item["differences"]]
    if profiled:
        differences = np.array([item["differences"] for item in profiled])
        first = np.sort(np.argsort(-np.abs(differences).max(axis=0), kind="stable")[:_FEATURES])
        add(
            "cluster_heatmap",
            "segments",
            "What sets segments apart: means in standard deviations from those of all rows.",
            "Heat map of segments by clustered columns.",
            lambda: plots.cluster_heatmap(
                differences[:, first],
                [rows.features[i] for i in first],
                [item["id"] for item in profiled],
            ),
        )


def _add_accuracy(add: Callable[..., None], evidence: Evidence) -> None:
    target, unit, classes = evidence.target, next(iter(evidence.outputs)), evidence.classes
    if classes is not None:
        add(
            "confusion",
            "accuracy",
            "What was predicted of the rows of each class, as shares of the class; cells of fewer "
            f"than {_FEW} rows are left out.",
            f"Table of {len(classes.names)} classes by what was predicted.",
            lambda: model_plots.confusion_plot(
                classes.codes, classes.probabilities.argmax(axis=1), classes.names, _FEW
            ),
        )
    if target is None or target.known.sum() < _ENOUGH:
        return
    known = target.known
    truth, prediction = target.truth[known], target.prediction[known]
    note = f"Rows are counted in cells; cells of fewer than {_FEW} rows are left out."
    add(
        "predicted",
        "accuracy",
        f"Actual against predicted. {note}",
        "Actual against predicted values around the line where they are equal.",
        lambda: model_plots.predicted_plot(truth, prediction, unit, _FEW),
    )
    add(
        "residuals",
        "accuracy",
        f"What the forecast missed. {note}",
        "Actual minus predicted over predicted values, around zero.",
        lambda: model_plots.residual_plot(truth, prediction, unit, _FEW),
    )


def _silhouettes(X: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    inside = np.flatnonzero(labels != NOISE)
    rows = inside[silhouette_rows(labels[inside])]
    known = labels[rows]
    if not 2 <= len(np.unique(known)) < len(known):
        return None
    with config_context(working_memory=_WORKING_MIB):
        return silhouette_samples(X[rows], known), known
