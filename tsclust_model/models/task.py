"""What training asks of a kind of model: from a table to a fitted model and its figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.quality_schema import (
    QualityChecks,
    QualitySchema,
    infer_quality_schema,
)
from tsclust_model.data.roles import Roles
from tsclust_model.data.window import Window
from tsclust_model.models.base import Cases, FittedModel
from tsclust_model.results import ClusteringResult, Stages
from tsclust_model.shown import one_line

if TYPE_CHECKING:
    from tsclust_model.models.evidence import ReportInputs

COMPARED_SHARE = 0.2
"""Newest share of the window on which champion and challenger are compared."""

FEWEST_ROWS = 50


class Fit(Protocol):
    """A fitted model, and what its fit leaves behind for reports."""

    @property
    def generation(self) -> FittedModel: ...

    @property
    def clustering(self) -> ClusteringResult | None: ...


@one_line
@dataclass(frozen=True)
class Prepared:
    """A table that has been checked and can be fitted.

    Attributes
    ----------
    data : TrainingData or Panel
    known : DataFrame
        What is fitted, in the same order.
    holdout : DataFrame, HeldBack or None
        What is only evaluated on.
    figures : dict
        What the run shows of it.
    info : dict
        What the model that is fitted on it says of it.
    after : ndarray of bool, shape (n,), or None
        Rows of `known` since a drift began.
    rows : DataFrame
        All rows of the table, those that are fitted first.
    """

    data: Any
    known: pd.DataFrame
    holdout: Cases | None
    figures: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    after: np.ndarray | None = None
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)


@one_line
@dataclass(frozen=True)
class Split:
    """A window as a challenger meets it.

    Attributes
    ----------
    champion : FittedModel
    window : Window
    newest : DataFrame or HeldBack
        Cases that the challenger is not fitted on at first.
    compared : DataFrame or HeldBack
        Those of them that the champion was not fitted on either.
    """

    champion: FittedModel
    window: Window
    newest: Cases
    compared: Cases


@one_line
@dataclass(frozen=True)
class Findings:
    """What a fit found and what it gains.

    Attributes
    ----------
    fit : Fit
        Its model says what the segments gain.
    figures : dict
        JSON-ready; ``report.json`` of a run.
    inputs : ReportInputs or None
        What the report is made of; None where there is none.
    """

    fit: Any
    figures: dict[str, Any]
    inputs: ReportInputs | None = None


@dataclass(frozen=True)
class Task(ABC):
    """A kind of model to train on a table.

    Attributes
    ----------
    roles : Roles
    config : PipelineConfig
    """

    roles: Roles
    config: PipelineConfig

    has_series: ClassVar[bool] = False

    @property
    def text_columns(self) -> list[str]:
        """Columns that a csv must not read as numbers."""
        return []

    @property
    @abstractmethod
    def quality_checks(self) -> QualityChecks:
        """How `validate_data_quality` looks at its tables, as arguments."""

    def forecasts_as(self, model: FittedModel) -> bool:
        """Whether a model says as much of the future as one of this task would."""
        return self.roles.horizon == model.roles.horizon

    def check_roles(self) -> None:  # noqa: B027  most tables fit any roles
        """Refuse roles that no table can fit.

        Raises
        ------
        ConfigurationError
        """

    @abstractmethod
    def check(self, frame: pd.DataFrame) -> None:
        """Refuse what needs no run to be refused.

        Raises
        ------
        ConfigurationError, DataValidationError
        """

    @abstractmethod
    def prepare(self, frame: pd.DataFrame, holdout: float) -> Prepared:
        """Check a table, and leave its newest share (0 to below 1) out of the fit.

        Raises
        ------
        DataValidationError, ConfigurationError
        """

    @abstractmethod
    def fit(self, prepared: Prepared, info: Mapping[str, Any], stages: Stages) -> Any:
        """Fit a model whose info holds `info`; a `Fit`.

        Raises
        ------
        DataValidationError, ModelTrainingError
        """

    @abstractmethod
    def findings(
        self,
        fit: Any,
        prepared: Prepared,
        holdout: Any,
        *,
        first: Prepared | None = None,
        evaluated: Any = None,
        champion: FittedModel | None = None,
    ) -> Findings:
        """Figures of a fit, and what its report is made of.

        Parameters
        ----------
        fit : Fit
        prepared : Prepared
            What was fitted.
        holdout : DataFrame, HeldBack or None
            What is evaluated on.
        first : Prepared, optional
            What `evaluated` was fitted on.
        evaluated : FittedModel, optional
            A model that was fitted without `holdout`, if this one was not; accuracy is its own.
        champion : FittedModel, optional
            The model before.
        """

    @abstractmethod
    def split(self, champion: Any, window: Window, begun: int | None, lately: bool) -> Split:
        """Split a window into what the challenger is fitted on and what both are compared on.

        A challenger that has seen nothing of what came after a drift could not win.

        Parameters
        ----------
        champion : FittedModel
        window : Window
        begun : int or None
            Position of the first row since a drift began; None where none is known.
        lately : bool
            Whether the champion has learned too little since then.
        """

    @abstractmethod
    def first(self, split: Any) -> Prepared:
        """What the challenger is fitted on to be compared."""

    @abstractmethod
    def whole(self, split: Any) -> Prepared:
        """The whole window, on which a better challenger is fitted again."""

    def history_rows(self, model: Any, prepared: Prepared) -> pd.DataFrame:
        """The rows of a first training as the history keeps them."""
        return prepared.rows

    def numbered(self, champion: Any, fit: Any, prepared: Prepared) -> Any:
        """The fit with the ids of the champion's segments where they are the same."""
        return fit

    def watched_by_newest(self, fit: Any, prepared: Prepared, compared: Any, split: Any) -> Any:
        """A fit on the whole window, watched by what the compared model showed out of sample."""
        return fit

    def following(self, champion: FittedModel) -> Self:
        """The task of a challenger, on the champion's own columns."""
        return replace(self, roles=champion.table_roles)

    def features(self, prepared: Prepared) -> Iterable[str]:
        """Input columns that are fitted."""
        return list(prepared.data.schema.names)

    def observed(self, frame: pd.DataFrame) -> np.ndarray:
        """Positions of the rows that data-quality checks are for: those that are no mere plans."""
        return np.arange(len(frame))

    def quality_schema(self, prepared: Prepared, seen: Iterable[Any]) -> QualitySchema:
        """The schema that new rows are checked against; `seen` are the table's own columns.

        Outcomes of rows may come later; a series is made of them.
        """
        roles, outcomes = self.roles, (self.roles.target, *self.roles.resources)
        columns = (*self.features(prepared), *outcomes, roles.time, roles.id)
        schema = infer_quality_schema(
            prepared.known,
            columns=[name for name in columns if name],
            optional=() if self.has_series else outcomes,
            time=roles.time,
            id=roles.id,
            unique=self.has_series,
            markers=self.config.missing_markers,
        )
        return {**schema, "seen": sorted({*schema["seen"], *map(str, seen)})}
