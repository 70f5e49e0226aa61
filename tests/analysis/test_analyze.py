"""The clustering analysis as a user calls it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import runpy
from functools import partial
from pathlib import Path

import fsspec
import jsonschema
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from sklearn.cluster import KMeans
from sklearn.datasets import make_moons
from threadpoolctl import threadpool_info, threadpool_limits

import tsclust_model.analysis.analyze
from tests.support import PROJECT
from tsclust_model import (
    ClusteringError,
    ConfigurationError,
    DataLoadError,
    EvaluationError,
    PipelineConfig,
    PipelineError,
    PreprocessingError,
    analyze,
    clustering_analysis_tool,
    make_hospital,
)
from tsclust_model.analysis.analyze import recommended_config
from tsclust_model.analysis.preparation import COUNTS_ROWS
from tsclust_model.analysis.result import AnalysisResult
from tsclust_model.analysis.schema import AnalysisRequest, parse_request, read_request, schema_text

ALGORITHMS = (
    *("kmeans", "dbscan", "hierarchical", "spectral"),
    *("gaussian_mixture", "hdbscan", "optics"),
)
SECRET = 987654.25
PNG = b"\x89PNG\r\n\x1a\n"
QUICK = {
    "evaluation_configuration": {"cross_validation": False, "cluster_validation": False},
    "visualization_configuration": {"generate_plots": False},
}
EXAMPLE = runpy.run_path(str(PROJECT / "examples" / "clustering_analysis_example.py"))


def schema(name: str) -> dict:
    return json.loads((PROJECT / "docs" / f"analysis_{name}.schema.json").read_text())


RESULT = jsonschema.Draft202012Validator(
    schema("result"), format_checker=jsonschema.FormatChecker()
)


def ask(algorithm: str = "kmeans", **clustering: object) -> dict:
    return {
        "clustering_data": {"data_source": "table"},
        "clustering_configuration": {"algorithm": algorithm, **clustering},
    }


def check(result: dict) -> dict:
    """The results of a valid answer."""
    RESULT.validate(json.loads(json.dumps(result, allow_nan=False)))
    AnalysisResult.model_validate_json(json.dumps(result))
    return result["clustering_results"]


def labels(found: dict) -> np.ndarray:
    return np.array([row["cluster_id"] for row in found["clusters"]["cluster_assignments"]])


@pytest.fixture(scope="module")
def blobs() -> pd.DataFrame:
    """Three far blobs of 40, 30 and 20 rows, in columns of different units."""
    middle = np.repeat([[0, 0], [10, 0], [0, 10]], [40, 30, 20], axis=0)
    X = np.random.default_rng(0).normal(middle, 0.5)
    kind = np.repeat(["a", "b", "c"], [40, 30, 20])
    return pd.DataFrame({"height": X[:, 0] * 100, "weight": X[:, 1], "kind": kind})


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Sweeps of the same rows are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTERING_MODEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_finds_three_far_blobs(blobs, algorithm):
    asked = ask(algorithm) | QUICK
    asked["clustering_data"] = asked["clustering_data"] | {"target_variable": "kind"}
    found = check(analyze(asked, blobs))
    inside = labels(found) >= 0
    assert inside.mean() > 0.85
    kinds = pd.crosstab(blobs["kind"][inside], labels(found)[inside]).to_numpy()
    assert ((kinds > 0).sum(axis=0) == 1).all()  # each cluster is within one blob
    if algorithm != "optics":  # it finds clusters within clusters
        assert found["model_info"]["n_clusters"] == 3
        assert found["clusters"]["cluster_centers"][0]["cluster_size"] >= 36
    sure = np.array([r["confidence"] for r in found["clusters"]["cluster_assignments"]])
    assert (sure[~inside] == 0).all()
    assert (sure[inside] > 0).all()


def test_the_whole_answer_to_three_blobs(blobs):
    asked = ask("kmeans", n_clusters=3, recommend=True)
    asked["clustering_data"] = {
        "data_source": "table",
        "target_variable": "kind",
        "metadata": {"ward": 7},
    }
    result = analyze(asked, blobs)
    found = check(result)
    info = found["model_info"]
    assert (info["algorithm"], info["parameters"]) == ("kmeans", {"n_clusters": 3})
    assert labels(found).tolist() == [0] * 40 + [1] * 30 + [2] * 20
    centers = found["clusters"]["cluster_centers"]
    assert [row["cluster_size"] for row in centers] == [40, 30, 20]
    means = blobs.groupby("kind")[["height", "weight"]].mean()
    assert centers[1]["center_coordinates"] == pytest.approx(means.loc["b"].to_list())
    apart = found["cluster_analysis"]["cluster_profiles"][1]["characteristics"]
    assert list(apart) == ["height", "weight"]  # what sets it apart most comes first
    assert apart["height"]["mean"] == pytest.approx(means.loc["b", "height"])
    metrics = found["evaluation_metrics"]
    assert metrics["adjusted_rand_score"] == metrics["normalized_mutual_info_score"] == 1.0
    assert metrics["silhouette_score"] > 0.85
    assert metrics["dbcv"] is None
    assert metrics["undefined"] == {"dbcv": "kmeans is no density method; ask for dbcv by name"}
    assert metrics["cross_validation"]["mean_adjusted_rand_score"] == 1.0
    assert len(metrics["cross_validation"]["folds"]) == 5
    assert metrics["cross_validation"]["rows_per_fold"] == 72
    assert [row["share_negative"] for row in metrics["silhouette_analysis"]] == [0, 0, 0]
    assert metrics["cluster_validation"]["excess"] > 0.05
    advised = found["recommendations"]
    assert advised["optimal_clusters"] == 3
    assert advised["groups"]["present"] is True
    assert advised["sweep_rows"] == 90
    assert advised["sweep_candidates"] == len(advised["sweep"])
    scores = [row["score"] for row in advised["sweep"] if row["score"] is not None]
    assert scores == sorted(scores, reverse=True)
    assert advised["interpretation_guidance"][-1].startswith("cluster 2 (22% of the rows) is set")
    for name in ("scatter_plot", "silhouette_plot", "dendrogram", "cluster_heatmap"):
        assert base64.b64decode(found["visualizations"][name]).startswith(PNG)
    assert found["visualizations"]["files"] == {}
    data = result["metadata"]["data_statistics"]
    assert data["features"] == ["height", "weight"]
    assert data["columns_left_out"] == {"kind": "target_variable"}
    assert result["metadata"]["request_metadata"] == {"ward": 7}
    assert result["metadata"]["processing_duration"] > 0


def test_auto_takes_the_first_of_its_sweep_and_finds_moons():
    X, _ = make_moons(200, noise=0.05, random_state=0)
    found = check(analyze(ask("auto") | QUICK, pd.DataFrame(X, columns=["x", "y"])))
    first = found["recommendations"]["sweep"][0]
    info = found["model_info"]
    assert info["requested_algorithm"] == "auto"
    assert info["algorithm"] == first["algorithm"]
    assert info["algorithm"] == found["recommendations"]["algorithm_recommendation"]
    assert info["n_clusters"] == first["n_clusters"] == 2


def test_the_same_request_gives_the_same_answer_with_and_without_the_cache(blobs, monkeypatch):
    first = analyze(ask("auto", random_state=3), blobs)
    again = analyze(ask("auto", random_state=3), blobs)
    monkeypatch.delenv("CLUSTERING_MODEL_CACHE")
    fresh = analyze(ask("auto", random_state=3), blobs)
    for result in (first, again, fresh):
        del result["clustering_results"]["model_info"]["training_timestamp"]
        del result["metadata"]["processing_timestamp"], result["metadata"]["processing_duration"]
    assert first == again == fresh


def test_auto_keeps_to_the_number_of_clusters_asked_for(blobs):
    found = check(analyze(ask("auto", n_clusters=2) | QUICK, blobs))
    assert found["model_info"]["n_clusters"] == 2
    assert {row["n_clusters"] for row in found["recommendations"]["sweep"]} == {2}


def test_the_tool_is_awaited_while_the_loop_goes_on(blobs):
    async def both() -> tuple[dict, int]:
        ticks = 0
        task = asyncio.create_task(clustering_analysis_tool(ask("kmeans") | QUICK, blobs))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0)
        return await task, ticks

    result, ticks = asyncio.run(both())
    assert check(result)["model_info"]["n_clusters"] == 3
    assert ticks > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.to_numpy(), "the table is a ndarray; give a pandas DataFrame"),
        (lambda table: table[:0], "the table has no rows; give a table with rows"),
        (lambda table: table[[]], "the table has no columns; give a table with columns"),
        (
            lambda table: pd.concat({"ward": table}, axis=1),
            "the table has column names of 2 levels; join them into one name each",
        ),
    ],
)
def test_what_is_no_table_of_rows_is_refused_in_one_line(blobs, change, message):
    with pytest.raises(DataLoadError, match=f"^{message}$"):
        analyze(ask() | QUICK, change(blobs))


def test_values_whose_squares_vanish_do_not_vary(blobs):
    with pytest.raises(PreprocessingError, match="no column of height, weight varies"):
        analyze(ask() | QUICK, blobs[["height", "weight"]] * 1e-170)


@pytest.mark.parametrize("unit", [1e-13, 1e12])
def test_groups_of_columns_without_scaling_do_not_depend_on_the_unit(blobs, unit):
    asked = ask("kmeans", n_clusters=3) | {
        "preprocessing_configuration": {"scaling": "none"},
        "visualization_configuration": {"generate_plots": False},
    }
    found = check(analyze(asked, blobs[["height", "weight"]] * [0.01 * unit, unit]))
    assert found["recommendations"]["groups"]["present"] is True


class Threads(logging.Handler):
    """The numbers of threads at each event of the analysis."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen |= {pool["num_threads"] for pool in threadpool_info()}


