"""Pictures of a model: what they hold, and how they are saved."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tsclust_model import create_cluster_visualization, create_performance_plots
from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.models.evidence import ShownForecast
from tsclust_model.plots import COLOURS, GREY, as_png
from tsclust_model.report.charts import (
    MAP_ROWS,
    by_size,
    cluster_map,
    condensed_tree_plot,
    confusion_plot,
    forecast_plot,
    history_plot,
    predicted_plot,
    residual_plot,
)

X = np.random.default_rng(0).normal(size=(60, 3)) + np.repeat([0.0, 8.0], 30)[:, None]
LABELS = np.repeat([0, 1], 30)
LABELS[:5] = -1


def axes(figure: Figure):
    return figure.axes[0]


def test_the_map_draws_each_cluster_in_its_colour_and_noise_as_grey_crosses():
    plot = axes(cluster_map(X, LABELS, names={1: "frail"}))
    sizes = [len(part.get_offsets()) for part in plot.collections]
    assert sizes == [5, 30, 25]
    noise, large, small = (to_hex(part.get_facecolor()[0]) for part in plot.collections)
    assert (noise, large, small) == (GREY, COLOURS[1].lower(), COLOURS[0].lower())
    assert [text.get_text() for text in plot.texts] == ["frail", "0"]
    assert "% of the variance), standard deviations" in plot.get_xlabel()


def test_the_map_is_of_the_two_directions_of_most_variance():
    x = np.column_stack([np.linspace(-9, 9, 41), np.zeros(41), np.tile([-1.0, 1.0], 21)[:41]])
    plot = axes(cluster_map(x, np.zeros(41, dtype=np.int64)))
    dots = np.asarray(plot.collections[0].get_offsets())
    assert np.abs(np.abs(dots[:, 0]) - np.abs(x[:, 0])).max() < 0.11
    assert plot.get_xlabel().startswith("1st principal component (97%")


def test_no_dot_of_the_map_is_a_rows_place_and_a_large_table_is_sampled():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(MAP_ROWS + 500, 2))
    figure = cluster_map(rows, np.zeros(len(rows), dtype=np.int64))
    dots = np.asarray(axes(figure).collections[0].get_offsets())
    assert len(dots) == MAP_ROWS
    one = np.zeros((30, 1))
    dots = np.asarray(axes(cluster_map(one, LABELS[:30])).collections[0].get_offsets())
    assert (dots != 0).all()
    assert np.abs(dots).max() <= 0.05


def test_two_hundred_clusters_get_twenty_names():
    labels = np.repeat(np.arange(200), 3)
    plot = axes(cluster_map(np.random.default_rng(2).normal(size=(600, 2)), labels))
    assert len(plot.texts) == 20
    assert len(plot.collections) == 21
    assert [text.get_text() for text in plot.get_legend().get_texts()] == ["180 smaller segments"]


def test_clusters_come_the_largest_first_without_noise():
    assert [(c, len(rows)) for c, rows in by_size(LABELS)] == [(1, 30), (0, 25)]
    assert by_size(LABELS[:0]) == []


def test_the_condensed_tree_is_as_wide_as_its_rows():
    # a root of ten rows that splits at 1.0 into 4 and 5; one row falls out before
    parent = np.array([0, 0, 0])
    birth = np.array([-np.inf, 1.0, 1.0])
    node = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    leaves = np.array([0.5, 2, 2, 2, 2, 3, 3, 3, 3, np.inf])
    plot = axes(condensed_tree_plot(parent, birth, node, leaves, np.array([-1, 0, 1])))
    root, first, second = (patch.get_xy() for patch in plot.patches)
    assert [np.ptp(part[:, 0]) for part in (root, first, second)] == [10, 4, 5]
    assert first[:, 1].min() == second[:, 1].min() == 1.0
    assert root[:, 1].max() == 1.0
    assert [to_hex(patch.get_facecolor()) for patch in plot.patches[1:]] == [
        *(COLOURS[0].lower(), COLOURS[1].lower()),
    ]
    assert [text.get_text() for text in plot.texts] == ["0", "1"]


def test_few_rows_leave_no_cell():
    truth = np.concatenate([np.full(20, 1.0), np.full(20, 2.0), [50.0]])
    for draw in (predicted_plot, residual_plot):
        plot = axes(draw(truth, truth - 0.1, "days", few=3))
        counts = plot.collections[0].get_array()
        assert counts.min() >= 3
        assert plot.get_xlim()[1] < 10  # the outlier does not set the axis
        assert plot.get_xlabel() == "predicted: days"


def test_shares_of_classes_are_of_the_rows_of_a_class():
    truth, said = np.array([0, 0, 0, 0, 1, 1, -1]), np.array([0, 0, 0, 1, 1, 1, 0])
    image = axes(confusion_plot(truth, said, ["long", "short"], few=2)).images[0].get_array()
    assert image.filled(-1).tolist() == [[0.75, -1], [-1, 1.0]] or np.allclose(
        np.nan_to_num(np.asarray(image), nan=-1), [[0.75, -1], [-1, 1.0]]
    )


def test_values_over_their_threshold_are_marked():
    figure = history_plot(
        {"noise_ratio": [0.1, 0.4, 0.2, 0.5], "rmse": [1.0]}, {"noise_ratio": 0.3}
    )
    noise, rmse = figure.axes
    assert np.asarray(noise.collections[0].get_offsets()).tolist() == [[2, 0.4], [4, 0.5]]
    assert [text.get_text() for text in noise.get_legend().get_texts()] == [
        "threshold",
        "alert (2)",
    ]
    assert noise.get_ylabel() == "noise ratio (0 to 1)"
    assert rmse.get_xlabel() == "batch"
    assert not rmse.collections


def test_forecasts_follow_what_was_known():
    one = ShownForecast("A", *map(np.array, ([1.0, 2.0], [3.0], [2.0], [4.0])))
    figure = forecast_plot([one, replace(one, name="B", actual=np.array([3.5])), one], "beds")
    shown = [plot for plot in figure.axes if plot.get_visible()]
    assert [plot.get_title() for plot in shown] == ["A", "B", "A"]
    past, forecast = shown[0].lines
    assert past.get_xdata().tolist() == [-1, 0]
    assert forecast.get_xdata().tolist() == [1]
    assert len(shown[1].lines) == 3


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".SVG", b"<?xml")])
def test_pictures_are_saved_by_their_suffix(tmp_path: Path, suffix: str, start: bytes):
    path = tmp_path / "new" / f"map{suffix}"
    assert create_cluster_visualization(X * [1, 100, 1e-3], LABELS, path) == str(path)
    assert path.read_bytes().startswith(start)
    history = {
        "rmse": [{"value": 1.0, "component": "batch"}],
        "noise_ratio": [0.2, 0.3],
        "empty": [],
    }
    path = path.with_stem("batches")
    assert create_performance_plots(history, path, thresholds={"noise_ratio": 0.25}) == str(path)
    assert path.read_bytes().startswith(start)
    assert plt.get_fignums() == []


def test_one_mapping_a_batch_is_drawn_as_one_list_a_metric(tmp_path: Path):
    batches = [{"rmse": 1.0, "noise_ratio": 0.1, "at": "monday"}, {"rmse": np.float64(2), "n": 3}]
    by_metric = {"rmse": [1.0, 2.0], "noise_ratio": [0.1], "n": [3.0]}
    records = [
        {"metric_name": name, "value": value, "component": "batch"}
        for name, values in by_metric.items()
        for value in values
    ]
    pictures = []
    for i, history in enumerate((by_metric, batches, records)):
        path = tmp_path / f"{i}.png"
        assert create_performance_plots(history, path) == str(path)
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1] == pictures[2]


@pytest.mark.parametrize("history", [[], [{"at": "monday"}], [1.0, 2.0]])
def test_a_history_without_metrics_is_refused_in_one_line(tmp_path: Path, history: list):
    with pytest.raises(DataValidationError, match=r"^metrics_history holds [^\n]*$"):
        create_performance_plots(history, tmp_path / "x.png")


def test_what_cannot_be_drawn_is_said(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"map.gif must end in .png or .svg"):
        create_cluster_visualization(X, LABELS, tmp_path / "map.gif")
    with pytest.raises(DataValidationError, match="labels has 3 values for 60 rows"):
        create_cluster_visualization(X, [0, 1, 2], tmp_path / "map.png")
    with pytest.raises(DataValidationError, match="finite numbers"):
        create_cluster_visualization(np.where(X > 0, X, np.nan), LABELS, tmp_path / "map.png")
    with pytest.raises(DataValidationError, match="no value"):
        create_performance_plots({"rmse": []}, tmp_path / "batches.png")


def test_names_are_drawn_as_text_whatever_they_hold():
    codes = np.arange(3)
    figure = confusion_plot(codes, codes, ["$\\frac{", "a\nb", "世界 $x$"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_png(figure).startswith(b"\x89PNG")
    assert [text.get_text() for text in axes(figure).get_yticklabels()][1] == "a b"
