"""What the clustering analysis answers, as pydantic models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from tsclust_model.config_files import Share, Strict

Algorithm = Literal[
    "kmeans", "dbscan", "hierarchical", "spectral", "gaussian_mixture", "hdbscan", "optics"
]

AlgorithmOrAuto = Literal[
    "kmeans", "dbscan", "hierarchical", "spectral", "gaussian_mixture", "hdbscan", "optics", "auto"
]


class Sample(Strict):
    """How many rows the algorithm saw, where it did not see all."""

    rows_fitted: int
    rows_assigned: int
    how: str


class ModelInfo(Strict):
    algorithm: Algorithm
    requested_algorithm: AlgorithmOrAuto
    parameters: dict[str, JsonValue]
    n_clusters: Annotated[int, Field(ge=0)]
    noise_ratio: Share
    training_timestamp: datetime
    sample: Sample | None
    notes: list[str]


class ClusterAssignment(Strict):
    sample_id: Annotated[int | str, Field(description="row's number, or its id_column")]
    cluster_id: Annotated[int, Field(ge=-1)]
    confidence: Share


class ClusterCenter(Strict):
    cluster_id: Annotated[int, Field(ge=0)]
    center_coordinates: Annotated[
        list[float], Field(description="in the order of data_statistics.features")
    ]
    cluster_size: Annotated[int, Field(ge=1)]


class ClusterStatistics(Strict):
    cluster_id: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=1)]
    density: Annotated[float, Field(ge=0)] | None
    compactness: Annotated[float, Field(ge=0)]
    separation: Annotated[float, Field(ge=0)] | None


class Clusters(Strict):
    cluster_assignments: list[ClusterAssignment]
    cluster_centers: list[ClusterCenter]
    cluster_statistics: list[ClusterStatistics]


class Fold(Strict):
    adjusted_rand_score: float
    n_clusters: int
    noise_ratio: Share
    silhouette_score: float | None
    calinski_harabasz_score: float | None
    davies_bouldin_score: float | None


class CrossValidation(Strict):
    folds: list[Fold]
    mean_adjusted_rand_score: float
    rows_per_fold: int


class ClusterSilhouette(Strict):
    cluster_id: int
    mean_silhouette: float
    share_negative: Share


class ClusterValidation(Strict):
    """The silhouette against that of tables whose columns were shuffled one by one."""

    silhouette_score: float | None
    shuffled_silhouette_scores: list[float | None]
    excess: float | None


class EvaluationMetrics(Strict):
    silhouette_score: float | None
    calinski_harabasz_score: float | None
    davies_bouldin_score: float | None
    inertia: float | None
    dbcv: float | None
    adjusted_rand_score: float | None
    normalized_mutual_info_score: float | None
    undefined: Annotated[dict[str, str], Field(description="why a metric is null")]
    cross_validation: CrossValidation | None
    silhouette_analysis: list[ClusterSilhouette] | None
    cluster_validation: ClusterValidation | None


class FeatureImportance(Strict):
    feature: str
    importance: Share


class Characteristic(Strict):
    mean: float
    standard_deviation: float
    overall_mean: float
    difference: Annotated[float, Field(description="in standard deviations of all rows")]


class ClusterProfile(Strict):
    cluster_id: int
    share: Share
    characteristics: Annotated[
        dict[str, Characteristic],
        Field(description="by feature, what sets the cluster apart most first"),
    ]
    representative_samples: list[int | str]


class OutlierAnalysis(Strict):
    outliers: list[int | str]
    outlier_scores: Annotated[list[Share], Field(description="one a row, in row order")]
    method: str


class ClusterAnalysis(Strict):
    feature_importance: list[FeatureImportance]
    cluster_profiles: list[ClusterProfile]
    outlier_analysis: OutlierAnalysis


class Visualizations(Strict):
    scatter_plot: Annotated[str | None, Field(description="base64 PNG, or plotly HTML")]
    silhouette_plot: str | None
    dendrogram: str | None
    cluster_heatmap: str | None
    files: Annotated[dict[str, str], Field(description="paths, by plot")]
    omitted: Annotated[dict[str, str], Field(description="why a plot is null")]


class SweepRow(Strict):
    """One candidate of the sweep; docs/analysis.md has the formulas."""

    algorithm: Algorithm
    parameters: dict[str, JsonValue]
    n_clusters: int
    noise_ratio: Share
    stability: float | None
    agreement: float | None
    connectivity: float | None
    modularity: float | None
    dbcv: float | None
    silhouette_score: float | None
    mean_rank: float | None
    support: float | None
    score: float | None
    excluded: Annotated[str | None, Field(description="why it is not ranked")]


class TendencyFigures(Strict):
    silhouette: float
    valley: float
    bic_gain: float


class TendencyBounds(Strict):
    """What single clouds of rows reach by chance."""

    uniform: TendencyFigures
    normal: TendencyFigures


class Groups(Strict):
    """Whether there are groups at all; docs/analysis.md has the test."""

    present: bool
    n_rows: Annotated[int, Field(description="rows it was computed on")]
    figures: TendencyFigures
    bounds: TendencyBounds


class Recommendations(Strict):
    groups: Annotated[Groups | None, Field(description="null without cluster_validation or auto")]
    optimal_clusters: Annotated[int | None, Field(description="1 where there are no groups")]
    algorithm_recommendation: Algorithm | None
    parameter_suggestions: dict[str, JsonValue]
    interpretation_guidance: list[str]
    sweep: list[SweepRow]
    sweep_rows: Annotated[int, Field(description="rows the sweep was made on")]
    sweep_candidates: Annotated[
        int, Field(description="how many there are; fewer in sweep: the time budget was used up")
    ]


class ClusteringResults(Strict):
    model_info: ModelInfo
    clusters: Clusters
    evaluation_metrics: EvaluationMetrics
    cluster_analysis: ClusterAnalysis
    visualizations: Visualizations
    recommendations: Recommendations


class DataStatistics(Strict):
    n_rows: int
    n_rows_used: int
    n_rows_dropped: Annotated[int, Field(description="rows with missing or infinite values")]
    missing_by_column: dict[str, int]
    n_outliers_removed: int
    features: list[str]
    columns_left_out: Annotated[dict[str, str], Field(description="why, by column")]
    n_dimensions: Annotated[int, Field(description="columns after reduction")]
    explained_variance: Share | None


class Metadata(Strict):
    processing_timestamp: datetime
    processing_duration: Annotated[float, Field(ge=0, description="seconds")]
    data_statistics: DataStatistics
    version: str
    request_metadata: dict[str, JsonValue]


class AnalysisResult(Strict):
    """The answer."""

    clustering_results: ClusteringResults
    metadata: Metadata
