"""One fitted pipeline, immutable: schema, segments and models, and the pass a batch takes.

    table -> schema.encode -> segmentation.assign -> models.predict -> table

Nothing here is edited after the fit: retraining makes another generation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import pandas as pd

from tsclust_model.boosting.output_model import Ensemble, NumberModel, OutputModel, Packing
from tsclust_model.boosting.quantiles import checked_quantiles
from tsclust_model.clustering.engine import Segmentation
from tsclust_model.data.fitted_rows import FittedRows
from tsclust_model.data.frames import as_pandas
from tsclust_model.errors import MLflowIntegrationError, PredictionError
from tsclust_model.metrics import METRICS, Metric
from tsclust_model.models.base import BatchWindow, FittedPipeline, NullableLong, NullableText
from tsclust_model.models.evidence import Evidence, ReportInputs, SegmentRows
from tsclust_model.models.state import (
    Parts,
    StoredTexts,
    pack_arrays,
    pack_json,
    unpack_arrays,
    unpack_json,
)
from tsclust_model.monitoring.reference import Reference
from tsclust_model.results import NOISE, Assignment, Evaluation
from tsclust_model.rows.cases import (
    RowsModel,
    answer_column,
    new_rows,
    number_column,
    spread,
)
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.report import frame_evidence, frame_segments, table_inputs
from tsclust_model.rows.schema import Encoded, Schema
from tsclust_model.rows.targets import Target, target_of
from tsclust_model.shown import one_line

if TYPE_CHECKING:
    from tsclust_model.config import PipelineConfig
    from tsclust_model.data.history import DataVersioner

_EXAMPLE_TRIES = 8

_FITTED, _FOREST = "fitted-rows.npz", "forest.npz"

Model = TypeVar("Model", bound=OutputModel)


@one_line
@dataclass(frozen=True)
class Forecast:
    """The forecast of checked rows, shape (n,) each.

    Attributes
    ----------
    assignment : Assignment
    values : ndarray of float64, shape (n,) or (n, n_classes)
        Units of the target, or the probabilities of its classes.
    prediction : ndarray of float64, or of object
        Units of the target, or its likeliest classes as strings.
    bounds : tuple of two ndarray of float64
        Lower and upper, in units of the target; NaN for classes, which have none.
    weight : ndarray of float64
        Share (0 to 1) of the cluster's own model.
    resources : dict of str to ndarray of float64
        Units of the resource.
    """

    assignment: Assignment
    values: np.ndarray
    prediction: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray]
    weight: np.ndarray
    resources: dict[str, np.ndarray]


@one_line
@dataclass(frozen=True)
class Generation(RowsModel, FittedPipeline):
    """A fitted pipeline.

    Attributes
    ----------
    schema : Schema
    segmentation : Segmentation
    outcome : Target
        What is forecast: a number, or a class.
    target : OutputModel
    resources : dict of str to NumberModel
    reference : Reference
        What drift is measured against.
    info : dict
        What a reader should know, as JSON: ``config``, ``roles``, ``n_rows``, ``clustering``
        (metrics), ``cluster_sizes``, ``naive`` (see `Target.naive`), and what training adds.
    fitted : FittedRows or None
        Which rows it was fitted on; None is unknown.
    packing : Packing or None
        As it was written; without one the models are packed when they are asked.
    """

    schema: Schema
    segmentation: Segmentation
    outcome: Target
    target: OutputModel
    resources: dict[str, NumberModel]
    reference: Reference
    info: dict[str, Any] = field(default_factory=dict)
    fitted: FittedRows | None = field(default=None, repr=False)
    packing: Packing | None = field(default=None, repr=False, compare=False)

    @property
    def given_features(self) -> list[str]:
        """The columns of a matrix without names, also those that training left out."""
        return list(self.info.get("given_features", self.schema.names))

    @property
    def target_columns(self) -> list[str]:
        return self.outcome.class_columns or super().target_columns

    @property
    def output_types(self) -> dict[str, str]:
        return super().output_types | {"prediction": self.outcome.prediction_type}

    def assign(self, X: np.ndarray) -> Assignment:
        """Segments of encoded rows, shape (n, n_features)."""
        return self.segmentation.assign(X[:, self.schema.cluster_columns])

    def forecast(self, X: np.ndarray, coverage: float) -> Forecast:
        """Segments and forecasts of encoded rows, shape (n, n_features), all scorable."""
        assignment = self.assign(X)
        labels = assignment.labels
        sums = self._ensemble.predict(X, labels)
        values, weight = sums.pop(0) if self.target.summed else self.target.predict(X, labels)
        resources = {
            name: forecast for name, (forecast, _) in zip(self.resources, sums, strict=True)
        }
        bounds = self.target.bounds(values, labels, coverage)
        prediction = self.outcome.prediction(values)
        return Forecast(assignment, values, prediction, bounds, weight, resources)

    @cached_property
    def _ensemble(self) -> Ensemble:
        return Ensemble([*self.target.summed, *self.resources.values()], self.packing)

    @property
    def metric(self) -> Metric:
        return METRICS[self.reference.metric]

    def row_losses(self, y: np.ndarray, forecast: Forecast) -> np.ndarray:
        """The loss of each forecast row, shape (n,), whose mean is the metric (`Metric.of`)."""
        return self.outcome.losses(y, forecast.values)

    def losses(self, frame: pd.DataFrame) -> np.ndarray:
        losses = np.full(len(frame), np.nan)
        if len(frame):
            y = self.outcomes(frame)
            encoded = self.schema.encode(frame)
            rows = np.flatnonzero(encoded.scorable)
            forecast = self.forecast(encoded.X[rows], self.coverage)
            losses[rows] = self.row_losses(y[rows], forecast)
        return losses

    def evaluate(self, cases: pd.DataFrame, known: pd.DataFrame | None = None) -> Evaluation:
        """See `evaluate_generation`."""
        return evaluate_generation(self, cases, known)

    def batch(
        self, history: DataVersioner, batch_id: str, batches: list[str], config: PipelineConfig
    ) -> BatchWindow:
        frame, _ = history.load(batch_id)
        encoded, losses = self.schema.encode(frame), np.full(len(frame), np.nan)
        if self.roles.target in frame:
            known = np.flatnonzero(frame[self.roles.target].notna())
            losses[known] = self.losses(frame.iloc[known])
        new = new_rows(self, history, batch_id, frame, batches)
        rows = np.flatnonzero(encoded.scorable & new)
        return BatchWindow(encoded.X[rows], losses[rows], rows, len(rows))

    def is_noise(self, X: np.ndarray) -> np.ndarray:
        return self.assign(X).is_noise

    def segments(self, table: pd.DataFrame) -> SegmentRows:
        return frame_segments(self, table)

    def evidence(self, cases: pd.DataFrame, basis: str) -> Evidence:
        return frame_evidence(self, cases, self.reported_columns, basis)

    def report_inputs(
        self, table: pd.DataFrame, fresh: pd.DataFrame, *, certain: bool = True
    ) -> ReportInputs:
        return table_inputs(self, table, fresh, certain=certain)

    def scored_table(
        self, frame: pd.DataFrame, predict: Callable[[pd.DataFrame], pd.DataFrame]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        forecasts = predict(frame)
        keys = [name for name in (self.roles.id, self.roles.time) if name in frame]
        return pd.concat([frame[keys], forecasts], axis=1), forecasts

    def of_features(self, name: str) -> Generation:
        return self

    def labelled_example(self) -> pd.DataFrame:
        frame = self.example()
        answer = self.predict(frame)["prediction"]
        known = answer.notna()
        labels = {self.roles.target: answer[known].to_numpy()}
        return frame[known].assign(**labels).reset_index(drop=True)

    def for_executors(self, uri: str) -> Self:
        return replace(self, fitted=None)

    def predict(
        self, frame: pd.DataFrame, coverage: float | None = None, quantiles: Sequence[float] = ()
    ) -> pd.DataFrame:
        """Score a table; each row's answer depends on that row alone.

        Parameters
        ----------
        frame : DataFrame
            At least the columns of the schema, in any order.
        coverage : float, optional
            Of the intervals, above 0 and below 1.
        quantiles : sequence of float, optional
            Rising probabilities; each adds a column, ``q0.1`` for 0.1.

        Returns
        -------
        DataFrame
            `answer_columns`, the index of `frame`. A row that cannot be scored is null but for
            ``status``, which says why; numbers are pandas' nullable types.

        Raises
        ------
        DataValidationError
            A column is absent or of another type.
        PredictionError
            The coverage or a quantile is out of range.
        """
        wanted = self.coverage if coverage is None else coverage
        if not 0 < wanted < 1:
            raise PredictionError("coverage must be above 0 and below 1")
        asked = checked_quantiles(quantiles)
        frame = as_pandas(frame)
        encoded = self.schema.encode(frame)
        columns = self._answer(encoded, wanted, asked)
        answer = pd.DataFrame(dict(enumerate(columns)), index=frame.index, copy=False)
        answer.columns = self.answer_columns(asked) if asked else self._output_index.copy()
        return answer

    def _answer(self, encoded: Encoded, coverage: float, asked: Sequence[float]) -> list[Any]:
        """The columns of an answer."""
        scored = encoded.scorable
        forecast = self.forecast(encoded.X if scored.all() else encoded.X[scored], coverage)
        assignment = forecast.assignment
        target = self.outcome.answer(forecast.values, forecast.bounds)
        quantiles = self.target.quantiles(forecast.values, assignment.labels, asked)
        return [
            *(answer_column(values, scored) for values in target),
            *(number_column(values, scored) for values in quantiles),
            NullableLong(spread(assignment.labels, scored), ~scored),
            NullableText(spread(assignment.source, scored, pd.NA)),
            number_column(assignment.strength, scored),
            number_column(forecast.weight, scored),
            *(number_column(values, scored) for values in forecast.resources.values()),
            NullableText(encoded.status),
        ]

    @cached_property
    def _output_index(self) -> pd.Index:
        """Made once: texts take pandas a while."""
        return pd.Index(self.output_columns)

    def example(self) -> pd.DataFrame:
        """Two or more made-up rows that show the input: segment centres, and one noise row.

        No row is a training row: centres are means, and the noise row is beyond them.
        """
        scaler = self.segmentation.scaler
        density = self.segmentation.density
        centers = [
            scaler.mean
            + scaler.scale * density.points[density.label[density.point_cluster] == c].mean(axis=0)
            for c in np.unique(density.label[density.point_cluster])
            if c != NOISE
        ][:2]
        rows = np.array([*(centers or [scaler.median]), self._noise_row()])
        columns: dict[str, Any] = {}  # one by one they would fragment a frame
        for feature in self.schema.features:
            if feature.name in self.schema.cluster_features:
                column = rows[:, self.schema.cluster_features.index(feature.name)]
                position = self.schema.cluster_features.index(feature.name)
                digits = 4 - int(np.floor(np.log10(scaler.scale[position])))
                columns[feature.name] = [round(float(value), digits) for value in column]
            elif feature.is_number:
                columns[feature.name] = 0.0
            else:
                columns[feature.name] = pd.Series([feature.categories[0]] * len(rows), dtype=object)
        return pd.DataFrame(columns, index=range(len(rows)))

    def _noise_row(self) -> np.ndarray:
        """A row HDBSCAN calls noise: outwards from the mean, alternating up and down."""
        scaler = self.segmentation.scaler
        direction = np.where(np.arange(len(scaler.mean)) % 2, -1.0, 1.0)
        row = scaler.mean
        for doubling in range(_EXAMPLE_TRIES):
            row = scaler.mean + direction * scaler.scale * 4 * 2**doubling
            if self.segmentation.assign(row.reshape(1, -1)).is_noise[0]:
                break
        return row

    def to_parts(self) -> Parts:
        """The generation as named parts of plain bytes; `from_parts` reads them back."""
        parts = self._shared_parts() | {_FOREST: pack_arrays(self._ensemble.to_arrays())}
        parts |= output_parts(self.target, "target", self.outcome.to_state())
        for i, model in enumerate(self.resources.values()):
            parts |= output_parts(model, f"resource-{i}")
        if self.fitted is not None:
            parts[_FITTED] = pack_arrays(self.fitted.to_arrays())
        return parts

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> Generation:
        """The generation of parts that have been checked (`state.open_sealed`)."""
        try:
            info, names = unpack_json(parts["info.json"]), unpack_json(parts["resources.json"])
            about = unpack_json(parts["target.json"])
            name = info.get("roles", {}).get("target", "target")
            outcome = target_of(name, about.get("classes"))
            target = output_from_parts(parts, "target", outcome.model_type)
            resources = {
                name: output_from_parts(parts, f"resource-{i}", NumberModel)
                for i, name in enumerate(names)
            }
            texts = [model.texts for model in [*target.summed, *resources.values()]]
            segmentation, reference = cls._segmentation_and_reference(parts)
            return cls(
                Schema.from_dict(unpack_json(parts["schema.json"])),
                segmentation,
                outcome,
                target,
                resources,
                reference,
                info,
                FittedRows.from_arrays(unpack_arrays(parts[_FITTED])) if _FITTED in parts else None,
                Packing(texts, unpack_arrays(parts[_FOREST])) if _FOREST in parts else None,
            )
        except KeyError as error:
            raise MLflowIntegrationError(
                f"the model's state has no part {error}; log the model again"
            ) from error


def output_parts(model: OutputModel, key: str, about: Mapping[str, Any] | None = None) -> Parts:
    """The models of one output as named parts; `output_from_parts` reads them back."""
    content, arrays = model.to_state()
    parts = {
        f"{key}-texts.json": pack_json(dict(model.texts)),
        f"{key}.json": pack_json(content | dict(about or {})),
    }
    return parts | ({f"{key}.npz": pack_arrays(arrays)} if model.has_arrays else {})


def output_from_parts(parts: Mapping[str, bytes], key: str, model_type: type[Model]) -> Model:
    """The models of one output, from its `output_parts`."""
    content = unpack_json(parts[f"{key}.json"])
    if "global" in content:  # format 1
        own = {int(cluster): text for cluster, text in content["clusters"].items()}
        texts: Mapping[int, str] = {NOISE: content["global"]} | own
    else:
        texts = StoredTexts([NOISE, *content["clusters"]], parts[f"{key}-texts.json"])
    arrays = unpack_arrays(parts[f"{key}.npz"]) if model_type.has_arrays else {}
    return model_type.from_state(texts, content, arrays)
