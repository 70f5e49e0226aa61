"""What the specification fixes of each member: defaults, results, and that it does something."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

import tsclust_model as api
from tests.support import QUICK, VITALS, Clock
from tsclust_model.data.synthetic import make_hospital

TARGET = "length_of_stay_days"
CONFIG = api.PipelineConfig(
    hdbscan_params={"min_cluster_size": 15}, lgb_timeseries_params=QUICK, lgb_resource_params=QUICK
)

DEFAULTS = {
    "TimeSeriesClusteringPipeline.process_batch": {"y_batch": None},
    "TimeSeriesClusteringPipeline.retrain": {"trigger_reason": "Manual request"},
    "TimeSeriesClusteringPipeline.get_recent_errors": {"limit": 10},
    "TimeSeriesClusteringPipeline.enable_graceful_degradation": {"enable": True},
    "TimeSeriesClusteringPipeline.get_performance_metrics": {
        "metric_names": None,
        "time_window": None,
    },
    "TimeSeriesClusteringPipeline.get_alert_summary": {"time_window": None},
    "TimeSeriesClusteringPipeline.update_performance_thresholds": {
        "alert_thresholds": None,
        "drift_thresholds": None,
    },
    "PerformanceMonitor.record_metric": {"component": "pipeline"},
    "PerformanceMonitor.detect_drift": {"window_size": 10},
    "ErrorHandler.enable_graceful_degradation": {"enable": True},
    "ExperimentManager.start_run": {"nested": False},
    "DataVersioner": {"hash_algorithm": "sha256"},
    "DataVersioner.register": {"version_id": None},
    "ModelRegistry.save": {"metadata": None},
    "validate_input_data": {"y": None},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_those_of_the_specification(name: str):
    owner, _, member = name.partition(".")
    called = getattr(getattr(api, owner), member) if member else getattr(api, owner)
    parameters = inspect.signature(called).parameters
    assert {key: parameters[key].default for key in DEFAULTS[name]} == DEFAULTS[name]


@pytest.fixture(scope="module")
def stream() -> pd.DataFrame:
    frame = make_hospital(800, random_state=3)
    return frame[[*VITALS, TARGET]].astype(float)


def parts(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    return frame[list(VITALS)], frame[TARGET]


@pytest.fixture(scope="module")
def living(
    store_folder: Path, stream: pd.DataFrame
) -> Iterator[tuple[api.TimeSeriesClusteringPipeline, api.ClusteringResult, api.BatchResult]]:
    """A pipeline after its fit and one labelled batch, with the results of both."""
    uri = f"sqlite:///{store_folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store_folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        pipeline = api.TimeSeriesClusteringPipeline(CONFIG, model_name="contract", clock=Clock())
        clustering = pipeline.fit_initial(*parts(stream.head(500)))
        pipeline.update_performance_thresholds({"noise_ratio": 0.0}, {"noise_ratio_trend": 0.3})
        yield pipeline, clustering, pipeline.process_batch(*parts(stream[500:600]))
        pipeline.close()
        mlflow.set_tracking_uri(before)


def keys(*names: str) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, dict) and set(names) <= set(found)


def of(kind: type | tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, kind)


MEMBERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool]]] = {
    "is_fitted": (lambda p: p.is_fitted, lambda found: found is True),
    "is_batch_processing_enabled": (
        lambda p: p.is_batch_processing_enabled,
        lambda found: found is True,
    ),
    "current_model_version": (lambda p: p.current_model_version, lambda found: found == "1"),
    "current_health_status": (
        lambda p: p.current_health_status,
        lambda found: found == "degraded",  # noise over its threshold of 0
    ),
    "monitoring_statistics": (
        lambda p: p.monitoring_statistics,
        lambda found: found["batches"] == found["alerts"] >= 1,
    ),
    "get_performance_report": (
        lambda p: p.get_performance_report(),
        lambda found: (
            isinstance(found, api.PerformanceReport)
            and set(found.model_metrics)
            and {"rmse", "mae", "r2"} <= set(next(iter(found.model_metrics.values())))
            and all(Path(path).is_file() for path in found.visualizations.values())
            and isinstance(found.timestamp, datetime)
            and found.model_version == "1"
        ),
    ),
    "last_performance_report": (
        lambda p: (p.get_performance_report(), p.last_performance_report),
        lambda found: found[0] is found[1],
    ),
    "get_pipeline_status": (
        lambda p: p.get_pipeline_status(),
        keys(
            *("pipeline_fitted", "batch_processing_enabled", "current_model_version"),
            *("last_training_time", "performance_metrics"),
        ),
    ),
    "get_model_info": (
        lambda p: p.get_model_info(),
        keys("clustering", "timeseries_models", "resource_models", "fallback_model"),
    ),
    "get_error_statistics": (
        lambda p: p.get_error_statistics(),
        lambda found: found["total_errors"] == 0 and found["refused_calls"] == {},
    ),
    "get_recent_errors": (lambda p: p.get_recent_errors(limit=3), lambda found: found == []),
    "diagnose_pipeline_health": (
        lambda p: p.diagnose_pipeline_health(),
        keys("pipeline_status", "component_health", "performance_metrics", "recommendations"),
    ),
    "perform_health_check": (
        lambda p: p.perform_health_check(),
        lambda found: found["components"]["alerts"].startswith("noise_ratio "),
    ),
    "get_performance_metrics": (
        lambda p: p.get_performance_metrics(["rmse"], timedelta(days=1)),
        lambda found: list(found) == ["rmse"] and found["rmse"][0]["value"] > 0,
    ),
    "get_alert_summary": (
        lambda p: p.get_alert_summary(timedelta(hours=1)),
        lambda found: set(found["by_metric"]) == {"noise_ratio"},  # once a batch
    ),
    "get_retraining_status": (lambda p: p.get_retraining_status(), keys("batches_seen")),
    "get_retraining_recommendations": (lambda p: p.get_retraining_recommendations(), of(list)),
    "check_scheduled_retraining": (
        lambda p: p.check_scheduled_retraining(timedelta(days=9)),
        lambda found: found is False,
    ),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_of_the_pipeline_gives_what_the_specification_says(living, name: str):
    call, holds = MEMBERS[name]
    found = call(living[0])
    assert holds(found), found


def test_a_fit_gives_a_clustering_result(living):
    _, found, _ = living
    assert isinstance(found, api.ClusteringResult)
    n_clusters = found.metrics["n_clusters"]
    assert (found.labels.shape, found.cluster_centers.shape) == ((500,), (n_clusters, len(VITALS)))
    assert 0 <= found.noise_ratio <= 1
    assert set(found.metrics) >= {
        *("n_clusters", "n_noise_points", "noise_ratio", "silhouette_score"),
        *("calinski_harabasz_score", "davies_bouldin_score"),
    }


def test_a_batch_gives_a_batch_result(living):
    _, _, found = living
    assert isinstance(found, api.BatchResult)
    assert found.cluster_assignments.shape == found.timeseries_predictions.shape == (100,)
    assert found.timeseries_predictions.dtype == np.float64
    assert set(found.resource_predictions) == set(found.cluster_assignments.tolist())
    for costs in found.resource_predictions.values():
        assert set(costs) == {"processing_time", "memory_usage"}
        assert min(costs.values()) > 0
    assert 0 < found.noise_ratio < 1
    assert 0 < found.processing_time < 60
    assert isinstance(found.version_id, str)
    assert found.degraded == ()


def test_errors_are_dicts_with_the_foreign_type(living, stream):
    pipeline, _, _ = living
    pipeline.set_callbacks(post_batch=lambda result: 1 / 0)
    pipeline.process_batch(*parts(stream[600:700]))
    pipeline.set_callbacks()
    (found,) = pipeline.get_recent_errors(1)
    assert isinstance(found, dict)
    assert found["error_type"] == "ZeroDivisionError"
    pipeline._errors.clear_error_history()


def test_a_reset_leaves_nothing_of_what_was_watched(store, stream):
    pipeline = api.TimeSeriesClusteringPipeline(CONFIG)
    pipeline._monitor.record_metric("noise_ratio", 0.9)
    pipeline._errors.handle_error(ValueError(), "x")
    pipeline.reset_pipeline_state()
    assert pipeline.monitoring_statistics == {"batches": 0, "metrics": {}, "alerts": 0, "errors": 0}


PARTS: dict[str, tuple[Callable[[], Any], Callable[[Any], bool]]] = {
    "ErrorHandler.handle_error": (
        lambda: api.ErrorHandler().handle_error(ValueError(), {"component": "x"}),
        lambda found: found is True,
    ),
    "PerformanceMonitor.check_alerts": (
        lambda: _recorded().check_alerts() + _recorded().check_alerts(),
        lambda found: [type(alert) for alert in found] == [api.PerformanceAlert] * 2,
    ),
    "PerformanceMonitor.detect_drift": (
        lambda: _recorded().detect_drift("noise_ratio", 2),
        lambda found: found is True,
    ),
    "PerformanceMonitor.get_performance_summary": (
        lambda: _recorded().get_performance_summary(),
        keys("noise_ratio"),
    ),
    "calculate_model_metrics": (
        lambda: api.calculate_model_metrics(np.array([1.0, 2]), np.array([1.0, 4])),
        lambda found: found["rmse"] == pytest.approx(np.sqrt(2)) and found["mae"] == 1.0,
    ),
    "KNNFallback": (
        lambda: api.KNNFallback(n_neighbors=1).fit([[0.0], [9.0]], [4, 7]).get_fallback_metrics(),
        keys("accuracy", "usage"),
    ),
}


def _recorded() -> api.PerformanceMonitor:
    monitor = api.PerformanceMonitor()
    for value in (0.1, 0.1, 0.9, 0.9):
        monitor.record_metric("noise_ratio", value)
    return monitor


@pytest.mark.parametrize("name", PARTS)
def test_a_part_gives_what_the_specification_says(name: str):
    call, holds = PARTS[name]
    found = call()
    assert holds(found), found


def test_plots_of_both_forms_are_written(tmp_path: Path):
    for i, history in enumerate(({"rmse": [1.0, 2.0]}, [{"rmse": 1.0}, {"rmse": 2.0}])):
        path = tmp_path / f"{i}.png"
        assert api.create_performance_plots(history, path) == str(path)
        assert path.stat().st_size > 1000