@pytest.mark.parametrize(("largest", "at_the_fit"), [(500_000, {1}), (10, {2})])
def test_threads_are_bounded_but_for_the_fit_of_a_large_table(
    blobs, largest, at_the_fit, monkeypatch, caplog
):
    monkeypatch.setattr(tsclust_model.analysis.analyze, "_ONE_THREAD", largest)
    monkeypatch.delenv("CLUSTERING_MODEL_CACHE")
    fitting, watch, fit = set(), Threads(), KMeans.fit_predict

    def watched(model: KMeans, X: np.ndarray) -> np.ndarray:
        if len(X) == len(blobs):
            fitting.update(pool["num_threads"] for pool in threadpool_info())
        return fit(model, X)

    monkeypatch.setattr(KMeans, "fit_predict", watched)
    monkeypatch.setattr(logging.getLogger("tsclust_model.analysis.analyze"), "handlers", [watch])
    level = caplog.at_level("INFO", logger="tsclust_model.analysis.analyze")
    with threadpool_limits(limits=2), level:
        analyze(ask("kmeans", n_clusters=3) | QUICK, blobs)
        assert {pool["num_threads"] for pool in threadpool_info()} == {2}
    assert watch.seen == {1}
    assert fitting == at_the_fit


def test_events_tell_figures_and_no_values(blobs, caplog):
    table = blobs.assign(height=blobs["height"] + SECRET)
    with caplog.at_level(logging.INFO, logger="tsclust_model.analysis.analyze"):
        analyze(ask("kmeans") | QUICK, table)
    assert [record.event for record in caplog.records] == [
        *("clustering_started", "clusters_created", "evaluation_completed")
    ]
    assert caplog.records[0].n_rows == 90
    assert caplog.records[1].n_clusters == 3
    assert "98765" not in str([vars(record) for record in caplog.records])


