"""The settings of the operations loop: one YAML file, and the environment over it.

A value may hold ``${NAME}`` or ``${NAME:-default}``, which is read from the environment, and any
value may be set by a variable ``TSCLUST_<SECTION>__<KEY>``, which wins over the file
(``TSCLUST_MODEL__HDBSCAN_PARAMS__MIN_CLUSTER_SIZE=25`` goes one deeper).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from tsclust_model.config import PipelineConfig
from tsclust_model.config_files import (
    Count,
    NonNegative,
    Positive,
    Settings,
    Share,
    Text,
    WholeNumber,
    first_problem,
    read_yaml,
)
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, suggestion
from tsclust_model.models.task import Task
from tsclust_model.training.task import task_of

# YAML reads a plain off as false.
_Off = BeforeValidator(lambda value: "off" if value is False else value)

Mode = Annotated[Literal["off", "warn", "block"], _Off]

Console = Annotated[Literal["human", "json", "off"], _Off]

ModelType = Literal["lightgbm", "logistic", "random_forest"]

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")]

CHECKS = (
    *("removed", "renamed", "added", "type", "unit", "missing", "range"),
    *("duplicates", "time", "time_order", "category", "category_drift", "too_few"),
)
"""What `validate_data_quality` looks at; each can have a mode of its own."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class DataSettings(Settings):
    """Where the rows come from, and which column is what (see `Roles`).

    A `horizon` of 1 or more makes it a long table of series: `id`, `time`, values.
    """

    path: Text = Field(description="path, glob or URL of csv, parquet, json or hdf5")
    target: Text
    features: tuple[Text, ...] = ()
    resources: tuple[Text, ...] = ()
    time: Text | None = None
    id: Text | None = None
    horizon: WholeNumber = Field(
        default=0, description="periods of each series to forecast; 0: rows, no series"
    )
    frequency: Text | None = Field(default=None, description="of series; guessed where not given")
    future: tuple[Text, ...] = Field(
        default=(), description="covariates of series that are known for the horizon as well"
    )
    static: tuple[Text, ...] = Field(
        default=(), description="covariates with one value for each series"
    )
    holidays: Text | None = Field(
        default=None, description="country whose holidays are a covariate of series: AU, AU-NSW ..."
    )
    text_columns: tuple[Text, ...] = Field(default=(), description='a csv keeps "007" in these')
    versions_dir: Text | None = Field(
        default=None, description="folder of what came in; default: in the model's storage"
    )


class QualitySettings(Settings):
    """What is asked of new rows before anything else sees them (see `validate_data_quality`)."""

    mode: Mode = "block"
    checks: dict[str, Mode] = Field(
        default={"added": "warn", "category_drift": "warn", "time_order": "warn"},
        description="checks that are less strict than mode",
    )
    max_removed_share: Share = 0.1
    max_missing_rise: Share = 0.2
    max_unseen_share: Share = 0.1
    max_category_shift: Share = 0.5
    range_tolerance: NonNegative = 1.0
    min_rows: Count = 1

    @field_validator("checks")
    @classmethod
    def _known_checks(cls, checks: dict[str, Mode]) -> dict[str, Mode]:
        for name in checks:
            if name not in CHECKS:
                raise ValueError(f"there is no check '{name}'{suggestion(name, CHECKS)}")
        return checks


class TrainingSettings(Settings):
    """Which model is trained, and on what share of the rows."""

    model_type: ModelType = "lightgbm"
    params: dict[str, Any] = Field(default={}, description="of the scikit-learn estimator")
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    promote: bool = True
    model_name: Text | None = Field(default=None, description="default: of section model")


class Threshold(Settings):
    """The fields of mlflow's `MetricThreshold`."""

    threshold: float | None = None
    min_absolute_change: Positive | None = None
    min_relative_change: Positive | None = None
    greater_is_better: bool


class MonitoringSettings(Settings):
    """What calls for a retrain, and what the serving model must reach."""

    dir: Text | None = Field(default=None, description="default: in the model's storage")
    metrics_file: FileName = "metrics.jsonl"
    drift_file: FileName = "drift.json"
    accuracy_min_threshold: float | None = Field(
        default=None,
        description="least accuracy of classes (0 to 1), R² of numbers, or forecast accuracy "
        "(1 - WAPE) of series",
    )
    drift_threshold: Positive = 0.2
    drift_min_samples: Count = 50
    thresholds: dict[str, Threshold] = Field(default={})


