"""The shape of the project: layers, public names, and files that must agree."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import tsclust_model
from tests.support import PROJECT

LAYERS = [  # top first; a folder imports from layers below its own only
    {"commands"},
    {"operations", "pipeline", "testing", "spark"},
    {"training"},
    {"report"},
    {"mlflow_integration", "pyfunc"},
    {"rows", "series"},
    {"models", "analysis"},
    {"clustering"},
    {"data"},
    {"boosting", "monitoring"},
    {"config", "config_files", "files", "metrics", "plots", "results", "shown"}
    | {"errors", "_kernels", "__init__"},
]
LAYER_OF = {room: level for level, rooms in enumerate(reversed(LAYERS)) for room in rooms}
# One name for pickles of every version; and words that everything speaks.
ONE_ROOM = [
    {"mlflow_integration", "pyfunc"},
    LAYERS[-1],
]
MAY_IMPORT_MLFLOW = {"mlflow_integration"}
MAY_IMPORT_PYSPARK = {"spark"}
PACKAGE = PROJECT / "tsclust_model"
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = room_of(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("tsclust_model.")}
    for room in (used & set(LAYER_OF)) - {own, "__init__"}:
        together = any({own, room} <= rooms for rooms in ONE_ROOM)
        assert together or LAYER_OF[room] < LAYER_OF[own], f"{own} imports {room}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_mlflow_and_pyspark_are_imported_by_their_rooms_only(path):
    top_level = {name.split(".")[0] for name in imports(path)}
    if room_of(path) not in MAY_IMPORT_PYSPARK:
        assert "pyspark" not in top_level
    if room_of(path) not in MAY_IMPORT_MLFLOW:
        assert "mlflow" not in top_level


@pytest.mark.parametrize("name", tsclust_model.__all__)
def test_every_public_name_is_importable_and_documented(name):
    assert inspect.getdoc(getattr(tsclust_model, name))


WRITTEN = [
    *("mlflow.db", "mlruns/0/models/m-1/artifacts/state.json", "mlartifacts/1/report.json"),
    *("demo/hospital.csv", "demo/new_patients.csv", "demo/scored.csv", "logs/pipeline.jsonl"),
    "tsclust_storage/timeseries-clustering-0a1b2c3d/history/00000001.5.ab.cd.parquet",
    "tsclust_storage/timeseries-clustering-0a1b2c3d/data/00000001.5.ab.cd.parquet",
    "tsclust_storage/timeseries-clustering-0a1b2c3d/monitoring/quality/ab.json",
    "tsclust_storage/timeseries-clustering-0a1b2c3d/report/performance-report.html",
    *("tsclust_history/m/1.parquet", "tsclust_data/m/1.parquet", "tsclust_monitoring/m/a.jsonl"),
    *("customers.csv", "sensors.parquet", "sessions.csv", "batches.csv", "out/results.json"),
    *("examples/mlflow.db", "examples/tsclust_storage/m-0a1b2c3d/history/1.parquet"),
]
"""What the demo, the commands of the guides and the examples write into a checkout."""


@pytest.mark.parametrize("path", WRITTEN)
def test_git_takes_nothing_that_holds_rows(path, tmp_path):
    shutil.copy(PROJECT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    asked = ["git", "-C", str(tmp_path), "check-ignore", "-q", path]
    assert subprocess.run(asked, check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tsclust_model.nothing  # noqa: B018


SIGNATURES = {
    "AdaptiveClusteringEngine": ["hdbscan_params", "knn_params"],
    "AdaptiveClusteringEngine.fit": ["self", "X"],
    "AdaptiveClusteringEngine.predict": ["self", "X"],
    "AdaptiveClusteringEngine.get_clustering_metrics": ["self"],
    "AdaptiveClusteringEngine.update_fallback_model": ["self", "X", "labels"],
    "KNNFallback.fit": ["self", "X", "labels"],
    "KNNFallback.predict": ["self", "X"],
    "KNNFallback.get_fallback_metrics": ["self"],
    "ClusterSpecificModelManager": ["lgb_params"],
    "ClusterSpecificModelManager.fit_timeseries_models": ["self", "cluster_data"],
    "ClusterSpecificModelManager.fit_resource_models": ["self", "cluster_data"],
    "ClusterSpecificModelManager.predict_timeseries": ["self", "cluster_id", "X"],
    "ClusterSpecificModelManager.predict_resources": ["self", "cluster_id", "X"],
    "ClusterSpecificModelManager.get_model_metrics": ["self"],
    "ExperimentManager.create_experiment": ["self", "experiment_name"],
    "ExperimentManager.start_run": ["self", "run_name", "nested"],
    "ExperimentManager.log_params": ["self", "params"],
    "ExperimentManager.log_metrics": ["self", "metrics"],
    "ExperimentManager.log_artifact": ["self", "artifact_path", "artifact_name"],
    "ExperimentManager.end_run": ["self"],
    "ArtifactManager.save_model": ["self", "model", "model_name", "model_type"],
    "ArtifactManager.load_model": ["self", "model_name", "model_type"],
    "ArtifactManager.save_report": ["self", "report", "report_name"],
    "ArtifactManager.get_artifact_path": ["self", "artifact_name"],
    "PipelineConfig.from_dict": ["config_dict"],
    "PipelineConfig.to_dict": ["self"],
    "TimeSeriesClusteringPipeline": ["config"],
    "TimeSeriesClusteringPipeline.fit_initial": ["self", "X", "y"],
    "TimeSeriesClusteringPipeline.process_batch": ["self", "X_batch", "y_batch"],
    "TimeSeriesClusteringPipeline.retrain": ["self", "trigger_reason"],
    "TimeSeriesClusteringPipeline.get_performance_report": ["self"],
    "TimeSeriesClusteringPipeline.set_callbacks": [
        *("self", "pre_training", "post_training", "pre_batch", "post_batch")
    ],
    "TimeSeriesClusteringPipeline.get_pipeline_status": ["self"],
    "TimeSeriesClusteringPipeline.get_model_info": ["self"],
    "TimeSeriesClusteringPipeline.update_configuration": ["self", "new_config"],
    "TimeSeriesClusteringPipeline.reset_pipeline_state": ["self"],
    "TimeSeriesClusteringPipeline.get_error_statistics": ["self"],
    "TimeSeriesClusteringPipeline.get_recent_errors": ["self", "limit"],
    "TimeSeriesClusteringPipeline.enable_graceful_degradation": ["self", "enable"],
    "TimeSeriesClusteringPipeline.diagnose_pipeline_health": ["self"],
    "TimeSeriesClusteringPipeline.get_performance_metrics": [
        *("self", "metric_names", "time_window")
    ],
    "TimeSeriesClusteringPipeline.get_alert_summary": ["self", "time_window"],
    "TimeSeriesClusteringPipeline.perform_health_check": ["self"],
    "TimeSeriesClusteringPipeline.export_performance_data": ["self", "file_path"],
    "TimeSeriesClusteringPipeline.update_performance_thresholds": [
        *("self", "alert_thresholds", "drift_thresholds")
    ],
    "TimeSeriesClusteringPipeline.load": ["model_uri"],
    "TimeSeriesClusteringPipeline.record_outcomes": ["self", "version_id", "y", "resources"],
    "AdaptiveRetrainingManager.monitor_batch_result": ["self", "batch_result", "batch_data"],
    "AdaptiveRetrainingManager.request_manual_retraining": ["self", "reason"],
    "AdaptiveRetrainingManager.check_scheduled_retraining": ["self", "schedule_interval"],
    "AdaptiveRetrainingManager.get_retraining_status": ["self"],
    "AdaptiveRetrainingManager.get_retraining_recommendations": ["self"],
    "PerformanceMonitor.record_metric": ["self", "metric_name", "value", "component"],
    "PerformanceMonitor.check_alerts": ["self"],
    "PerformanceMonitor.get_performance_summary": ["self"],
    "PerformanceMonitor.detect_drift": ["self", "metric_name", "window_size"],
    "ErrorHandler.handle_error": ["self", "error", "context"],
    "ErrorHandler.get_error_statistics": ["self"],
    "ErrorHandler.clear_error_history": ["self"],
    "ErrorHandler.enable_graceful_degradation": ["self", "enable"],
    "DataVersioner": ["base_dir", "hash_algorithm"],
    "DataVersioner.register": ["self", "df", "version_id"],
    "DataVersioner.list_versions": ["self"],
    "DataVersioner.load": ["self", "version_id"],
    "DataVersioner.get_latest_version": ["self"],
    "ModelRegistry": ["base_dir"],
    "ModelRegistry.save": ["self", "model", "version_id", "metadata"],
    "ModelRegistry.load": ["self", "version_id"],
    "ModelRegistry.list_versions": ["self"],
    "ModelRegistry.get_latest_version": ["self"],
    "ModelMonitor": [
        *("monitoring_dir", "metrics_file", "drift_file", "accuracy_min_threshold"),
        *("drift_threshold", "drift_min_samples"),
    ],
    "ModelMonitor.record_metrics": ["self", "accuracy", "data_version", "model_version", "extra"],
    "ModelMonitor.get_latest_accuracy": ["self"],
    "ModelMonitor.update_reference_distribution": ["self", "feature_means"],
    "ModelMonitor.compute_drift": ["self", "feature_means"],
    "ModelMonitor.should_retrain": [
        *("self", "current_accuracy", "current_feature_means", "no_model_yet"),
    ],
    "run_pipeline": ["config_path"],
    "generate_synthetic_data": ["n_samples", "n_features", "random_state"],
    "train_model": ["X_train", "y_train", "config"],
    "validate_data_quality": ["df", "step_name"],
    "error_handler": ["step_name"],
    "validate_input_data": ["X", "y"],
    "validate_batch_data": ["X_batch", "expected_features"],
    "calculate_clustering_metrics": ["X", "labels"],
    "calculate_model_metrics": ["y_true", "y_pred"],
    "create_cluster_visualization": ["X", "labels", "save_path"],
    "create_performance_plots": ["metrics_history", "save_path"],
    "analyze": ["request"],
    "clustering_analysis_tool": ["request"],
}


@pytest.mark.parametrize(("name", "expected"), SIGNATURES.items())
def test_the_specified_signatures_hold_and_additions_have_defaults(name, expected):
    thing = tsclust_model
    for part in name.split("."):
        thing = getattr(thing, part)
    parameters = list(inspect.signature(thing).parameters.values())
    assert [parameter.name for parameter in parameters[: len(expected)]] == expected
    for parameter in parameters[len(expected) :]:
        assert parameter.default is not inspect.Parameter.empty, parameter


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, tsclust_model; "
        "print(sorted({'numpy', 'pandas', 'mlflow', 'lightgbm', 'hdbscan'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]", done.stderr


def test_conda_yaml_lists_what_pyproject_requires():
    required = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((PROJECT / "conda.yaml").read_text())["dependencies"]
    assert conda[-1] == {"pip": required["dependencies"]}
    assert conda[:-1] == [f"python{required['requires-python']}", "pip"]


def test_the_wheel_holds_the_package_only_and_all_of_it(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((PROJECT / name).read_bytes())
    for folder in ("tsclust_model", "entrypoints"):
        shutil.copytree(
            PROJECT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    inner = source / "tsclust_model" / "one" / "two"  # however deep a folder lies
    inner.mkdir(parents=True)
    for path in (inner.parent / "__init__.py", inner / "__init__.py", inner / "page.html.j2"):
        path.touch()
    (source / "tests").mkdir()
    (source / "tests" / "conftest.py").touch()
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), "."]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob(f"tsclust_model-{tsclust_model.__version__}-*.whl")
    with zipfile.ZipFile(wheel) as content:
        held = {name for name in content.namelist() if ".dist-info/" not in name}
    package = source / "tsclust_model"
    files = [path for path in package.rglob("*") if path.suffix in (".py", ".typed", ".j2")]
    assert held == {path.relative_to(source).as_posix() for path in files}
    assert {"tsclust_model/py.typed", "tsclust_model/one/two/page.html.j2"} <= held
    # Installed, the program works from any folder.
    installed = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target"]
    subprocess.run([*installed, str(tmp_path / "site"), str(wheel)], check=True)
    helped = subprocess.run(
        [str(tmp_path / "site" / "bin" / "tsclust"), "score", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert helped.returncode == 0, helped.stderr
    assert "tsclust score --data new.csv" in helped.stdout
