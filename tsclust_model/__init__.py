"""Density segments, a forecast for each of them, and one MLflow model around both.

Names are imported on first use (PEP 562): a server or a Spark worker that unpickles a model
imports what scoring needs and nothing else.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "AdaptiveClusteringEngine": "clustering",
    "AdaptiveRetrainingManager": "retraining",
    "ArtifactManager": "tracking",
    "Assignment": "results",
    "BatchResult": "results",
    "ClusterSpecificModelManager": "cluster_models",
    "ClusteringError": "errors",
    "ClusteringResult": "results",
    "ConfigurationError": "errors",
    "DataLoadError": "errors",
    "DataValidationError": "errors",
    "DataVersioner": "history",
    "DriftMonitor": "drift",
    "ErrorHandler": "monitoring",
    "EvaluationError": "errors",
    "ExperimentManager": "tracking",
    "ModelCheckError": "testing",
    "ModelMonitor": "model_monitor",
    "ModelRegistry": "model_store",
    "Generation": "generation",
    "KNNFallback": "fallback",
    "MLflowIntegrationError": "errors",
    "ModelTrainingError": "errors",
    "NotFittedError": "errors",
    "PerformanceAlert": "results",
    "PerformanceMonitor": "monitoring",
    "PerformanceReport": "results",
    "PipelineConfig": "config",
    "PipelineError": "errors",
    "PredictionError": "errors",
    "PreprocessingError": "errors",
    "RetrainingError": "errors",
    "Roles": "validation",
    "SeriesGeneration": "series_generation",
    "TimeSeriesClusteringPipeline": "pipeline",
    "analyze": "analysis",
    "calculate_classification_metrics": "metrics",
    "calculate_clustering_metrics": "metrics",
    "calculate_model_metrics": "metrics",
    "check_model": "testing",
    "clustering_analysis_tool": "analysis",
    "create_cluster_visualization": "model_plots",
    "create_performance_plots": "model_plots",
    "generate_synthetic_data": "datasets",
    "load_generation": "registry",
    "maintain": "operations",
    "make_hospital": "datasets",
    "error_handler": "tracking",
    "make_ward_series": "datasets",
    "retrain_model": "training",
    "model_checks": "testing",
    "run_pipeline": "loop",
    "score_series": "series_scoring",
    "series_rows": "series_input",
    "train_model": "baseline_training",
    "validate_data_quality": "quality",
    "train_table": "training",
    "validate_batch_data": "validation",
    "validate_input_data": "validation",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tsclust_model' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tsclust_model.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