def test_rows_are_named_by_number_whatever_the_index_is(blobs):
    table = blobs.set_index(pd.Index([f"P{i:03d}" for i in range(90)], name="patient"))
    asked = ask("kmeans", n_clusters=3) | QUICK
    found = check(analyze(asked, table.iloc[::-1]))
    ids = [row["sample_id"] for row in found["clusters"]["cluster_assignments"]]
    assert ids == list(range(90))
    assert "P0" not in json.dumps(found)


@pytest.mark.parametrize("from_index", [True, False])
def test_rows_are_named_by_an_id_column_when_asked(blobs, from_index):
    table = blobs.set_index(pd.Index([f"P{i:03d}" for i in range(90)], name="patient"))
    table = table if from_index else table.reset_index()
    asked = ask("kmeans", n_clusters=3) | QUICK
    asked["clustering_data"] = {"data_source": "table", "id_column": "patient"}
    found = check(analyze(asked, table))
    assert found["clusters"]["cluster_assignments"][7]["sample_id"] == "P007"
    for profile in found["cluster_analysis"]["cluster_profiles"]:
        assert len(profile["representative_samples"]) == 5
        assert set(profile["representative_samples"]) <= {f"P{i:03d}" for i in range(90)}


def test_rows_with_gaps_are_dropped_and_counted(blobs):
    table = blobs.copy()
    table.loc[[0, 5], "height"] = np.nan
    table.loc[89, "weight"] = np.inf
    result = analyze(ask("kmeans", n_clusters=3) | QUICK, table)
    found = check(result)
    data = result["metadata"]["data_statistics"]
    assert (data["n_rows"], data["n_rows_used"], data["n_rows_dropped"]) == (90, 87, 3)
    assert data["missing_by_column"] == {"height": 2, "weight": 1}
    ids = [row["sample_id"] for row in found["clusters"]["cluster_assignments"]]
    assert ids == [i for i in range(90) if i not in (0, 5, 89)]


def test_outliers_are_left_out_of_the_clustering_when_asked(blobs):
    table = blobs.copy()
    table.loc[89, ["height", "weight"]] = [1e5, 1e3]
    asked = ask("kmeans", n_clusters=3) | QUICK
    asked["preprocessing_configuration"] = {"outlier_detection": True}
    result = analyze(asked, table)
    found = check(result)
    last = found["clusters"]["cluster_assignments"][89]
    assert last == {"sample_id": 89, "cluster_id": -1, "confidence": 0.0}
    assert 89 in found["cluster_analysis"]["outlier_analysis"]["outliers"]
    assert result["metadata"]["data_statistics"]["n_outliers_removed"] >= 1


def test_tsne_draws_and_does_not_cluster(blobs):
    asked = ask("kmeans", n_clusters=3) | {
        "preprocessing_configuration": {"dimensionality_reduction": "tsne"},
        "evaluation_configuration": QUICK["evaluation_configuration"],
        "visualization_configuration": {"plot_types": ["scatter_plot"]},
    }
    with pytest.warns(UserWarning, match="'tsne', which keeps neither distances nor densities"):
        result = analyze(asked, blobs)
    found = check(result)
    assert "the scaled columns are clustered" in found["model_info"]["notes"][0]
    assert result["metadata"]["data_statistics"]["n_dimensions"] == 2
    plain = analyze(ask("kmeans", n_clusters=3) | QUICK, blobs)["clustering_results"]
    assert labels(found).tolist() == labels(plain).tolist()
    assert base64.b64decode(found["visualizations"]["scatter_plot"]).startswith(PNG)


def test_umap_feeds_a_clustering(blobs):
    asked = ask("kmeans", n_clusters=3) | QUICK
    asked["preprocessing_configuration"] = {
        "dimensionality_reduction": "umap",
        "n_components": 2,
    }
    result = analyze(asked, blobs)
    assert labels(check(result)).tolist() == [0] * 40 + [1] * 30 + [2] * 20
    assert result["metadata"]["data_statistics"]["n_dimensions"] == 2


def test_interactive_plots_are_pages_and_saved_plots_are_files(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("PLOT_OUTPUT_DIR", str(tmp_path / "pictures"))
    for interactive, suffix in ((False, "png"), (True, "html")):
        asked = ask("hdbscan") | {
            "evaluation_configuration": QUICK["evaluation_configuration"],
            "visualization_configuration": {
                "interactive_plots": interactive,
                "save_plots": True,
            },
        }
        shown = check(analyze(asked, blobs))["visualizations"]
        assert sorted(shown["files"]) == [
            *("cluster_heatmap", "dendrogram", "scatter_plot", "silhouette_plot")
        ]
        for name, path in shown["files"].items():
            assert path == str(tmp_path / "pictures" / f"{name}.{suffix}")
            content = (tmp_path / "pictures" / f"{name}.{suffix}").read_bytes()
            assert content.startswith(PNG) or b"plotly" in content
        assert ("<html>" in shown["scatter_plot"]) is interactive


def test_metrics_that_are_undefined_say_why():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.uniform(size=60), "y": rng.uniform(size=60)})
    found = check(analyze(ask("dbscan", parameters={"eps": 0.001}), table))
    metrics = found["evaluation_metrics"]
    assert found["model_info"]["n_clusters"] == 0
    assert found["clusters"]["cluster_centers"] == []
    assert metrics["silhouette_score"] is None
    assert metrics["undefined"]["silhouette_score"].startswith("0 clusters; two or more")
    assert metrics["undefined"]["adjusted_rand_score"] == "no target_variable"
    assert found["visualizations"]["omitted"] == {
        "silhouette_plot": "0 clusters; silhouettes need two or more",
        "cluster_heatmap": "there is no cluster",
    }
    assert len(found["cluster_analysis"]["outlier_analysis"]["outliers"]) == 60


