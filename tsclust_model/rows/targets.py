"""What models of rows forecast: a number or a class, behind one interface.

*Outcomes* are what happened: numbers, or classes as strings. *Codes* are outcomes as numbers: a
class is its position, -1 one that the model does not know. *Values* are a forecast: numbers, shape
(n,), or the probabilities of the classes, shape (n, n_classes).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd

from tsclust_model.boosting.output_model import ClassModel, NumberModel, OutputModel
from tsclust_model.boosting.quantiles import DECILES
from tsclust_model.boosting.recipes import ClassRecipe, NumberRecipe, Recipe
from tsclust_model.config import PipelineConfig
from tsclust_model.data.class_labels import ClassLabels
from tsclust_model.data.columns import (
    are_numbers,
    as_numbers,
    outcome,
    require_columns,
    validate_target,
    without_markers,
)
from tsclust_model.errors import DataValidationError
from tsclust_model.metrics import (
    Metric,
    interval_coverage,
    log_losses,
    quantile_losses,
    true_probabilities,
    weighted_quantile_loss,
)


class Naive(TypedDict, total=False):
    """What one would say without a model: of numbers `median`, of classes their `shares`."""

    median: float
    shares: list[float]


_KINDS = {"text": "strings", "number": "numbers", "boolean": "booleans"}


class Target(ABC):
    """What a model of rows forecasts.

    Attributes
    ----------
    name : str
        Column of the target.
    classes : tuple of str
        None of a number.
    task : str
        Name in `PipelineConfig.task`.
    score_name : str
        What the loop's score is called in reasons.
    prediction_type : str
        Of the column ``prediction``: ``double`` or ``string``.
    """

    name: str
    task: ClassVar[str]
    score_name: ClassVar[str]
    prediction_type: ClassVar[str]
    model_type: ClassVar[type[OutputModel]]
    recipe_type: ClassVar[type[Recipe]]

    classes: tuple[str, ...] = ()

    @property
    def class_columns(self) -> list[str]:
        """Columns of the probabilities; of a number none."""
        return []

    @property
    def metric(self) -> Metric:
        """What models are compared by."""
        return self.recipe_type.metric

    @property
    def string_columns(self) -> list[str]:
        """Its column, where a labelled table must be read with strings in it."""
        return []

    @abstractmethod
    def outcomes(self, frame: pd.DataFrame, markers: Collection[str]) -> np.ndarray:
        """What happened, shape (n,).

        Raises
        ------
        DataValidationError
            The target is absent, missing or of another type.
        """

    @abstractmethod
    def given(self, values: Any, n_rows: int, *, partial: bool = False) -> np.ndarray:
        """Outcomes that a caller gives, shape (n_rows,).

        With `partial` a value may be missing, which is not known yet: NaN, of a class None.

        Raises
        ------
        DataValidationError
            A value is missing (without `partial`), or of another kind than the target. A class that
            is new is none of these.
        """

    @abstractmethod
    def codes(self, y: np.ndarray) -> np.ndarray:
        """Outcomes as numbers, shape (n,)."""

    @abstractmethod
    def canonical(self, column: pd.Series, markers: Collection[str]) -> np.ndarray:
        """Outcomes as the history keeps them, shape (n,); NaN or None is not known."""

    def known_codes(self, column: pd.Series) -> np.ndarray:
        """Codes of a canonical column, float64, shape (n,); NaN is not known."""
        known = column.notna().to_numpy()
        codes = np.full(len(column), np.nan)
        codes[known] = self.codes(column[known].to_numpy())
        return codes

    @abstractmethod
    def prediction(self, values: np.ndarray) -> np.ndarray:
        """Values as the column ``prediction``, shape (n,): numbers, or the likeliest classes."""

    def answer(self, values: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        """The column ``prediction`` and those of the bounds, or the classes, shape (n,) each."""
        return [self.prediction(values), *bounds]

    def losses(self, y: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The loss of each forecast, shape (n,), whose mean is the metric (`Metric.of`)."""
        return self.recipe_type.losses(self.codes(y), values)

    def figures(self, y: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
        """How good forecasts are."""
        return self.recipe_type.figures(self.codes(y), values)

    def interval_figures(
        self, y: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], coverage: float
    ) -> dict[str, float | None]:
        """``coverage`` and ``interval_coverage`` (reached, 0 to 1), where it has bounds."""
        if self.class_columns:
            return {}
        return {"coverage": coverage, "interval_coverage": interval_coverage(y, *bounds)}

    def quantile_figures(
        self, model: OutputModel, y: np.ndarray, values: np.ndarray, labels: np.ndarray
    ) -> dict[str, float | None]:
        """``wql``, the weighted quantile loss of the deciles, where it has quantiles."""
        if self.class_columns:
            return {}
        losses = quantile_losses(y, model.quantiles(values, labels, DECILES), DECILES)
        return {"wql": weighted_quantile_loss(y, losses)}

    @abstractmethod
    def naive(self, codes: np.ndarray) -> Naive:
        """What one would say without a model, from the codes that are fitted, as JSON."""

    @abstractmethod
    def naive_losses(
        self, naive: Naive, codes: np.ndarray, last: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Losses of simple forecasts by name, shape (n,): ``naive``, and of numbers ``last_value``.

        Parameters
        ----------
        naive : mapping
            Of `naive`.
        codes : ndarray, shape (n,)
        last : ndarray, shape (n,), optional
            The last code that is known before each row; NaN is none.
        """

    @abstractmethod
    def naive_figures(
        self, naive: Naive | None, codes: np.ndarray, last: np.ndarray | None = None
    ) -> dict[str, float]:
        """What a model has to beat; empty without `naive`, as of models that are older.

        The parameters are those of `naive_losses`.
        """

    @abstractmethod
    def recipe(self, config: PipelineConfig, categorical: list[int]) -> Recipe:
        """How its models are fitted; `categorical` are positions of columns."""

    def to_state(self) -> dict[str, Any]:
        """What the state of its model holds beside the model's own."""
        return {}

    @abstractmethod
    def of_codes(self, codes: np.ndarray) -> np.ndarray:
        """The outcomes of known codes, shape (n,)."""

    @abstractmethod
    def seen_by(self, estimator: Any) -> Target:
        """The target as the values of a scikit-learn estimator have it: its classes, its order."""

    @abstractmethod
    def values_of(self, estimator: Any, inputs: Any) -> np.ndarray:
        """Values of a scikit-learn estimator."""


@dataclass(frozen=True)
class NumberTarget(Target):
    """A target of numbers, whose forecasts have bounds.

    Attributes
    ----------
    name : str
        Column of the target.
    """

    name: str
    task: ClassVar[str] = "regression"
    score_name: ClassVar[str] = "R²"
    prediction_type: ClassVar[str] = "double"
    model_type: ClassVar[type[OutputModel]] = NumberModel
    recipe_type: ClassVar[type[Recipe]] = NumberRecipe

    def outcomes(self, frame: pd.DataFrame, markers: Collection[str]) -> np.ndarray:
        return outcome(frame, self.name, "target column")

    def given(self, values: Any, n_rows: int, *, partial: bool = False) -> np.ndarray:
        if not partial:
            return validate_target(values, n_rows, self.name)
        given = values.squeeze(axis=1) if isinstance(values, pd.DataFrame) else values
        column = pd.Series(np.asarray(given).reshape(-1))
        numbers = np.full(n_rows, np.nan)
        is_known = _known_values(column, n_rows, self.name)
        numbers[is_known] = validate_target(column[is_known], int(is_known.sum()), self.name)
        return numbers

    def codes(self, y: np.ndarray) -> np.ndarray:
        return y

    def canonical(self, column: pd.Series, markers: Collection[str]) -> np.ndarray:
        return as_numbers(column, markers)

    def prediction(self, values: np.ndarray) -> np.ndarray:
        return values

    def naive(self, codes: np.ndarray) -> Naive:
        """``median`` of the outcomes."""
        return {"median": float(np.median(codes))}

    def naive_losses(
        self, naive: Naive, codes: np.ndarray, last: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        losses = {"naive": np.square(codes - naive["median"])}
        if last is not None:
            before = np.where(np.isnan(last), naive["median"], last)
            losses["last_value"] = np.square(codes - before)
        return losses

    def naive_figures(
        self, naive: Naive | None, codes: np.ndarray, last: np.ndarray | None = None
    ) -> dict[str, float]:
        if naive is None or not len(codes):
            return {}
        losses = self.naive_losses(naive, codes, last)
        return {
            f"{name}_{way}": figure
            for way, squares in losses.items()
            for name, figure in (
                ("rmse", math.sqrt(squares.mean())),
                ("mae", float(np.sqrt(squares).mean())),
            )
        }

    def recipe(self, config: PipelineConfig, categorical: list[int]) -> Recipe:
        return number_recipe(config, config.lgb_timeseries_params, categorical)

    def of_codes(self, codes: np.ndarray) -> np.ndarray:
        return codes

    def seen_by(self, estimator: Any) -> Target:
        return self

    def values_of(self, estimator: Any, inputs: Any) -> np.ndarray:
        return np.asarray(estimator.predict(inputs))


@dataclass(frozen=True)
class ClassTarget(ClassLabels, Target):
    """A target of classes, whose forecasts are probabilities; see `ClassLabels`."""

    task: ClassVar[str] = "classification"
    score_name: ClassVar[str] = "accuracy"
    prediction_type: ClassVar[str] = "string"
    model_type: ClassVar[type[OutputModel]] = ClassModel
    recipe_type: ClassVar[type[Recipe]] = ClassRecipe

    @property
    def class_columns(self) -> list[str]:
        return self.columns

    @property
    def string_columns(self) -> list[str]:
        return [self.name] if self.kind != "number" else []

    def outcomes(self, frame: pd.DataFrame, markers: Collection[str]) -> np.ndarray:
        require_columns(frame, [self.name], "target column")
        return self.texts(without_markers(frame[self.name], markers))

    def given(self, values: Any, n_rows: int, *, partial: bool = False) -> np.ndarray:
        column = pd.Series(values)
        is_known = _known_values(column, n_rows, self.name) if partial else np.ones(n_rows, bool)
        strings = np.full(n_rows, None, dtype=object)
        strings[is_known] = self.texts(one_each(column, n_rows, self.name)[is_known])
        if not isinstance(column.dtype, pd.CategoricalDtype):
            self._refuse_other_kind(column[is_known], strings[is_known])
        return strings

    def _refuse_other_kind(self, values: pd.Series, strings: np.ndarray) -> None:
        if self.kind == "text":
            odd = [isinstance(value, (Number, np.bool_)) for value in values]
        elif self.kind == "number":
            odd = list(~are_numbers(pd.Series(strings)))
        else:
            odd = [text not in ("true", "false") for text in strings]
        n_odd = int((np.array(odd, dtype=bool) & (self.codes(strings) < 0)).sum())
        if n_odd:
            raise DataValidationError(
                f"{self.name} holds {n_odd} value(s) that can be no class of this model, whose "
                f"classes are {_KINDS[self.kind]}; give classes as in training"
            )

    def canonical(self, column: pd.Series, markers: Collection[str]) -> np.ndarray:
        present = without_markers(column, markers)
        known, strings = present.notna().to_numpy(), np.full(len(column), None, dtype=object)
        strings[known] = self.texts(present[known])
        return strings

    def answer(self, values: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        return [self.prediction(values), *np.ascontiguousarray(values.T)]

    def prediction(self, values: np.ndarray) -> np.ndarray:
        return np.array(self.classes, dtype=object)[values.argmax(axis=1)]

    def naive(self, codes: np.ndarray) -> Naive:
        """``shares`` of the classes."""
        counts = np.bincount(codes[codes >= 0].astype(np.int64), minlength=len(self.classes))
        return {"shares": (counts / max(counts.sum(), 1)).tolist()}

    def naive_losses(
        self, naive: Naive, codes: np.ndarray, last: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        shares = np.broadcast_to(naive["shares"], (len(codes), len(naive["shares"])))
        return {"naive": log_losses(true_probabilities(shares, codes))}

    def naive_figures(
        self, naive: Naive | None, codes: np.ndarray, last: np.ndarray | None = None
    ) -> dict[str, float]:
        """The commonest class has ``accuracy_naive``, the class before ``accuracy_last_value``."""
        if naive is None or not len(codes):
            return {}
        common = int(np.argmax(naive["shares"]))
        figures = {
            "log_loss_naive": float(self.naive_losses(naive, codes)["naive"].mean()),
            "accuracy_naive": float((codes == common).mean()),
        }
        if last is not None:
            before = np.where(np.isnan(last), common, last)
            figures["accuracy_last_value"] = float(((codes == before) & (codes >= 0)).mean())
        return figures

    def recipe(self, config: PipelineConfig, categorical: list[int]) -> Recipe:
        return ClassRecipe(
            config.lgb_timeseries_params,
            categorical,
            config.combine,
            config.min_cluster_rows,
            n_classes=len(self.classes),
        )

    def to_state(self) -> dict[str, Any]:
        return {"classes": self.to_dict()}

    def of_codes(self, codes: np.ndarray) -> np.ndarray:
        return np.array(self.classes, dtype=object)[codes.astype(np.int64)].astype(str)

    def seen_by(self, estimator: Any) -> Target:
        return ClassTarget(self.name, self.kind, tuple(map(str, estimator.classes_)))

    def values_of(self, estimator: Any, inputs: Any) -> np.ndarray:
        return np.asarray(estimator.predict_proba(inputs))


def number_recipe(
    config: PipelineConfig, params: Mapping[str, Any], categorical: list[int]
) -> NumberRecipe:
    """How a number, the target or a resource, is fitted."""
    return NumberRecipe(
        params,
        categorical,
        config.combine,
        config.min_cluster_rows,
        config.clip_to_support,
        config.round_intervals,
    )


def target_of(name: str, classes: Mapping[str, Any] | None) -> Target:
    """The target of a state: of classes where it has some (`ClassTarget.to_dict`)."""
    return NumberTarget(name) if classes is None else ClassTarget.from_dict(classes)


def one_each(y: pd.Series, n_rows: int, name: str) -> np.ndarray:
    """The values, shape (n_rows,), refused if they are not one a row."""
    if len(y) != n_rows:
        raise DataValidationError(f"{name} has {len(y)} values for {n_rows} rows; give one a row")
    return y.to_numpy(dtype=object)


def _known_values(column: pd.Series, n_rows: int, name: str) -> np.ndarray:
    """Mask of the values that are known by now, shape (n_rows,)."""
    is_known = ~pd.isna(one_each(column, n_rows, name))
    if not is_known.any():
        raise DataValidationError(
            f"{name} holds no outcome that is known; call again with one, or leave {name} out"
        )
    return np.asarray(is_known)
