"""The interface of a fitted model, of whichever kind, and columns whose nulls survive Spark.

A kind is a folder: `rows` (also scikit-learn's baselines) and `series`. What is above them speaks
to `FittedModel`, and never asks which kind it holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast

import numpy as np
import pandas as pd

from tsclust_model.boosting.quantiles import quantile_column
from tsclust_model.clustering.engine import Segmentation
from tsclust_model.config import PipelineConfig
from tsclust_model.data.fitted_rows import FittedPeriods, FittedRows
from tsclust_model.data.roles import Roles
from tsclust_model.metrics import Metric
from tsclust_model.models.state import Parts, pack_arrays, pack_json, unpack_arrays, unpack_json
from tsclust_model.monitoring.reference import Reference
from tsclust_model.results import NOISE, Evaluation
from tsclust_model.shown import one_line

if TYPE_CHECKING:  # a model that only scores needs none of these
    from tsclust_model.data.history import DataVersioner
    from tsclust_model.data.window import Window
    from tsclust_model.models.evidence import Evidence, ReportInputs, SegmentRows

LIGHTGBM = "lightgbm"

MODEL_TYPE_TAG = "model_type"


class NullableLong(pd.arrays.IntegerArray):
    """Whole numbers whose nulls survive mlflow's ``spark_udf``.

    It casts every long column to int64 and every string column to numpy's str, which have no null;
    these columns decline while they hold one.
    """

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        keep = getattr(dtype, "kind", None) == "i" and self.isna().any()
        return self if keep else super().astype(dtype, copy=copy)


class NullableText(pd.arrays.StringArray):
    """Texts whose nulls survive in the same way."""

    def __init__(self, values: Any, *, dtype: pd.StringDtype | None = None, copy: bool = False):
        # Without a dtype pandas 3.1 takes the array for one of Arrow: `isin` and `str` then fail.
        own = dtype or pd.StringDtype("python")
        super().__init__(values, dtype=own, copy=copy)  # type: ignore[call-arg]

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        keep = getattr(dtype, "kind", None) == "U" and self.isna().any()
        return self if keep else super().astype(dtype, copy=copy)


class Cases(Protocol):
    """Labelled cases that a model is evaluated on: rows, or series and what followed."""

    def __len__(self) -> int: ...

    def take(self, positions: np.ndarray, /) -> Any:
        """Some of the cases, by position."""


@one_line
@dataclass(frozen=True)
class BatchWindow:
    """What a batch of the history shows the detectors of drift.

    Attributes
    ----------
    X : ndarray of float64, shape (n, n_columns)
        As the model's `Reference` has it.
    losses : ndarray of float64, shape (n,)
        NaN where the outcome is not known.
    positions : ndarray of int64, shape (n,)
        Where in the batch they lie.
    n_new : int or None
        How many of its rows were not shown before; None where rows are not counted.
    """

    X: np.ndarray
    losses: np.ndarray
    positions: np.ndarray
    n_new: int | None = None


class FittedModel(ABC):
    """A fitted model, whatever its cases are.

    Attributes
    ----------
    kind : str
        As the info of its state says.
    unit : str
        What its cases are called: ``rows`` or ``series``.
    resource_metric : str
        What forecasts of resources are evaluated with.
    why_not_scored : str
        Why `evaluate` leaves cases out, for a person.
    libraries : tuple of str
        What it needs beside the libraries of every model, to be served.
    schema : Schema or SeriesSchema
    info : dict
        What a reader should know, as JSON.
    reference : Reference or None
        What drift is measured against; None for a model without detectors.
    """

    kind: ClassVar[str]
    unit: ClassVar[str]
    resource_metric: ClassVar[str]
    why_not_scored: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ()

    schema: Any
    info: dict[str, Any]
    reference: Reference | None

    @property
    def roles(self) -> Roles:
        """Which column of a training table is what."""
        roles: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.info["roles"].items()
        }
        return Roles(**roles)

    @property
    @abstractmethod
    def table_roles(self) -> Roles:
        """The roles with what the fit has settled: the features, or the frequency."""

    @property
    def config(self) -> PipelineConfig:
        """The configuration it was fitted with."""
        return PipelineConfig.from_dict(self.info["config"])

    @property
    def model_type(self) -> str:
        """``lightgbm``, or which estimator of scikit-learn it is."""
        return str(self.info.get(MODEL_TYPE_TAG, LIGHTGBM))

    def with_info(self, more: Mapping[str, Any]) -> Self:
        """The same model, whose info says more."""
        return cast(Self, replace(cast(Any, self), info=self.info | dict(more)))

    @property
    def reported_columns(self) -> list[str]:
        """Columns that reports group by; they need not be features."""
        config = self.info["config"]
        columns = [*config.get("planning_columns", ()), *config.get("audit_columns", ())]
        return list(dict.fromkeys(columns))

    @property
    def shows_ids(self) -> bool:
        """Whether reports may name cases by their ids; models of before never asked for it."""
        return bool(self.info["config"].get("show_ids", False))

    @property
    def task(self) -> str:
        """``regression`` or ``classification``, as `PipelineConfig.task`."""
        return "regression"

    @property
    def text_columns(self) -> list[str]:
        """Columns of a labelled table that must be read as texts."""
        return list(self.schema.text_columns)

    # -- scoring -----------------------------------------------------------------------------

    @abstractmethod
    def predict(
        self, frame: pd.DataFrame, coverage: float | None = None, quantiles: Sequence[float] = ()
    ) -> Any:
        """Score a table; each row's answer depends on that row alone."""

    @property
    @abstractmethod
    def input_columns(self) -> dict[str, str]:
        """Columns that `predict` takes, in order, and their types: ``double``, ``string``,
        ``datetime``, ``long`` or ``array`` (of double)."""

    @property
    @abstractmethod
    def output_types(self) -> dict[str, str]:
        """Columns that `predict` returns, in order, and their types, in words of
        `input_columns`."""

    @property
    def output_columns(self) -> list[str]:
        """Names of the columns that `predict` returns, in order."""
        return list(self.output_types)

    @abstractmethod
    def example(self) -> pd.DataFrame:
        """Two or more synthetic rows that show the input."""

    # -- data --------------------------------------------------------------------------------

    @abstractmethod
    def checked_rows(self, frame: pd.DataFrame, config: PipelineConfig) -> pd.DataFrame:
        """A table, checked, as the history keeps it: columns it knows, as one type each.

        Raises
        ------
        DataValidationError
            A column is absent or does not fit.
        """

    @abstractmethod
    def labelled_window(self, history: DataVersioner, config: PipelineConfig) -> Window:
        """The newest labelled rows of the model's own table, each of them once."""

    @abstractmethod
    def out_of_sample(self, history: DataVersioner, batch_id: str, config: PipelineConfig) -> Cases:
        """Labelled cases of a batch of the history that the model was not fitted on and can score.

        Of series: the newest `horizon` periods of each, up to the newest one of the batch.
        """

    @abstractmethod
    def feature_values(
        self, history: DataVersioner, batch_id: str, config: PipelineConfig
    ) -> dict[str, np.ndarray]:
        """Numbers of a batch by feature (of series: by shape), shape (n,); NaN where missing."""

    # -- evaluation --------------------------------------------------------------------------

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """What this model is compared by, watched for and evaluated with."""

    @property
    @abstractmethod
    def score_name(self) -> str:
        """What the loop's score is called in reasons: ``R²``, ``accuracy`` ..."""

    def opened(self, table: pd.DataFrame) -> Any:
        """A table as `cases`, `segments` and `report_inputs` take it without reading it again."""
        return table

    @abstractmethod
    def cases(self, table: Any) -> Cases:
        """A labelled table, checked, as `losses` and `evaluate` take it.

        Raises
        ------
        DataValidationError
            The target is absent or missing, or a column does not fit.
        """

    @abstractmethod
    def fitted_part(self, cases: Any, history: DataVersioner | None = None) -> np.ndarray | None:
        """Mask of what the model was fitted on; None where that is unknown.

        Shape (n,) of rows; (n, steps) of series, whose values it is about. A model that keeps no
        hashes of its rows finds them in `history`.
        """

    @abstractmethod
    def part(self, cases: Any, mask: Any) -> Any:
        """What a mask of `fitted_part` (or a single boolean) leaves of the cases."""

    @abstractmethod
    def losses(self, cases: Any) -> np.ndarray:
        """The loss of each case, shape (n,), whose mean is the metric (`Metric.of`); NaN where it
        cannot be scored."""

    @abstractmethod
    def evaluate(self, cases: Any, known: Any = None) -> Evaluation:
        """Figures of forecasts beside what happened, as JSON but for numbers as keys.

        Parameters
        ----------
        cases : DataFrame or HeldBack
        known : DataFrame or HeldBack, optional
            Further labelled cases, among which last values are looked for.

        Raises
        ------
        DataValidationError
            There is nothing to compare.
        """

    def can_evaluate(self, cases: Any) -> bool:
        """Whether there is anything to compare."""
        return len(cases) > 0

    def groups(self, cases: Any) -> np.ndarray | None:
        """A number for whose case each is, shape (n,); None where every case is its own."""
        return None

    # -- state -------------------------------------------------------------------------------

    @abstractmethod
    def to_parts(self) -> Parts:
        """The model as named parts of plain bytes; `from_parts` reads them back."""

    @classmethod
    @abstractmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> Self:
        """The model of parts that have been checked (`state.open_sealed`)."""


