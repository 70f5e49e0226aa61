"""One scikit-learn model for all rows: what the segments have to beat, in the same loop.

A baseline is trained, registered, compared and served like a `Generation`: behind the same input
validation, which says nothing of a row's values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tsclust_model.config import Params, PipelineConfig
from tsclust_model.data.columns import OK
from tsclust_model.data.frames import as_pandas
from tsclust_model.data.roles import Roles
from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    ModelTrainingError,
    PredictionError,
)
from tsclust_model.metrics import Metric
from tsclust_model.models.base import LIGHTGBM, MODEL_TYPE_TAG, NullableText
from tsclust_model.models.state import Parts, pack_json, unpack_json
from tsclust_model.results import Evaluation
from tsclust_model.rows.cases import RowsModel, answer_column
from tsclust_model.rows.estimators import estimator_bytes, estimator_of_bytes
from tsclust_model.rows.schema import Schema
from tsclust_model.rows.table import TrainingData, canonical_rows
from tsclust_model.rows.targets import Target, target_of
from tsclust_model.shown import one_line

LOGISTIC, FOREST = "logistic", "random_forest"


@one_line
@dataclass(frozen=True)
class Baseline(RowsModel):
    """A fitted scikit-learn pipeline, and what the loop asks of any model.

    Attributes
    ----------
    estimator : sklearn.pipeline.Pipeline
        Takes a table of the schema's columns.
    schema : Schema
    outcome : Target
    info : dict
        As of a `Generation`: ``config``, ``roles``, ``quality``, ``trained_on``, ...
    """

    kind: ClassVar[str] = "baseline"
    libraries: ClassVar[tuple[str, ...]] = ("skops",)

    estimator: Pipeline
    schema: Schema
    outcome: Target
    info: dict[str, Any] = field(default_factory=dict)
    reference: None = field(default=None, init=False, repr=False)
    fitted: None = field(default=None, init=False, repr=False)

    @property
    def metric(self) -> Metric:
        return self.outcome.metric

    @property
    def reported_columns(self) -> list[str]:
        return []  # there is no report

    @property
    def _answered(self) -> Target:
        """The target with the classes that the estimator has seen."""
        return self.outcome.seen_by(self.estimator)

    @property
    def output_types(self) -> dict[str, str]:
        return {"prediction": self.outcome.prediction_type, "status": "string"}

    def predict(
        self, frame: pd.DataFrame, coverage: float | None = None, quantiles: Sequence[float] = ()
    ) -> pd.DataFrame:
        """The forecast of each row: a number, or a class; no intervals and no quantiles.

        A row that cannot be scored is null but for ``status``, which says why. There are no
        probabilities: their last bits would depend on the other rows of the batch.
        """
        if len(quantiles):
            raise PredictionError(
                "a scikit-learn baseline has no quantiles; leave quantiles out, or train lightgbm"
            )
        frame = as_pandas(frame)
        status, values = self._forecast(frame)
        prediction = answer_column(self._answered.prediction(values), status == OK)
        columns = {"prediction": prediction, "status": NullableText(status)}
        return pd.DataFrame(columns, index=frame.index)

    def example(self) -> pd.DataFrame:
        """Two rows: means, and one standard deviation above them, with the first category."""
        scaler = self.estimator["inputs"].named_transformers_["numbers"][-1]
        numbers = iter(zip(scaler.mean_, scaler.mean_ + scaler.scale_, strict=True))
        columns = {
            feature.name: list(next(numbers)) if feature.is_number else [feature.categories[0]] * 2
            for feature in self.schema.features
        }
        return pd.DataFrame(columns)

    def evaluate(self, cases: pd.DataFrame, known: Any = None) -> Evaluation:
        status, values = self._forecast(cases)
        if not len(values):
            raise DataValidationError(f"none of {len(cases)} rows can be scored")
        y = self.outcomes(cases[status == OK])
        counts = {"n_rows": len(y), "n_not_scored": len(cases) - len(y)}
        naive = self.outcome.naive_figures(self.info.get("naive"), self.outcome.codes(y))
        return counts | self._answered.figures(y, values) | naive

    def losses(self, frame: pd.DataFrame) -> np.ndarray:
        losses = np.full(len(frame), np.nan)
        status, values = self._forecast(frame)
        if len(values):
            y = self.outcomes(frame[status == OK])
            losses[status == OK] = self._answered.losses(y, values)
        return losses

    def _forecast(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """The status of each row, and the estimator's values of those that are ``ok``."""
        status = self.schema.encode(frame).status
        rows = np.flatnonzero(status == OK)
        if len(rows):
            X = self.estimator[:-1].transform(_inputs(frame.iloc[rows], self.schema))
            fits = (np.abs(X) <= np.finfo(np.float32).max).all(axis=1)  # a forest takes no others
            status[rows[~fits]] = "out of range"
            if fits.any():
                return status, self.outcome.values_of(self.estimator[-1], X[fits])
        classes = self._answered.classes
        return status, np.empty((0, len(classes)) if classes else 0)

    def to_parts(self) -> Parts:
        return {
            "info.json": pack_json(self.info | {"kind": self.kind}),
            "schema.json": pack_json(self.schema.to_dict()),
            "target.json": pack_json(self.outcome.to_state()),
            "estimator.skops": estimator_bytes(self.estimator),
        }

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> Baseline:
        about = {name: unpack_json(parts[f"{name}.json"]) for name in ("info", "schema")}
        about |= {"classes": unpack_json(parts["target.json"]).get("classes")}
        return cls.from_metadata(estimator_of_bytes(parts["estimator.skops"]), about)

    @classmethod
    def from_metadata(cls, estimator: Pipeline, about: Mapping[str, Any]) -> Baseline:
        """The baseline of an estimator that an earlier build logged, and what it said of it."""
        outcome = target_of(about["info"]["roles"]["target"], about["classes"])
        return cls(estimator, Schema.from_dict(about["schema"]), outcome, about["info"])