class MlflowSettings(Settings):
    """Where runs and models go; what is not given comes from mlflow's own variables."""

    tracking_uri: Text | None = None
    registry_uri: Text | None = None
    username: Text | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    max_retries: WholeNumber = 3
    timeout: Positive = Field(default=30, description="seconds that one request may take")


class LoggingSettings(Settings):
    """What the entry point writes of its steps."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    console: Console = "human"
    file: Text | None = Field(default=None, description="JSON lines, rotated")
    max_bytes: Annotated[int, Field(ge=1000)] = 5_000_000
    backups: WholeNumber = 3


class LoopSettings(BaseSettings):
    """Everything the loop can be told; made by `load_settings`.

    Sections: ``data``, ``quality``, ``model`` (the fields of `PipelineConfig`), ``training``,
    ``monitoring``, ``mlflow``, ``logging``.
    """

    model_config = SettingsConfigDict(
        env_prefix="TSCLUST_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    data: DataSettings
    quality: QualitySettings = QualitySettings()
    model: dict[str, Any] = {}
    training: TrainingSettings = TrainingSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    mlflow: MlflowSettings = MlflowSettings()
    logging: LoggingSettings = LoggingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        return env_settings, init_settings

    @property
    def pipeline(self) -> PipelineConfig:
        """The section ``model``."""
        return PipelineConfig.from_dict(self.model)

    @property
    def task(self) -> Task:
        """What is trained where there is no model yet."""
        data = self.data
        roles = Roles(
            data.target,
            data.features,
            data.resources,
            data.time,
            data.id,
            horizon=data.horizon,
            frequency=data.frequency,
            future=data.future,
            static=data.static,
            holidays=data.holidays,
        )
        return task_of(roles, self.pipeline, self.training.model_type, self.training.params)

    @property
    def model_name(self) -> str:
        """The registered model."""
        return self.training.model_name or self.pipeline.registered_model_name


def load_settings(path: str | Path) -> LoopSettings:
    """The settings of a YAML file, with the environment laid over them.

    A file that is not YAML, or a wrong key or value, named as ``section.key``, is a
    ConfigurationError.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise ConfigurationError(f"{path} is {kind}; it must be a mapping of sections")
    try:
        settings = LoopSettings(**_filled({str(key): value for key, value in content.items()}))
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {_first_problem(error)}") from None  # may hold a secret
    except SettingsError as error:
        field = str(error).partition('"')[2].partition('"')[0]  # all it says of the variable
        raise ConfigurationError(
            f"a variable TSCLUST_{field.upper()}... cannot be read; write lists and mappings as "
            'JSON, for instance ["a", "b"]'
        ) from error
    try:
        settings.pipeline  # noqa: B018  checked now, not when it is needed
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: section model: {error}") from error
    try:
        settings.task  # noqa: B018
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return settings


@contextmanager
def mlflow_variables(settings: MlflowSettings) -> Iterator[None]:
    """Tell mlflow where to go, while the block runs; variables that are set already win.

    ``mlflow run`` sets MLFLOW_TRACKING_URI to where it has made the run.
    """
    secrets = {
        "MLFLOW_TRACKING_PASSWORD": settings.password,
        "MLFLOW_TRACKING_TOKEN": settings.token,
    }
    given = {
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_REGISTRY_URI": settings.registry_uri,
        "MLFLOW_TRACKING_USERNAME": settings.username,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(settings.max_retries),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(round(settings.timeout)),
    } | {name: secret and secret.get_secret_value() for name, secret in secrets.items()}
    added = {name: value for name, value in given.items() if value and name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _filled(content: Any, place: str = "") -> Any:
    """The content with ``${NAME}`` read from the environment."""
    if isinstance(content, dict):
        return {key: _filled(item, f"{place}.{key}".lstrip(".")) for key, item in content.items()}
    if isinstance(content, list):
        return [_filled(item, place) for item in content]
    if not isinstance(content, str):
        return content
    text = _VARIABLE.sub(lambda match: _value_of(match, place), content)
    if place.startswith("model.") and _VARIABLE.fullmatch(content):
        return _decoded(text)  # PipelineConfig takes no text for a number
    return text


def _value_of(match: re.Match[str], place: str) -> str:
    name, default = match.groups()
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigurationError(f"{place} needs the environment variable {name}; set it")
    return value


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _first_problem(error: ValidationError) -> str:
    """What is wrong first, without the value, which may be a secret."""
    problem = first_problem(error, LoopSettings)
    if problem.kind == "extra_forbidden":
        return f"unknown key '{problem.place}'{problem.hint}"
    if problem.kind == "missing":
        return f"{problem.place} is missing; it is required"
    return f"{problem.place} is wrong: {problem.text}"
