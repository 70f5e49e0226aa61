"""One fitted pipeline of series, immutable: the same outer face as `Generation`.

one row a series -> schema.encode -> shape features -> segments -> models -> arrays
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import pandas as pd

from tsclust_model.boosting.quantiles import checked_quantiles
from tsclust_model.clustering.engine import Segmentation
from tsclust_model.data.fitted_rows import FittedPeriods
from tsclust_model.data.frames import as_pandas
from tsclust_model.errors import ConfigurationError, MLflowIntegrationError, PredictionError
from tsclust_model.metrics import MASE, METRICS, Metric
from tsclust_model.models.base import (
    BatchWindow,
    FittedPipeline,
    NullableLong,
    NullableText,
    by_new_id,
)
from tsclust_model.models.evidence import Evidence, ReportInputs, SegmentRows
from tsclust_model.models.state import Parts, pack_arrays, unpack_arrays, unpack_json
from tsclust_model.monitoring.reference import Reference
from tsclust_model.results import Assignment
from tsclust_model.series.evaluation import evaluate_series, newest_origins
from tsclust_model.series.features import SHAPE_FEATURES, shape_features
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.output_model import SeriesForecast, SeriesModel
from tsclust_model.series.panel import (
    LARGEST_LOSS,
    HeldBack,
    Panel,
    mase_scale,
    row_means,
    scaled_errors,
)
from tsclust_model.series.report import series_evidence, series_inputs, series_segments
from tsclust_model.series.schema import LAST_TIMESTAMP, SERIES_ID, SeriesSchema, Y, last_times
from tsclust_model.series.scoring import score_series
from tsclust_model.series.segments import assign_shapes
from tsclust_model.series.windows import (
    canonical_series_rows,
    series_batch,
    series_unseen,
    series_window,
    up_to_batch,
)
from tsclust_model.shown import one_line

if TYPE_CHECKING:
    from tsclust_model.config import PipelineConfig
    from tsclust_model.data.history import DataVersioner
    from tsclust_model.data.roles import Roles
    from tsclust_model.data.window import Window

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

    kind: ClassVar[str] = KIND
    unit: ClassVar[str] = "series"
    resource_metric: ClassVar[str] = MASE.name
    why_not_scored: ClassVar[str] = "they are constant, which gives their errors no scale"

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
        return METRICS[self.reference.metric]

    @property
    def score_name(self) -> str:
        return "forecast accuracy"

    @property
    def input_columns(self) -> dict[str, str]:
        return self.schema.types

    @property
    def output_types(self) -> dict[str, str]:
        steps = ("prediction", *self.target_columns, *(f"resource_{n}" for n in self.resources))
        return super().output_types | dict.fromkeys(steps, "array")

    @property
    def table_roles(self) -> Roles:
        return replace(self.roles, frequency=self.schema.frequency)

    def panel(self, table: pd.DataFrame, config: PipelineConfig | None = None) -> Panel:
        """A long table on its calendar, as a configuration (default: its own) says."""
        config = config or self.config
        return series_panel(table, self.table_roles, config.gap_policy, config.missing_markers)

    def canonical_rows(
        self, table: pd.DataFrame, config: PipelineConfig | None = None
    ) -> pd.DataFrame:
        """Rows as the history keeps them; see `canonical_series_rows`."""
        return canonical_series_rows(table, self.table_roles, config or self.config)

    def checked_rows(self, frame: pd.DataFrame, config: PipelineConfig) -> pd.DataFrame:
        self.panel(frame, config)
        return self.canonical_rows(frame, config)

    def labelled_window(self, history: DataVersioner, config: PipelineConfig) -> Window:
        return series_window(self, history, config)

    def out_of_sample(
        self, history: DataVersioner, batch_id: str, config: PipelineConfig
    ) -> HeldBack:
        return series_unseen(self, up_to_batch(self, history, batch_id, config), config)

    def feature_values(
        self, history: DataVersioner, batch_id: str, config: PipelineConfig
    ) -> dict[str, np.ndarray]:
        panel = self.panel(up_to_batch(self, history, batch_id, config).frame, config)
        return dict(zip(SHAPE_FEATURES, self.shapes(panel.right_aligned()).T, strict=True))

    def of_features(self, name: str) -> NoReturn:
        raise ConfigurationError(
            f"'{name}' is a model of series, and this class takes rows of features; ask it through "
            "mlflow.pyfunc.load_model with series_rows(...), and retrain it with maintain(...)"
        )

    def batch(
        self, history: DataVersioner, batch_id: str, batches: list[str], config: PipelineConfig
    ) -> BatchWindow:
        window = series_window(self, history, config, until=batch_id)
        X, losses = series_batch(self, window, batch_id, config)
        return BatchWindow(X, losses, np.arange(len(X)))

    def is_noise(self, X: np.ndarray) -> np.ndarray:
        return self.segmentation.assign(X).is_noise

    def opened(self, table: pd.DataFrame | Panel) -> Panel:
        return table if isinstance(table, Panel) else self.panel(table)

    def cases(self, table: pd.DataFrame | Panel) -> HeldBack:
        return newest_origins(self.opened(table))[1]

    def part(self, cases: HeldBack, mask: Any) -> HeldBack:
        return cases.only(mask)

    def can_evaluate(self, cases: HeldBack) -> bool:
        """Whether any series varies, so that there is a scale to measure errors by."""
        return bool(np.isfinite(mase_scale(cases.panel)).any())

    def evaluate(self, cases: HeldBack, known: Any = None) -> dict[str, Any]:
        """See `evaluate_series`."""
        return evaluate_series(self, cases)

    def segments(self, table: pd.DataFrame | Panel) -> SegmentRows:
        return series_segments(self, self.opened(table))

    def evidence(self, cases: HeldBack, basis: str) -> Evidence | None:
        return series_evidence(self, cases, basis)

    def report_inputs(
        self, table: pd.DataFrame | Panel, fresh: HeldBack, *, certain: bool = True
    ) -> ReportInputs:
        return series_inputs(self, self.opened(table), fresh)

    def shapes(self, panel: Panel) -> np.ndarray:
        """Shape features of right-aligned series; NaN rows where a series is too short."""
        y, _ = self.target.cleaned(self.schema.laid_out(panel).y)
        return shape_features(y, panel.frequency.season)

    def assign(self, panel: Panel) -> Assignment:
        """Segments of right-aligned series, by the shape of each at its end."""
        return assign_shapes(self.segmentation, self.shapes(panel))

    def forecast(
        self, panel: Panel, coverage: float, probabilities: Sequence[float] = ()
    ) -> PanelForecast:
        """Segments and forecasts of right-aligned series, quantiles as `SeriesModel.forecast`."""
        panel = self.schema.laid_out(panel)
        assignment = self.assign(panel)
        covariates = self.schema.covariates_of(panel)
        return PanelForecast(
            assignment,
            {
                name: model.forecast(
                    panel.values[name],
                    panel.ends,
                    covariates,
                    assignment.labels,
                    coverage,
                    probabilities,
                )
                for name, model in self.models.items()
            },
        )

    def baselines(self, panel: Panel, labels: np.ndarray) -> dict[str, np.ndarray]:
        """What simpler forecasts of the target say, shape (n, horizon) each."""
        panel = self.schema.laid_out(panel)
        covariates = self.schema.covariates_of(panel)
        return self.target.baselines(panel.y, panel.ends, covariates, labels)

    def losses(self, held: HeldBack) -> np.ndarray:
        """Mean absolute scaled error of each series over what is known after its origin.

        Shape (n,); NaN where nothing is known, or the series has no scale (it is constant). At
        most 10: one series that has died would outweigh all others.
        """
        forecast = self.forecast(held.panel, self.coverage).target.prediction
        scaled = scaled_errors(held, forecast)
        return np.minimum(row_means(scaled), LARGEST_LOSS)

    def fitted_part(
        self, cases: HeldBack, history: DataVersioner | None = None
    ) -> np.ndarray | None:
        if self.fitted is None:
            return None
        periods = cases.panel.ends[:, None] + 1 + np.arange(cases.y.shape[1])
        return np.asarray(periods <= self.fitted.last_of(cases.panel.ids.tolist())[:, None])

    def for_executors(self, uri: str) -> NoReturn:
        raise PredictionError(
            f"{uri} forecasts series; engine spark scores rows: take engine local, or "
            "mlflow.pyfunc.spark_udf on one row per series (docs/series.md)"
        )

    def predict(
        self, frame: pd.DataFrame, coverage: float | None = None, quantiles: Sequence[float] = ()
    ) -> pd.DataFrame:
        """Forecast a table of one row a series; each row's answer depends on that row alone.

        Parameters
        ----------
        frame : DataFrame
            ``last_timestamp``, ``y``, and a list for each resource and covariate; see
            `series_rows`.
        coverage : float, optional
            Of the intervals, above 0 and below 1.
        quantiles : sequence of float, optional
            Rising probabilities; each adds a column of arrays, ``q0.1`` for 0.1.

        Returns
        -------
        DataFrame
            `answer_columns`, the index of `frame`; predictions, bounds and resources are arrays of
            length `horizon`. A row that cannot be scored is null but for ``status``; one whose
            forecast left its reach (`SeriesModel.forecast`) has the seasonal naive one, and one
            with values that stand alone is forecast without them; the status says so.

        Raises
        ------
        DataValidationError
            A column is absent.
        PredictionError
            The coverage or a quantile is out of range.
        """
        wanted = self.coverage if coverage is None else coverage
        if not 0 < wanted < 1:
            raise PredictionError("coverage must be above 0 and below 1")
        asked, frame = checked_quantiles(quantiles), as_pandas(frame)
        answers = [self._answer(part, wanted, asked) for part in self._chunks(frame)]
        answer = answers[0] if len(answers) == 1 else pd.concat(answers, ignore_index=True)
        answer.index = frame.index
        return answer

    def _chunks(self, frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
        size = max(_CELLS_A_CHUNK // self.schema.width, 1)
        for start in range(0, max(len(frame), 1), size):
            yield frame.iloc[start : start + size]

    def _answer(self, frame: pd.DataFrame, coverage: float, asked: Sequence[float]) -> pd.DataFrame:
        encoded = self.schema.encode(frame)
        scored = np.flatnonzero(encoded.scorable)
        masked = ~encoded.scorable
        forecast = self.forecast(encoded.panel.take(scored), coverage, asked)
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
            *map(arrays, (target.prediction, target.lower, target.upper, *target.quantiles)),
            NullableLong(spread(assignment.labels), masked.copy()),
            NullableText(spread(assignment.source, pd.NA)),
            number(assignment.strength),
            number(target.weight),
            *(arrays(forecast.outputs[name].prediction) for name in self.resources),
            NullableText(self._status(encoded.status, scored, forecast)),
        ]
        names = self.answer_columns(asked)
        return pd.DataFrame(dict(zip(names, columns, strict=True)), copy=False)

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
        for name in self.schema.arrays.values():
            frame[name] = pd.Series([values, values[-4:]], dtype=object)
        for name in self.schema.future:
            planned = [values[-1]] * self.schema.horizon
            frame[name] = pd.Series([values + planned, values[-4:] + planned], dtype=object)
        for name in self.schema.statics:
            texts = self.schema.static[name]
            value = 0.0 if texts is None else next(iter(texts), None)
            frame[name] = pd.Series([value] * 2, dtype=float if texts is None else object)
        return frame

    def scored_table(
        self, frame: pd.DataFrame, predict: Callable[[pd.DataFrame], pd.DataFrame]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        forecasts = score_series(self, frame, lambda _, rows: predict(rows))
        return forecasts, forecasts.drop_duplicates(self.schema.id)

    def labelled_example(self) -> pd.DataFrame:
        """The example's series as a long table, and their forecasts as what followed.

        Where there are future covariates, they are planned for another horizon.
        """
        schema, rows = self.schema, self.example()
        later = schema.horizon if schema.future else 0
        answer = self.predict(rows)
        ends = last_times(rows[LAST_TIMESTAMP], schema.frequency)
        tables = []
        for i, end in enumerate(ends):
            steps = np.arange(1 - len(rows[Y][i]), schema.horizon + 1 + later)
            columns: dict[str, Any] = {
                schema.id: rows[SERIES_ID][i],
                schema.time: schema.calendar.shown(schema.calendar.moved(end, steps)),
            }
            for name, column in schema.arrays.items():
                known = rows[column][i]
                output = "prediction" if name == schema.target else f"resource_{name}"
                after = answer[output][i] if output in answer else known[-1:] * schema.horizon
                columns[name] = [*known, *after[: schema.horizon], *[np.nan] * later]
            columns |= {name: [*rows[name][i], *rows[name][i][-later:]] for name in schema.future}
            columns |= {name: rows[name][i] for name in schema.statics}
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)

    def _last_time(self) -> pd.Timestamp | int:
        last = self.info["last_timestamp"]
        return int(last) if self.schema.calendar.is_numbered else pd.Timestamp(last).as_unit("ns")

    def renumbered(self, ids: Mapping[int, int], lineage: Mapping[str, Any]) -> SeriesGeneration:
        """The same pipeline with other cluster ids, and where they come from in its info."""
        scores = self.info["scores"]
        kept = [key for key in ("clusters", "shares") if key in scores]
        own = scores | {key: by_new_id(scores[key], ids) for key in kept}
        return super().renumbered(ids, lineage).with_info({"scores": own})

    def to_parts(self) -> Parts:
        """The generation as named parts of plain bytes; `from_parts` reads them back."""
        parts = self._shared_parts() | self.target.to_parts("target")
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
            segmentation, reference = cls._segmentation_and_reference(parts)
            return cls(
                SeriesSchema.from_dict(unpack_json(parts["schema.json"])),
                segmentation,
                SeriesModel.from_parts(parts, "target"),
                {
                    name: SeriesModel.from_parts(parts, f"resource-{i}")
                    for i, name in enumerate(names)
                },
                reference,
                unpack_json(parts["info.json"]),
                FittedPeriods.from_arrays(unpack_arrays(parts[_FITTED]))
                if _FITTED in parts
                else None,
            )
        except KeyError as error:
            raise MLflowIntegrationError(
                f"the model's state has no part {error}; log the model again"
            ) from error