def fit_baseline(
    data: TrainingData,
    frame: pd.DataFrame,
    model_type: str,
    params: Mapping[str, Any] | None = None,
    random_state: int = 42,
) -> Pipeline:
    """Imputer, encoder, scaler and estimator, fitted on a checked table.

    Parameters
    ----------
    data : TrainingData
        Of `frame`.
    frame : DataFrame
        The rows in the order of `data`.
    model_type : {'logistic', 'random_forest'}
    params : mapping, optional
        Arguments of the estimator.
    random_state : int

    Raises
    ------
    ConfigurationError
        A logistic regression of numbers, or an argument that the estimator does not take.
    ModelTrainingError
        It could not be fitted.
    """
    numbers = [feature.name for feature in data.schema.features if feature.is_number]
    estimator = unfitted(
        model_type, data.target, params, random_state, numbers, data.schema.text_columns
    )
    y = data.target.of_codes(data.y)
    return fit_estimator(estimator, _inputs(frame, data.schema), y, model_type)


def unfitted(
    model_type: str,
    target: Target,
    params: Mapping[str, Any] | None,
    random_state: int,
    numbers: Sequence[Any],
    strings: Sequence[Any],
) -> Pipeline:
    """Imputer, encoder, scaler and estimator; `numbers` and `strings` are names or positions.

    Raises
    ------
    ConfigurationError
        As of `fit_baseline`.
    """
    model = _estimator(model_type, target, dict(params or {}), random_state)
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    encoded = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    inputs = ColumnTransformer(
        [("numbers", scaled, list(numbers)), ("texts", encoded, list(strings))]
    )
    return Pipeline([("inputs", inputs), ("model", model)])


def fit_estimator(estimator: Pipeline, X: Any, y: Any, model_type: str) -> Pipeline:
    """Fit it, in a few words if it cannot be: scikit-learn's own may quote a row.

    Raises
    ------
    ModelTrainingError
    """
    try:
        return estimator.fit(X, y)
    except (ValueError, TypeError) as error:
        raise ModelTrainingError(
            f"the {model_type} could not be fitted ({type(error).__name__}); check training.params"
        ) from error


def about_baseline(
    data: TrainingData, roles: Roles, config: PipelineConfig, model_type: str
) -> dict[str, Any]:
    """The info that every baseline starts with."""
    return {
        "kind": Baseline.kind,
        "config": config.to_dict(),
        "roles": asdict(replace(roles, features=tuple(data.schema.names))),
        "n_rows": len(data.y),
        "naive": data.target.naive(data.y),
        MODEL_TYPE_TAG: model_type,
    }


def _estimator(model_type: str, target: Target, params: Params, random_state: int) -> Any:
    if model_type == LOGISTIC and not target.classes:
        raise ConfigurationError(
            "a logistic regression needs a target of classes; take random_forest or lightgbm, or "
            "set model.task to classification"
        )
    if model_type == LOGISTIC:
        kind, given = LogisticRegression, {"max_iter": 1000}
    elif model_type == FOREST:
        kind, given = RandomForestClassifier if target.classes else RandomForestRegressor, {}
    else:
        raise ConfigurationError(
            f"model_type is {model_type!r}; it must be one of {LIGHTGBM}, {LOGISTIC}, {FOREST}"
        )
    try:
        return kind(**(given | {"random_state": random_state} | params))
    except TypeError as error:
        unknown = sorted(set(params) - set(kind().get_params()))
        raise ConfigurationError(
            f"training.params: {kind.__name__} has no argument {', '.join(unknown)}"
        ) from error


def _inputs(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The columns as one type each: numbers as float64, categories as texts or None."""
    rows = canonical_rows(frame, schema, Roles(target=""))
    return rows.assign(**{name: rows[name].astype(object) for name in schema.text_columns})