def test_metrics_not_asked_for_are_null(blobs):
    asked = ask("kmeans", n_clusters=3) | QUICK
    asked["evaluation_configuration"] = QUICK["evaluation_configuration"] | {
        "evaluation_metrics": ["silhouette_score", "dbcv"]
    }
    metrics = check(analyze(asked, blobs))["evaluation_metrics"]
    assert metrics["silhouette_score"] > 0.8
    assert metrics["dbcv"] > 0.5
    assert metrics["inertia"] is None
    assert metrics["undefined"]["inertia"] == "not asked for"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"clustering_data": {}}, ConfigurationError, "'clustering_data.data_source' is missing"),
        (
            {"clustering_configuration": {"algorithm": "kmean"}},
            ConfigurationError,
            "clustering_configuration.algorithm is 'kmean'; Input should be 'kmeans'",
        ),
        (
            {"preprocessing_configuration": {"scalling": "none"}},
            ConfigurationError,
            r"unknown field 'preprocessing_configuration.scalling' \(did you mean 'scaling'\?\)",
        ),
        (
            {"clustering_configuration": {"algorithm": "hdbscan", "n_clusters": 4}},
            ClusteringError,
            "n_clusters is 4, but hdbscan finds the number itself; leave it out",
        ),
        (
            {"clustering_configuration": {"algorithm": "dbscan", "parameters": {"epsilon": 1}}},
            ClusteringError,
            r"parameters.epsilon is 1, but dbscan has no such parameter",
        ),
        (
            {"clustering_configuration": {"algorithm": "dbscan", "parameters": {"eps": -1.0}}},
            ClusteringError,
            r"parameters \{'eps': -1.0, 'min_samples': 5\} are refused by dbscan",
        ),
        (
            {"clustering_configuration": {"algorithm": "kmeans", "parameters": {"n_clusters": 3}}},
            ClusteringError,
            "parameters.n_clusters is 3; it is managed here: use clustering_configuration.n_clus",
        ),
        (
            {"clustering_configuration": {"algorithm": "auto", "parameters": {"eps": 1}}},
            ClusteringError,
            "parameters is {'eps': 1}, but 'auto' chooses them",
        ),
        (
            {"clustering_configuration": {"algorithm": "kmeans", "n_clusters": 90}},
            ClusteringError,
            "n_clusters is 90, but there are 90 rows",
        ),
        (
            {"clustering_data": {"data_source": "t", "features": ["heigth"]}},
            DataLoadError,
            r"features names 'heigth', which the table does not have \(did you mean 'height'\?\)",
        ),
        (
            {"clustering_data": {"data_source": "t", "features": ["kind"]}},
            PreprocessingError,
            "clustering_data.features names 'kind', which is str; only numbers are clustered",
        ),
        (
            {
                "preprocessing_configuration": {
                    "dimensionality_reduction": "pca",
                    "n_components": 3,
                }
            },
            PreprocessingError,
            "n_components is 3, but there are 2 dimensions; ask for 2 at most",
        ),
        (
            {"clustering_data": {"data_source": "t", "target_variable": "height"}},
            EvaluationError,
            "target_variable is 'height', which has 90 distinct values in 90 rows",
        ),
        (
            {"evaluation_configuration": {"evaluation_metrics": ["adjusted_rand_score"]}},
            EvaluationError,
            "names 'adjusted_rand_score', which needs known classes",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(blobs, change, error, message):
    with pytest.raises(error, match=message) as caught:
        analyze(ask() | change, blobs)
    assert "\n" not in str(caught.value)


def test_columns_of_one_name_are_refused(blobs):
    table = blobs.set_axis(["height", "height", "kind"], axis=1)
    with pytest.raises(DataLoadError, match="several columns named height; rename them"):
        analyze(ask(), table)


def test_too_few_whole_rows_name_the_columns_with_gaps(blobs):
    table = blobs.assign(weight=[np.nan] * 85 + [1.0, 2.0, 3.0, 4.0, 5.0])
    message = "5 of 90 rows can be clustered, fewer than 10; missing .* are in weight"
    with pytest.raises(PreprocessingError, match=message):
        analyze(ask(), table)


def test_a_file_of_any_suffix_is_read_in_the_format_that_is_named(blobs, tmp_path):
    path = tmp_path / "export.txt"
    blobs.to_csv(path, index=False)
    asked = ask("kmeans", n_clusters=3) | QUICK
    asked["clustering_data"] = {"data_source": str(path)}
    with pytest.raises(DataLoadError, match=r"clustering_data.data_source: .*export.txt: the form"):
        analyze(asked)
    asked["clustering_data"] = {"data_source": str(path), "data_format": "csv"}
    assert check(analyze(asked))["model_info"]["n_clusters"] == 3


def test_urls_are_kept_in_the_data_cache(blobs, tmp_path, monkeypatch):
    folder = tmp_path / "downloads"
    monkeypatch.setenv("DATA_CACHE_DIR", str(folder))
    with fsspec.open("memory://analysis/blobs.csv", "w") as stream:
        blobs.to_csv(stream, index=False)
    asked = ask("kmeans", n_clusters=3) | QUICK
    asked["clustering_data"] = {"data_source": "memory://analysis/blobs.csv"}
    assert labels(check(analyze(asked))).tolist() == [0] * 40 + [1] * 30 + [2] * 20
    assert any(path.stat().st_size > 1000 for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "model"), [("request", AnalysisRequest), ("result", AnalysisResult)]
)
def test_the_published_schemas_are_current(name, model):
    path = PROJECT / "docs" / f"analysis_{name}.schema.json"
    assert path.read_text() == schema_text(model), "run make docs"


