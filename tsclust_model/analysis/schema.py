"""What the clustering analysis is asked, and what it answers, as pydantic models.

The JSON Schemas in ``docs/`` are written from these models by ``make docs``.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationError,
)

from tsclust_model.analysis.result import AlgorithmOrAuto, AnalysisResult
from tsclust_model.config_files import Strict, Text, first_problem
from tsclust_model.errors import ConfigurationError, listed
from tsclust_model.files import write_whole

_OTHER_NAMES = {
    "scatter": "scatter_plot",
    "silhouette": "silhouette_plot",
    "heatmap": "cluster_heatmap",
}

_SHORT_METRICS = {
    "silhouette": "silhouette_score",
    "calinski_harabasz": "calinski_harabasz_score",
    "davies_bouldin": "davies_bouldin_score",
    "adjusted_rand": "adjusted_rand_score",
    "normalized_mutual_info": "normalized_mutual_info_score",
}


def _whole(value: Any) -> Any:
    """3.0 is the integer 3, as in JSON Schema; anything else stays for pydantic to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole)]

Metric = Annotated[
    Literal[
        "silhouette_score",
        "calinski_harabasz_score",
        "davies_bouldin_score",
        "inertia",
        "dbcv",
        "adjusted_rand_score",
        "normalized_mutual_info_score",
        "silhouette",
        "calinski_harabasz",
        "davies_bouldin",
        "adjusted_rand",
        "normalized_mutual_info",
    ],
    AfterValidator(lambda name: _SHORT_METRICS.get(name, name)),
]

Plot = Annotated[
    Literal[
        "scatter_plot",
        "silhouette_plot",
        "dendrogram",
        "cluster_heatmap",
        "scatter",
        "silhouette",
        "heatmap",
    ],
    AfterValidator(lambda name: _OTHER_NAMES.get(name, name)),
]


class ClusteringData(Strict):
    """Where the rows are, and which columns count."""

    data_source: Annotated[Text, Field(description="path, glob or fsspec URL")]
    data_format: Annotated[
        Literal["csv", "json", "parquet", "hdf5"] | None,
        Field(description="guessed by the suffix when absent"),
    ] = None
    features: Annotated[
        list[Text] | None,
        Field(min_length=1, description="columns to cluster; null is every numeric column"),
    ] = None
    target_variable: Annotated[
        str | None, Field(description="column of known classes, for evaluation only")
    ] = None
    id_column: Annotated[
        Text | None,
        Field(description="column whose values name the rows; null is the row's number, from 0"),
    ] = None
    metadata: dict[str, JsonValue] = Field(
        default={}, description="anything; repeated in the result"
    )


class ClusteringConfiguration(Strict):
    """What clusters them."""

    algorithm: Annotated[AlgorithmOrAuto, Field(description="auto takes the best of the sweep")]
    parameters: dict[str, JsonValue] = Field(
        default={}, description="arguments of the library's class"
    )
    n_clusters: Annotated[
        Integer | None, Field(ge=2, description="null is chosen; not for dbscan, hdbscan, optics")
    ] = None
    random_state: Annotated[Integer, Field(ge=0, le=2**32 - 1)] = 42
    recommend: Annotated[
        bool, Field(description="also sweep the other algorithms; auto always does")
    ] = False
    time_budget: Annotated[
        float,
        Field(gt=0, description="seconds after which the sweep starts no further candidate"),
    ] = 300.0


class PreprocessingConfiguration(Strict):
    """What happens to the columns before."""

    scaling: Literal["standard", "minmax", "robust", "none"] = "standard"
    dimensionality_reduction: Annotated[
        Literal["pca", "umap", "tsne", "none"],
        Field(description="tsne draws the scatter plot and feeds no clustering"),
    ] = "none"
    n_components: Annotated[
        Integer | None, Field(ge=1, description="null: pca keeps 90% of the variance, umap 5")
    ] = None
    feature_selection: Annotated[
        bool, Field(description="leave out columns that repeat another one")
    ] = False
    outlier_detection: Annotated[
        bool, Field(description="leave outliers (isolation forest) out of the clustering")
    ] = False


