"""One fitted pipeline of series, immutable: the same outer face as `Generation`.

one row a series -> schema.encode -> shape features -> segments -> models -> arrays
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.clustering.engine import Segmentation
from tsclust_model.data.fitted_rows import FittedPeriods
from tsclust_model.errors import MLflowIntegrationError, PredictionError
from tsclust_model.metrics import METRICS, Metric
from tsclust_model.models.base import FittedPipeline, NullableLong, NullableText
from tsclust_model.models.state import Parts, pack_arrays, pack_json, unpack_arrays, unpack_json
from tsclust_model.monitoring.reference import Reference
from tsclust_model.results import Assignment
from tsclust_model.series.features import shape_features
from tsclust_model.series.output_model import SeriesForecast, SeriesModel
from tsclust_model.series.panel import (
    LARGEST_LOSS,
    HeldBack,
    Panel,
    row_means,
    scaled_errors,
    without_alone,
)
from tsclust_model.series.schema import LAST_TIMESTAMP, SERIES_ID, SeriesSchema, Y
from tsclust_model.series.segments import assign_shapes
from tsclust_model.shown import one_line

KIND = "series"

_FITTED = "fitted-periods.npz"

# Series that are scored at a time hold about so many values: more would only take memory.
_CELLS_A_CHUNK = 2_000_000

REPLACED = "seasonal naive, as the forecast was out of reach"
"""How the status of a row begins whose forecast was replaced."""

SET_ASIDE = "forecast without a value that stands far apart from all others"
"""How the status of a row begins that has values which are not looked at."""


@one_line
@dataclass(frozen=True)
class PanelForecast:
    """The forecast of the series of a panel.

    Attributes
    ----------
    assignment : Assignment
        A series too short for its shape to be known has label -1 and no source.
    outputs : dict of str to SeriesForecast
        The target's first, then each resource's; arrays of shape (n, horizon).
    """

    assignment: Assignment
    outputs: dict[str, SeriesForecast]

    @property
    def target(self) -> SeriesForecast:
        return next(iter(self.outputs.values()))


@one_line
@dataclass(frozen=True)
class SeriesGeneration(FittedPipeline):
    """A fitted pipeline of series.

    Attributes
    ----------
    schema : SeriesSchema
    segmentation : Segmentation
        Of shape features.
    target : SeriesModel
    resources : dict of str to SeriesModel
    reference : Reference
        What drift is measured against: shapes of series, and their scaled absolute errors.
    info : dict
        As JSON: ``kind``, ``config``, ``roles``, ``n_rows`` (series), ``clustering``,
        ``cluster_sizes``, ``scores``, and what training adds.
    fitted : FittedPeriods or None
        The last fitted period of each series; None is unknown.
    """

    schema: SeriesSchema
    segmentation: Segmentation
    target: SeriesModel
    resources: dict[str, SeriesModel]
    reference: Reference
    info: dict[str, Any] = field(default_factory=dict)
    fitted: FittedPeriods | None = field(default=None, repr=False)

    @property
    def models(self) -> dict[str, SeriesModel]:
        """The target's model and those of the resources, by column of the long table."""
        return {self.schema.target: self.target} | self.resources

    @property
    def metric(self) -> Metric:
        """What this model is compared by, watched for and judged on."""
        return METRICS[self.reference.metric]

    def shapes(self, panel: Panel) -> np.ndarray:
        """Shape features of right-aligned series; NaN rows where a series is too short."""
        y, _ = without_alone(self.schema.laid_out(panel).y, panel.frequency.season)
        return shape_features(y, panel.frequency.season)

    def assign(self, panel: Panel) -> Assignment:
        """Segments of right-aligned series, by the shape of each at its end."""
        return assign_shapes(self.segmentation, self.shapes(panel))

    def forecast(self, panel: Panel, coverage: float) -> PanelForecast:
        """Segments and forecasts of right-aligned series."""
        panel = self.schema.laid_out(panel)
        assignment = self.assign(panel)
        covariates = {name: panel.values[name] for name in self.schema.covariates}
        return PanelForecast(
            assignment,
            {
                name: model.forecast(
                    panel.values[name], panel.ends, covariates, assignment.labels, coverage
                )
                for name, model in self.models.items()
            },
        )

    def baselines(self, panel: Panel, labels: np.ndarray) -> dict[str, np.ndarray]:
        """What simpler forecasts of the target say, shape (n, horizon) each."""
        panel = self.schema.laid_out(panel)
        covariates = {name: panel.values[name] for name in self.schema.covariates}
        return self.target.baselines(panel.y, panel.ends, covariates, labels)

    def losses(self, held: HeldBack) -> np.ndarray:
        """Mean absolute scaled error of each series over what is known after its origin.

        Shape (n,); NaN where nothing is known, or the series has no scale (it is constant). At
        most 10: one series that has died would outweigh all others.
        """
        forecast = self.forecast(held.panel, self.coverage).target.prediction
        scaled = scaled_errors(held, forecast)
        return np.minimum(row_means(scaled), LARGEST_LOSS)

    def trained_on(self, held: HeldBack) -> np.ndarray | None:
        """Whether each value that followed an origin was fitted, shape (n, steps).

        A series was fitted up to its last fitted period; None where that is unknown.
        """
        if self.fitted is None:
            return None
        periods = held.panel.ends[:, None] + 1 + np.arange(held.y.shape[1])
        return np.asarray(periods <= self.fitted.last_of(held.panel.ids.tolist())[:, None])

    def predict(self, frame: pd.DataFrame, coverage: float | None = None) -> pd.DataFrame:
        """Forecast a table of one row a series; each row's answer depends on that row alone.

        Parameters
        ----------
        frame : DataFrame
            ``last_timestamp``, ``y``, and a list for each resource and covariate; see
            `series_rows`.
        coverage : float, optional
            Of the intervals, above 0 and below 1.

        Returns
        -------
        DataFrame
            `output_columns`, the index of `frame`; predictions, bounds and resources are arrays of
            length `horizon`. A row that cannot be scored is null but for ``status``; one whose
            forecast left its reach (`SeriesModel.forecast`) has the seasonal naive one, and one
            with values that stand alone is forecast without them; the status says so.

        Raises
        ------
        DataValidationError
            A column is absent.
        PredictionError
            The coverage is out of range.
        """
        wanted = self.coverage if coverage is None else coverage
        if not 0 < wanted < 1:
            raise PredictionError("coverage must be above 0 and below 1")
        answers = [self._answer(part, wanted) for part in self._chunks(frame)]
        answer = answers[0] if len(answers) == 1 else pd.concat(answers, ignore_index=True)
        answer.index = frame.index
        return answer

    def _chunks(self, frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
        size = max(_CELLS_A_CHUNK // self.schema.width, 1)
        for start in range(0, max(len(frame), 1), size):
            yield frame.iloc[start : start + size]

    def _answer(self, frame: pd.DataFrame, coverage: float) -> pd.DataFrame:
        encoded = self.schema.encode(frame)
        scored = np.flatnonzero(encoded.scorable)
        masked = ~encoded.scorable
        forecast = self.forecast(encoded.panel.take(scored), coverage)
        assignment, target = forecast.assignment, forecast.target

        def arrays(values: np.ndarray) -> np.ndarray:
            cells = np.full(len(frame), None, dtype=object)
            for row, found in zip(scored, values, strict=True):
                cells[row] = found
            return cells

        def spread(values: np.ndarray, filler: Any = 0) -> np.ndarray:
            full = np.full(len(frame), filler, dtype=values.dtype)
            full[scored] = values
            return full

        def number(values: np.ndarray) -> pd.arrays.FloatingArray:
            return pd.arrays.FloatingArray(spread(values), masked.copy())

        columns = [
            *map(arrays, (target.prediction, target.lower, target.upper)),
            NullableLong(spread(assignment.labels), masked.copy()),
            NullableText(spread(assignment.source, pd.NA)),
            number(assignment.strength),
            number(target.weight),
            *(arrays(forecast.outputs[name].prediction) for name in self.resources),
            NullableText(self._status(encoded.status, scored, forecast)),
        ]
        return pd.DataFrame(dict(zip(self.output_columns, columns, strict=True)), copy=False)

    def _status(
        self, status: np.ndarray, scored: np.ndarray, forecast: PanelForecast
    ) -> np.ndarray:
        """The status of each row, which also names the outputs that were forecast otherwise."""
        status = status.copy()
        outputs = {self.schema.arrays[name]: found for name, found in forecast.outputs.items()}
        for text, kind in ((SET_ASIDE, "set_aside"), (REPLACED, "replaced")):
            masks = {column: getattr(found, kind) for column, found in outputs.items()}
            for row in np.flatnonzero(np.logical_or.reduce(list(masks.values()))):
                named = ", ".join(column for column, mask in masks.items() if mask[row])
                status[scored[row]] = f"{text}: {named}"
        return status

    def example(self) -> pd.DataFrame:
        """Two made-up rows that show the input: three seasons of values, and four values."""
        season = self.schema.calendar.season
        steps = np.arange(max(3 * season, 24))
        wave = 100 + 0.5 * steps + 20 * np.sin(2 * np.pi * steps / max(season, 2))
        values = np.round(wave, 1).tolist()
        frame = pd.DataFrame(
            {
                SERIES_ID: pd.Series(["example-long", "example-short"], dtype=object),
                LAST_TIMESTAMP: [self._last_time()] * 2,
            }
        )
        for name in (Y, *self.schema.names[2:]):
            frame[name] = pd.Series([values, values[-4:]], dtype=object)
        return frame

    def _last_time(self) -> pd.Timestamp | int:
        last = self.info["last_timestamp"]
        return int(last) if self.schema.calendar.is_numbered else pd.Timestamp(last).as_unit("ns")

    def renumbered(self, ids: Mapping[int, int], lineage: Mapping[str, Any]) -> SeriesGeneration:
        """The same pipeline with other cluster ids, and where they come from in its info."""

        def renamed(figures: Mapping[str, Any]) -> dict[str, Any]:
            return {str(ids.get(int(cluster), int(cluster))): f for cluster, f in figures.items()}

        scores = self.info["scores"]
        return replace(
            self,
            segmentation=self.segmentation.renumbered(ids),
            target=self.target.renumbered(ids),
            resources={name: model.renumbered(ids) for name, model in self.resources.items()},
            info=self.info
            | {
                "lineage": dict(lineage),
                "cluster_sizes": renamed(self.info["cluster_sizes"]),
                "scores": scores
                | {key: renamed(scores[key]) for key in ("clusters", "shares") if key in scores},
            },
        )

    def to_parts(self) -> Parts:
        """The generation as named parts of plain bytes; `from_parts` reads them back."""
        arrays, values = self.segmentation.to_arrays()
        reference_arrays, reference_values = self.reference.to_arrays()
        parts = {
            "info.json": pack_json(self.info),
            "schema.json": pack_json(self.schema.to_dict()),
            "segmentation.json": pack_json(values),
            "segmentation.npz": pack_arrays(arrays),
            "reference.json": pack_json(reference_values),
            "reference.npz": pack_arrays(reference_arrays),
            "resources.json": pack_json(list(self.resources)),
        } | self.target.to_parts("target")
        for i, model in enumerate(self.resources.values()):
            parts |= model.to_parts(f"resource-{i}")
        if self.fitted is not None:
            parts[_FITTED] = pack_arrays(self.fitted.to_arrays())
        return parts

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> SeriesGeneration:
        """The generation of parts that have been checked (`state.open_sealed`)."""
        try:
            names = unpack_json(parts["resources.json"])
            return cls(
                SeriesSchema.from_dict(unpack_json(parts["schema.json"])),
                Segmentation.from_arrays(
                    unpack_arrays(parts["segmentation.npz"]),
                    unpack_json(parts["segmentation.json"]),
                ),
                SeriesModel.from_parts(parts, "target"),
                {
                    name: SeriesModel.from_parts(parts, f"resource-{i}")
                    for i, name in enumerate(names)
                },
                Reference.from_arrays(
                    unpack_arrays(parts["reference.npz"]), unpack_json(parts["reference.json"])
                ),
                unpack_json(parts["info.json"]),
                FittedPeriods.from_arrays(unpack_arrays(parts[_FITTED]))
                if _FITTED in parts
                else None,
            )
        except KeyError as error:
            raise MLflowIntegrationError(
                f"the model's state has no part {error}; log the model again"
            ) from error