def test_docs_define_every_statistic_of_the_result():
    text = (PROJECT / "docs" / "analysis.md").read_text()
    for model in ("ClusterStatistics", "EvaluationMetrics", "SweepRow", "DataStatistics"):
        for field in schema("result")["$defs"][model]["properties"]:
            assert f"`{field}`" in text, field


@pytest.mark.parametrize(
    ("request_file", "expected"),
    [
        ("customer_segmentation.json", ("kmeans", 4, 2)),
        ("anomaly_detection.json", ("dbscan", 2, 3)),
        ("hospital_hdbscan.json", ("hdbscan", 5, 8)),
    ],
)
def test_the_three_usage_patterns_bring_their_tables(request_file, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # from any folder
    result = analyze(read_request(PROJECT / "examples" / request_file))
    found = check(result)
    info = found["model_info"]
    dimensions = result["metadata"]["data_statistics"]["n_dimensions"]
    assert (info["algorithm"], info["n_clusters"], dimensions) == expected


def test_the_shipped_tables_are_the_scripts(tmp_path):
    EXAMPLE["write_tables"](tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(made) == ["customers.csv", "patients.csv", "sensors.csv"]
    for name, content in made.items():
        assert (PROJECT / "examples" / name).read_bytes() == content


def test_anomalies_are_the_rows_dbscan_calls_noise():
    sensors = EXAMPLE["make_sensors"]()
    found = analyze(read_request(PROJECT / "examples" / "anomaly_detection.json"), sensors)
    outliers = found["clustering_results"]["cluster_analysis"]["outlier_analysis"]["outliers"]
    faults = set(np.flatnonzero(sensors["fault"] == "fault"))
    assert len(faults & set(outliers)) / len(faults) >= 0.9
    assert len(set(outliers) - faults) / len(sensors) < 0.02


def test_the_recommended_clustering_becomes_a_configuration():
    table = make_hospital(150)[["age", "heart_rate", "creatinine", "temperature"]]
    asked = ask("hdbscan", recommend=True) | QUICK
    result = analyze(asked, table)
    config = recommended_config(asked, result)
    ranked = [
        row
        for row in result["clustering_results"]["recommendations"]["sweep"]
        if row["algorithm"] == "hdbscan"
    ]
    # Any of them may be what the training predicts.
    assert (config.cluster_features, config.drop_columns) == (None, [])
    left_out = result["metadata"]["data_statistics"]["columns_left_out"]
    left_out |= {"row": COUNTS_ROWS, "constant": "does not vary"}
    assert recommended_config(asked, result).drop_columns == ["row"]
    named = asked | {"clustering_data": asked["clustering_data"] | {"features": list(table)}}
    chosen = recommended_config(named, result)
    assert (chosen.cluster_features, chosen.drop_columns) == (list(table), [])
    for name in ("min_cluster_size", "min_samples"):
        assert config.hdbscan_params[name] == ranked[0]["parameters"][name]
    swept = result["clustering_results"]["recommendations"]["sweep"]
    result["clustering_results"]["recommendations"]["sweep"] = []
    with pytest.raises(ClusteringError, match=r"no sweep was made; ask with .*recommend = true"):
        recommended_config(asked, result)
    result["clustering_results"]["recommendations"]["sweep"] = swept
    with pytest.raises(ClusteringError, match="scaling is 'robust', which the pipeline does not"):
        recommended_config(asked | {"preprocessing_configuration": {"scaling": "robust"}}, result)


@pytest.fixture
def run(tsclust):
    """Run the command in this process."""
    return partial(tsclust, "analyze")


def test_the_command_logs_request_result_and_pictures_and_promotes(store, run, tmp_path):
    data = tmp_path / "hospital.csv"
    make_hospital(120)[["age", "heart_rate", "creatinine", "ward"]].to_csv(data, index=False)
    request = tmp_path / "request.json"
    asked = ask("hdbscan") | {"visualization_configuration": {"save_plots": True}}
    asked["clustering_data"] = {"data_source": str(data), "target_variable": "ward"}
    request.write_text(json.dumps(asked))
    out, config = tmp_path / "out", tmp_path / "train.yaml"
    done = run(request=request, output=out, promote_to_config=config)
    assert done.exit_code == 0, done.output
    result = json.loads((out / "result.json").read_text())
    check(result)
    assert (out / "plots" / "scatter_plot.png").read_bytes().startswith(PNG)
    assert PipelineConfig.from_yaml(config) == recommended_config(asked, result)
    assert f"result: {out / 'result.json'}" in done.output
    client = MlflowClient()
    experiment = client.get_experiment_by_name(PipelineConfig().experiment_name)
    (logged,) = client.search_runs(
        [experiment.experiment_id], "tags.phase = 'analysis' and params.algorithm = 'hdbscan'"
    )
    assert logged.info.status == "FINISHED"
    found = result["clustering_results"]
    assert logged.data.metrics["n_clusters"] == found["model_info"]["n_clusters"]
    names = {item.path for item in client.list_artifacts(logged.info.run_id)}
    assert {"request.json", "result.json", "config.yaml", "plots"} <= names
    pictures = {item.path for item in client.list_artifacts(logged.info.run_id, "plots")}
    assert "plots/dendrogram.png" in pictures


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("as_file", [True, False])
def test_the_command_writes_the_file_that_is_named(run, tmp_path, monkeypatch, as_file):
    monkeypatch.chdir(tmp_path)
    if not as_file:
        (tmp_path / "res.json").mkdir()  # a folder of that name stays a folder
    done = run(request=PROJECT / "examples" / "customer_segmentation.json", output="res.json")
    assert done.exit_code == 0, done.output
    path = tmp_path / ("res.json" if as_file else "res.json/result.json")
    check(json.loads(path.read_text()))
    assert "kmeans: 4 clusters, 0.0% noise in 400 rows" in done.output


@pytest.mark.usefixtures("store")
def test_the_command_ends_a_mistake_in_one_line(run, tmp_path):
    request = tmp_path / "request.json"
    request.write_text('{"clustering_data": ')
    done = run(request=request, output=tmp_path / "out")
    assert done.exit_code == 1
    assert done.output == f"Error: {request} is not valid JSON at line 1\n"
    request.write_text(json.dumps(ask() | {"clustering_data": {"data_source": "nowhere.csv"}}))
    done = run(request=request, output=tmp_path / "out")
    assert done.output == (
        "Error: clustering_data.data_source: nowhere.csv: no such file; check the path "
        f"(looked for {Path.cwd() / 'nowhere.csv'})\n"
    )


SPECIFICATION = {
    "clustering_data": {
        "data_source": "customer_data.csv",
        "data_format": "csv",
        "features": ["age", "income", "purchase_frequency", "avg_order_value"],
        "metadata": {"description": "Customer segmentation for marketing", "domain": "retail"},
    },
    "clustering_configuration": {
        "algorithm": "kmeans",
        "parameters": {"n_init": 10, "max_iter": 300, "tol": 1e-4},
        "n_clusters": 5,
        "random_state": 42,
    },
    "preprocessing_configuration": {
        "scaling": "standard",
        "dimensionality_reduction": "pca",
        "n_components": 3,
        "outlier_detection": True,
    },
    "evaluation_configuration": {
        "evaluation_metrics": [
            *("silhouette_score", "calinski_harabasz_score", "davies_bouldin_score")
        ],
        "silhouette_analysis": True,
        "cluster_validation": True,
    },
    "visualization_configuration": {
        "generate_plots": True,
        "plot_types": ["scatter", "silhouette", "heatmap"],
        "interactive_plots": True,
        "save_plots": True,
    },
}
ANOMALIES = {
    "clustering_data": {
        "data_source": "network_logs.csv",
        "data_format": "csv",
        "features": ["packet_size", "frequency", "response_time", "error_rate"],
    },
    "clustering_configuration": {
        "algorithm": "dbscan",
        "parameters": {"eps": 0.5, "min_samples": 5},
    },
    "preprocessing_configuration": {"scaling": "robust", "outlier_detection": True},
    "evaluation_configuration": {
        "evaluation_metrics": ["silhouette_score"],
        "cluster_validation": True,
    },
}


@pytest.mark.parametrize("asked", [SPECIFICATION, ANOMALIES], ids=["segments", "anomalies"])
def test_the_requests_of_the_specification_run_verbatim(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = asked["clustering_data"]["features"]
    rng = np.random.default_rng(0)
    middle = rng.normal(0, 8, (5, 4))[rng.integers(0, 5, 120)]
    table = pd.DataFrame(rng.normal(middle, 1.0), columns=names)
    table.to_csv(asked["clustering_data"]["data_source"], index=False)
    jsonschema.validate(asked, schema("request"))
    found = check(analyze(asked))
    if asked is SPECIFICATION:
        assert sorted(found["visualizations"]["files"]) == [
            *("cluster_heatmap", "scatter_plot", "silhouette_plot")
        ]
        assert found["visualizations"]["omitted"] == {"dendrogram": "not asked for"}
    centers = found["clusters"]["cluster_centers"]
    assert {len(row["center_coordinates"]) for row in centers} == {4}
    assert found["evaluation_metrics"]["silhouette_score"] > 0.3


def test_short_names_of_metrics_are_those_of_the_result(blobs):
    asked = ask("kmeans", n_clusters=3) | QUICK
    asked["evaluation_configuration"] = QUICK["evaluation_configuration"] | {
        "evaluation_metrics": ["silhouette", "davies_bouldin"]
    }
    metrics = check(analyze(asked, blobs))["evaluation_metrics"]
    assert metrics["silhouette_score"] > 0.8
    assert metrics["davies_bouldin_score"] < 0.5
    assert metrics["calinski_harabasz_score"] is None


def test_python_values_are_taken_as_json_has_them(tmp_path):
    asked = parse_request(
        {
            "clustering_data": {
                "data_source": tmp_path / "a.csv",
                "features": np.array(["x", "y"]),
                "metadata": {"rows": np.int64(3), "share": np.float32(0.5), "pair": (1, 2)},
            },
            "clustering_configuration": {
                "algorithm": "kmeans",
                "n_clusters": 3.0,
                "random_state": np.int64(7),
                "parameters": {"n_init": np.int32(4)},
            },
        }
    )
    data, wanted = asked.clustering_data, asked.clustering_configuration
    assert (data.data_source, data.features) == (str(tmp_path / "a.csv"), ["x", "y"])
    assert data.metadata == {"rows": 3, "share": 0.5, "pair": [1, 2]}
    assert (wanted.n_clusters, wanted.random_state) == (3, 7)
    assert type(wanted.n_clusters) is int


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"preprocessing_configuration": {"n_components": 2}},
            "n_components is 2, but dimensionality_reduction is 'none', which reduces nothing",
        ),
        (
            {
                "preprocessing_configuration": {
                    "dimensionality_reduction": "tsne",
                    "n_components": 3,
                }
            },
            "n_components is 3, but dimensionality_reduction is 'tsne'",
        ),
        (
            {"preprocessing_configuration": "pca"},
            "preprocessing_configuration is 'pca'; give an object with scaling, dimension",
        ),
        ({"evaluation_configuration": None}, "evaluation_configuration is null; give an object"),
        (
            {"clustering_data": {"data_source": pd.DataFrame({"secret": [SECRET, SECRET]})}},
            "clustering_data.data_source is a DataFrame; Input should be a valid string",
        ),
        (
            {"clustering_data": {"data_source": "t", "metadata": {"a": [float("nan")]}}},
            "clustering_data.metadata.a.0 is nan, which JSON does not have; give a number",
        ),
        (
            {"clustering_configuration": {"algorithm": "kmeans", "n_clusters": 2.5}},
            "clustering_configuration.n_clusters is 2.5; Input should be a valid integer",
        ),
        (
            {"clustering_configuration": {"algorithm": "auto", "time_budget": 0}},
            "clustering_configuration.time_budget is 0; Input should be greater than 0",
        ),
        (
            {"clustering_configuration": {"algorithm": "auto", "n_clusters": 400}},
            "n_clusters is 400, but there are 90 rows; ask for fewer clusters than rows",
        ),
        (
            {"clustering_data": {"data_source": "t", "id_column": "patient"}},
            "clustering_data.id_column names 'patient', which the table does not have",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(blobs, change, message, monkeypatch):
    monkeypatch.setattr("tsclust_model.analysis.analyze.sweep", None)
    with pytest.raises(PipelineError, match=message) as caught:
        analyze(ask() | change, blobs)
    assert "\n" not in str(caught.value)
    assert str(SECRET) not in str(caught.value)


def test_a_request_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is a folder; name the JSON file in it"):
        read_request(tmp_path)


@pytest.mark.parametrize("features", [None, ["height", "weight", "gone", "void"]])
def test_columns_without_values_are_left_out_and_named(blobs, features):
    table = blobs.assign(gone=np.nan, void=None, number=range(90))
    asked = ask("kmeans", n_clusters=3) | QUICK
    asked["clustering_data"] = {"data_source": "table", "features": features}
    result = analyze(asked, table)
    assert labels(check(result)).tolist() == [0] * 40 + [1] * 30 + [2] * 20
    data = result["metadata"]["data_statistics"]
    expected = {"gone": "has no values", "void": "has no values"}
    if features is None:
        expected |= {
            "kind": "not a number (str)",
            "number": "numbers the rows, as an identifier does",
        }
    assert data["columns_left_out"] == expected
    assert data["n_rows_used"] == 90


def test_nothing_to_cluster_says_why_of_each_column():
    table = pd.DataFrame({"a": [None] * 12, "b": ["x"] * 12, "c": range(12)})
    message = r"no column to cluster \(a: has no values, b: not a number \(str\), c: numbers the"
    with pytest.raises(PreprocessingError, match=message):
        analyze(ask(), table)


def test_tied_rows_have_no_density_validity_and_say_why(monkeypatch):
    rng = np.random.default_rng(980)
    base = rng.normal(size=(3, 4))  # rounding tells the copies of a row apart
    table = pd.DataFrame(base[np.repeat([0, 1, 2], 14)], columns=list("abcd"))

    def asserts(*_: object, **__: object) -> float:  # as hdbscan's does on such rows
        raise AssertionError

    monkeypatch.setattr("tsclust_model.analysis.indices.validity_index", asserts)
    metrics = check(analyze(ask("dbscan") | QUICK, table))["evaluation_metrics"]
    assert metrics["dbcv"] is None
    assert metrics["undefined"]["dbcv"].endswith("or identical rows, whose density is infinite")


@pytest.fixture(scope="module")
def uniform() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(1).uniform(size=(160, 2)), columns=["x", "y"])


def test_auto_says_that_there_are_no_groups(uniform):
    asked = ask("auto", time_budget=0.001) | QUICK
    found = check(analyze(asked, uniform))
    advised = found["recommendations"]
    assert advised["groups"]["present"] is False
    assert (advised["optimal_clusters"], advised["algorithm_recommendation"]) == (1, None)
    assert advised["parameter_suggestions"] == {}
    assert advised["interpretation_guidance"][0].startswith(
        "there are no groups: one even cloud of rows explains this table (its silhouette is 0.4"
    )
    assert advised["interpretation_guidance"][-1] == (
        "cluster 0 (100% of the rows) has the means of all rows"
    )
    assert found["model_info"]["n_clusters"] == 1
    assert set(labels(found)) == {0}


def test_hdbscan_on_uniform_rows_says_that_its_clusters_are_none(uniform):
    asked = ask("hdbscan") | {
        "evaluation_configuration": {"cross_validation": False},
        "visualization_configuration": {"generate_plots": False},
    }
    found = check(analyze(asked, uniform))
    first = found["recommendations"]["interpretation_guidance"][0]
    assert first.startswith("there are no groups: one even cloud of rows explains this table")
    if found["model_info"]["n_clusters"] > 1:
        assert first.endswith("clusters of hdbscan only cut it up")
    assert found["recommendations"]["optimal_clusters"] == 1


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "auto"])
def test_three_obvious_groups_in_twelve_rows_are_seen(algorithm):
    middle = np.repeat([[0, 0], [10, 0], [0, 10]], 4, axis=0)
    X = np.random.default_rng(3).normal(middle, 0.5)
    found = check(analyze(ask(algorithm) | QUICK, pd.DataFrame(X, columns=["x", "y"])))
    inside = labels(found) >= 0
    assert (labels(found) == np.repeat([0, 1, 2], 4))[inside].all()
    assert inside.sum() >= (9 if algorithm == "dbscan" else 12)  # its knee leaves out the edges