class EvaluationConfiguration(Strict):
    """How the clustering is evaluated."""

    evaluation_metrics: Annotated[
        list[Metric] | None, Field(min_length=1, description="null is all of them")
    ] = None
    cross_validation: Annotated[
        bool, Field(description="stability over five refits on random four fifths of the rows")
    ] = True
    silhouette_analysis: Annotated[bool, Field(description="silhouettes by cluster")] = True
    cluster_validation: Annotated[
        bool, Field(description="compare with the same rows without structure")
    ] = True


class VisualizationConfiguration(Strict):
    """What is drawn."""

    generate_plots: bool = True
    plot_types: Annotated[list[Plot] | None, Field(description="null is all of them")] = None
    interactive_plots: Annotated[bool, Field(description="plotly HTML instead of PNG")] = False
    save_plots: Annotated[bool, Field(description="files too, in PLOT_OUTPUT_DIR")] = False


class AnalysisRequest(Strict):
    """One question: which clustering suits this table?"""

    clustering_data: ClusteringData
    clustering_configuration: ClusteringConfiguration
    preprocessing_configuration: PreprocessingConfiguration = PreprocessingConfiguration()
    evaluation_configuration: EvaluationConfiguration = EvaluationConfiguration()
    visualization_configuration: VisualizationConfiguration = VisualizationConfiguration()


def parse_request(request: AnalysisRequest | Mapping[str, Any]) -> AnalysisRequest:
    """The request, checked.

    A field that is unknown, missing or impossible is a ConfigurationError; the first one is named.
    """
    if isinstance(request, AnalysisRequest):
        return request
    if not isinstance(request, Mapping):
        raise ConfigurationError(
            f"the request is {type(request).__name__}; give a mapping, as docs/analysis.md shows"
        )
    try:
        return AnalysisRequest.model_validate(_plain(request))
    except ValidationError as error:
        raise ConfigurationError(_first_problem(error)) from error


def read_request(path: str | Path) -> AnalysisRequest:
    """The request of a JSON file; a relative ``data_source`` is looked for beside it first.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ConfigurationError
        The file is not JSON, or `parse_request` refuses it.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigurationError(f"{path} is not valid JSON{where}") from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{path} is a folder; name the JSON file in it") from error
    asked = parse_request(content)
    data = asked.clustering_data
    beside = Path(path).parent / data.data_source
    if Path(data.data_source).is_absolute() or not glob.glob(str(beside)):
        return asked
    nearer = data.model_copy(update={"data_source": str(beside)})
    return asked.model_copy(update={"clustering_data": nearer})


def _plain(value: Any, path: str = "") -> Any:
    """The value as JSON has it: numpy's numbers, tuples, arrays and paths become plain ones."""
    if isinstance(value, Mapping):
        inside = f"{path}." if path else ""
        return {key: _plain(item, f"{inside}{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray, pd.Index, pd.Series)):
        return [_plain(item, f"{path}.{i}") for i, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{path} is {value}, which JSON does not have; give a number")
    return value


def _first_problem(error: ValidationError) -> str:
    problem = first_problem(error, AnalysisRequest)
    path = problem.place
    if problem.kind == "extra_forbidden":
        return f"unknown field '{path}'{problem.hint}"
    if problem.kind == "missing":
        return f"the field '{path}' is missing; it is required"
    if problem.kind == "model_type":
        return f"{path} is {_shown(problem.value)}; give an object with {listed(problem.known)}"
    return f"{path} is {_shown(problem.value)}; {problem.text}"


def _shown(value: Any) -> str:
    """A value of a message; of anything but JSON the kind, for a table would be its rows."""
    if value is None:
        return "null"
    if isinstance(value, (str, int, float, list, dict)):
        return f"{value!r:.200}"
    return f"a {type(value).__name__}"


def write_schemas(folder: str | Path) -> list[Path]:
    """Write the JSON Schema of the request and of the result, and return their paths."""
    written = []
    for name, model in (("request", AnalysisRequest), ("result", AnalysisResult)):
        path = Path(folder) / f"analysis_{name}.schema.json"
        write_whole(path, schema_text(model))
        written.append(path)
    return written


def schema_text(model: type[BaseModel]) -> str:
    """The JSON Schema of a model as it stands in ``docs/``."""
    return json.dumps(model.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    for schema in write_schemas("docs"):
        print(schema)