class FittedPipeline(FittedModel):
    """A fitted model of segments.

    Attributes
    ----------
    segmentation : Segmentation
    resources : dict
        A model for each resource.
    reference : Reference
    fitted : FittedRows, FittedPeriods or None
        Which rows, or periods of series, it was fitted on; None is unknown.
    """

    segmentation: Segmentation
    target: Any
    resources: dict[str, Any]
    reference: Reference
    fitted: FittedRows | FittedPeriods | None

    @abstractmethod
    def for_executors(self, uri: str) -> Self:
        """What executors of Spark score with: the model without what tells its training rows.

        Raises
        ------
        PredictionError
            They cannot score with the model, which `uri` names.
        """

    @property
    def coverage(self) -> float:
        """Default coverage of the intervals, above 0 and below 1."""
        return float(self.info["config"]["coverage"])

    @property
    def target_columns(self) -> list[str]:
        """Columns of `predict` beside the prediction that are the target's."""
        return ["prediction_lower", "prediction_upper"]

    @property
    def output_columns(self) -> list[str]:
        return [
            "prediction",
            *self.target_columns,
            "cluster",
            "cluster_source",
            "cluster_strength",
            "cluster_weight",
            *(f"resource_{name}" for name in self.resources),
            "status",
        ]

    def answer_columns(self, quantiles: Sequence[float] = ()) -> list[str]:
        """`output_columns`, and those of the quantiles that are asked for, after the bounds."""
        names = self.output_columns
        place = names.index("cluster")
        return [*names[:place], *map(quantile_column, quantiles), *names[place:]]

    @property
    def output_types(self) -> dict[str, str]:
        texts = dict.fromkeys(("cluster_source", "status"), "string")
        numbers = {"cluster": "long", "cluster_strength": "double", "cluster_weight": "double"}
        return {name: (texts | numbers).get(name, "double") for name in self.output_columns}

    @property
    def cluster_ids(self) -> list[int]:
        """Ids of the segments, sorted."""
        return sorted(int(c) for c in np.unique(self.segmentation.density.label) if c != NOISE)

    @abstractmethod
    def labelled_example(self) -> pd.DataFrame:
        """The example as a table for training, labelled with the model's own predictions."""

    @abstractmethod
    def scored_table(
        self, frame: pd.DataFrame, predict: Callable[[pd.DataFrame], pd.DataFrame]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Forecasts of a table beside its keys, and the same with one row per case.

        Parameters
        ----------
        frame : DataFrame
        predict : callable
            `predict`, perhaps in parts.
        """

    @abstractmethod
    def of_features(self, name: str) -> Any:
        """This model, if it takes batches of features, as a pipeline in this process does.

        Raises
        ------
        ConfigurationError
            It does not; `name` is the registered model's.
        """

    # -- monitoring --------------------------------------------------------------------------

    @abstractmethod
    def batch(
        self, history: DataVersioner, batch_id: str, batches: list[str], config: PipelineConfig
    ) -> BatchWindow:
        """What a batch of the history shows; `batches` are those that were shown before."""

    @abstractmethod
    def is_noise(self, X: np.ndarray) -> np.ndarray:
        """Whether HDBSCAN calls each row of a `BatchWindow` noise, shape (n,)."""

    # -- report ------------------------------------------------------------------------------

    @abstractmethod
    def segments(self, table: Any) -> SegmentRows:
        """The cases of a table (or a `Panel`) that can be scored, with their segments."""

    @abstractmethod
    def evidence(self, cases: Any, basis: str) -> Evidence | None:
        """Cases that the model was not fitted on; `basis` says which, in words."""

    @abstractmethod
    def report_inputs(self, table: Any, fresh: Any, *, certain: bool = True) -> ReportInputs:
        """What a report on a labelled table (or a `Panel`) is made of.

        Accuracy and drift are those of the `fresh` cases, which the model was not fitted on as far
        as it is `certain`.
        """

    # -- state -------------------------------------------------------------------------------

    def renumbered(self, ids: Mapping[int, int], lineage: Mapping[str, Any]) -> Self:
        """The same model with other cluster ids, and where they come from in its info."""
        changes: dict[str, Any] = {
            "segmentation": self.segmentation.renumbered(ids),
            "target": self.target.renumbered(ids),
            "resources": {name: model.renumbered(ids) for name, model in self.resources.items()},
        }
        sizes = by_new_id(self.info["cluster_sizes"], ids)
        model = cast(Self, replace(cast(Any, self), **changes))
        return model.with_info({"lineage": dict(lineage), "cluster_sizes": sizes})

    def _shared_parts(self) -> Parts:
        """The parts that a model of any kind has under the same names."""
        arrays, values = self.segmentation.to_arrays()
        reference_arrays, reference_values = self.reference.to_arrays()
        return {
            "info.json": pack_json(self.info),
            "schema.json": pack_json(self.schema.to_dict()),
            "segmentation.json": pack_json(values),
            "segmentation.npz": pack_arrays(arrays),
            "reference.json": pack_json(reference_values),
            "reference.npz": pack_arrays(reference_arrays),
            "resources.json": pack_json(list(self.resources)),
        }

    @staticmethod
    def _segmentation_and_reference(parts: Mapping[str, bytes]) -> tuple[Segmentation, Reference]:
        """What `_shared_parts` wrote of them."""
        return (
            Segmentation.from_arrays(
                unpack_arrays(parts["segmentation.npz"]), unpack_json(parts["segmentation.json"])
            ),
            Reference.from_arrays(
                unpack_arrays(parts["reference.npz"]), unpack_json(parts["reference.json"])
            ),
        )


def by_new_id(figures: Mapping[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """Figures by cluster, as JSON has them, under the new ids; those without one stay."""
    return {str(ids.get(int(cluster), int(cluster))): value for cluster, value in figures.items()}