def test_a_named_algorithm_sweeps_only_when_asked(blobs, monkeypatch):
    monkeypatch.setattr("tsclust_model.analysis.analyze.sweep", None)
    advised = check(analyze(ask("kmeans", n_clusters=3) | QUICK, blobs))["recommendations"]
    assert (advised["sweep"], advised["sweep_candidates"]) == ([], 0)
    assert advised["optimal_clusters"] is None
    assert advised["interpretation_guidance"][0].startswith("no other algorithm was tried")


def test_a_short_budget_says_how_many_candidates_were_tried(blobs, monkeypatch):
    monkeypatch.delenv("CLUSTERING_MODEL_CACHE")
    asked = ask("kmeans", n_clusters=3, recommend=True, time_budget=1e-9) | QUICK
    advised = check(analyze(asked, blobs))["recommendations"]
    assert len(advised["sweep"]) == 1
    assert advised["sweep_candidates"] > 50
    assert advised["interpretation_guidance"][0] == (
        f"1 of {advised['sweep_candidates']} candidates of the sweep were tried within "
        "clustering_configuration.time_budget; more time may rank another first"
    )


def test_no_sentence_has_one_clusters_or_minus_zero(uniform):
    table = uniform.assign(far=np.where(np.arange(160) < 80, 0.0, 9.0))
    said = []
    for asked in (
        ask("kmeans", n_clusters=2),
        ask("dbscan", parameters={"eps": 5.0}),
        ask("auto", time_budget=0.001),
    ):
        asked |= {"visualization_configuration": {"generate_plots": False}}
        found = check(
            analyze(
                asked,
                table if asked["clustering_configuration"]["algorithm"] == "kmeans" else uniform,
            )
        )
        said += found["recommendations"]["interpretation_guidance"]
        said += found["evaluation_metrics"]["undefined"].values()
        said += [row["excluded"] or "" for row in found["recommendations"]["sweep"]]
    text = "\n".join(said)
    assert "cluster 0 (50% of the rows) is set apart by far (" in text
    assert not re.search(r"[-+]0\.0 sd|-0\.00|\b1 (clusters|rows|candidates)\b", text)


