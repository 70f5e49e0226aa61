"""Density segments, a forecast for each of them, and one MLflow model around both.

Names are imported on first use (PEP 562): a server or a Spark worker that unpickles a model
imports what scoring needs and nothing else.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "AdaptiveClusteringEngine": "clustering.engine",
    "AdaptiveRetrainingManager": "training.watch",
    "ArtifactManager": "mlflow_integration.artifacts",
    "Assignment": "results",
    "BatchResult": "results",
    "ClusterSpecificModelManager": "rows.cluster_models",
    "ClusteringError": "errors",
    "ClusteringResult": "results",
    "ConfigurationError": "errors",
    "DataLoadError": "errors",
    "DataValidationError": "errors",
    "DataVersioner": "data.history",
    "DriftMonitor": "monitoring.drift",
    "ErrorHandler": "monitoring.error_handler",
    "EvaluationError": "errors",
    "ExperimentManager": "mlflow_integration.runs",
    "ModelCheckError": "testing",
    "ModelMonitor": "monitoring.model_monitor",
    "ModelRegistry": "mlflow_integration.model_registry",
    "Generation": "rows.model",
    "KNNFallback": "clustering.fallback",
    "MLflowIntegrationError": "errors",
    "ModelTrainingError": "errors",
    "NotFittedError": "errors",
    "PerformanceAlert": "results",
    "PerformanceMonitor": "monitoring.metrics",
    "PerformanceReport": "results",
    "PipelineConfig": "config",
    "PipelineError": "errors",
    "PredictionError": "errors",
    "PreprocessingError": "errors",
    "RetrainingError": "errors",
    "Roles": "data.roles",
    "SeriesGeneration": "series.model",
    "TimeSeriesClusteringPipeline": "pipeline",
    "analyze": "analysis.analyze",
    "calculate_classification_metrics": "metrics",
    "calculate_clustering_metrics": "metrics",
    "calculate_model_metrics": "metrics",
    "check_model": "testing",
    "clustering_analysis_tool": "analysis.analyze",
    "create_cluster_visualization": "report.charts",
    "create_performance_plots": "report.charts",
    "generate_synthetic_data": "data.synthetic",
    "load_generation": "mlflow_integration.registry",
    "maintain": "operations.maintenance",
    "make_hospital": "data.synthetic",
    "error_handler": "mlflow_integration.runs",
    "make_ward_series": "data.synthetic",
    "retrain_model": "training.challenge",
    "model_checks": "testing",
    "run_pipeline": "operations.steps",
    "score_series": "series.scoring",
    "series_rows": "series.schema",
    "train_model": "training.in_memory",
    "validate_data_quality": "data.quality",
    "train_table": "training.train",
    "validate_batch_data": "data.columns",
    "validate_input_data": "data.columns",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tsclust_model' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tsclust_model.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