SMALL = pd.DataFrame(
    {
        "a": np.random.default_rng(5).normal(size=36),
        "b": np.round(np.random.default_rng(6).normal(size=36), 1),
        "c": np.repeat([0.0, 5.0, 9.0], 12),
        "empty": 1.0,
        "text": "x",
        "class": np.tile(["k", "l"], 18),
    }
)


@st.composite
def requests(draw: st.DrawFn) -> dict:
    """Requests that ask for anything the schema allows and that can be done."""
    algorithm = draw(st.sampled_from((*ALGORITHMS, "auto")))
    clustering: dict = {"algorithm": algorithm, "random_state": draw(st.sampled_from([0, 42]))}
    if algorithm not in ("dbscan", "hdbscan", "optics"):
        clustering["n_clusters"] = draw(st.sampled_from([None, 2, 3]))
    reduction = draw(st.sampled_from(["none", "pca"]))
    return {
        "clustering_data": {
            "data_source": "small",
            "features": draw(st.sampled_from([None, ["a"], ["c", "a"], ["a", "b", "c"]])),
            "target_variable": draw(st.sampled_from([None, "class"])),
            "metadata": draw(st.dictionaries(st.text(), st.integers() | st.booleans())),
        },
        "clustering_configuration": clustering,
        "preprocessing_configuration": {
            "scaling": draw(st.sampled_from(["standard", "minmax", "robust", "none"])),
            "dimensionality_reduction": reduction,
            "n_components": draw(st.sampled_from([None, 1])) if reduction == "pca" else None,
            "feature_selection": draw(st.booleans()),
            "outlier_detection": draw(st.booleans()),
        },
        "evaluation_configuration": {
            "cross_validation": draw(st.booleans()),
            "silhouette_analysis": draw(st.booleans()),
            "cluster_validation": draw(st.booleans()),
        },
        "visualization_configuration": {
            "generate_plots": draw(st.booleans()),
            "plot_types": draw(st.sampled_from([None, ["dendrogram"], ["cluster_heatmap"]])),
        },
    }


@settings(
    max_examples=settings.default.max_examples // 12,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(requests())
def test_every_answer_validates_against_the_published_schema(asked):
    jsonschema.validate(asked, schema("request"))
    parse_request(asked)
    found = check(analyze(asked, SMALL))
    assert len(found["clusters"]["cluster_assignments"]) == 36
