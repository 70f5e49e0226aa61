"""A target of classes: which values are classes, their texts, and the columns they become."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from tsclust_model.data.columns import are_numbers, as_boolean, is_nested
from tsclust_model.errors import DataValidationError

MOST_CLASSES = 100

_LONGEST = 200

_WHOLE = 2**53  # beyond it floats do not hold every whole number

_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")

_KINDS = {
    **dict.fromkeys(("string", "categorical", "mixed-integer", "mixed"), "text"),
    **dict.fromkeys(("integer", "floating", "mixed-integer-float", "decimal"), "number"),
    "boolean": "boolean",
}


@dataclass(frozen=True)
class ClassLabels:
    """The classes of a target.

    Attributes
    ----------
    name : str
        Column of the target.
    kind : {'text', 'number', 'boolean'}
        What its values are: 1, 1.0 and "1" are one class of numbers, and two of texts.
    classes : tuple of str
        In order: of numbers by size, of texts by the alphabet. A class's position is its code.
    """

    name: str
    kind: str
    classes: tuple[str, ...]

    @classmethod
    def fit(
        cls, column: pd.Series, name: str, *, known: ClassLabels | None = None, asked: bool = False
    ) -> Self:
        """Find the classes of a column, markers of missing values already taken out of it.

        Parameters
        ----------
        column : Series
            As texts, if it was of categories: somebody has said that its numbers are names.
        name : str
        known : ClassLabels, optional
            Of the model this one may follow: its kind, and its classes too, so that the columns
            of the answer stay.
        asked : bool
            Whether the configuration asks for classes; a text among numbers is one then.

        Raises
        ------
        DataValidationError
            Missing values, one class only, too many, or what is no class.
        """
        kind = _kind(column, name) if known is None else known.kind
        texts = cls(name, kind, ()).texts(column)
        if kind == "text" and not asked and known is None:
            _refuse_broken_numbers(column, name)
        classes = set(texts) | set(() if known is None else known.classes)
        if len(set(texts)) == 1:
            raise DataValidationError(
                f"target '{name}' has one class only; give rows of two classes or more"
            )
        if len(classes) > MOST_CLASSES:
            raise DataValidationError(
                f"target '{name}' has {len(classes)} classes, and {MOST_CLASSES} are the most; put "
                "rare ones together, or give numbers (task 'regression') if it is an amount"
            )
        if max(map(len, classes)) > _LONGEST:
            raise DataValidationError(
                f"target '{name}' has a class of more than {_LONGEST} characters; give it a name"
            )
        target = cls(name, kind, tuple(sorted(classes, key=_order(kind))))
        _refuse_clashes(target)
        return target

    def texts(self, column: pd.Series | np.ndarray | Sequence[Any]) -> np.ndarray:
        """The class of each value as text, shape (n,); 1.0 is "1", True is "true".

        Raises
        ------
        DataValidationError
            A value is missing or infinite.
        """
        values = pd.Series(column).astype(object)
        missing = int(values.isin([np.inf, -np.inf]).sum() + values.isna().sum())
        if missing:
            raise DataValidationError(
                f"{self.name} is missing or infinite in {missing} row(s); remove those rows"
            )
        strings = np.empty(len(values), dtype=object)
        strings[:] = [self._text(value) for value in values]
        return strings

    def _text(self, value: Any) -> str:
        if self.kind == "number":
            return _number_text(value)
        if self.kind == "boolean":
            return as_boolean(str(value))
        return str(value)

    def codes(self, texts: np.ndarray) -> np.ndarray:
        """Positions of `texts` among the classes, shape (n,), int64; -1 is another class."""
        return (
            pd.Index(self.classes, dtype=object)
            .get_indexer(pd.Index(texts, dtype=object))
            .astype(np.int64)
        )

    @cached_property
    def columns(self) -> list[str]:
        """Columns of the probabilities: ``probability_<class>``; runs of blanks and line breaks
        within a class are one blank there, and none at its ends."""
        return [f"probability_{_BLANKS.sub(' ', text).strip()}" for text in self.classes]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        return cls(content["name"], content["kind"], tuple(content["classes"]))


def holds_classes(column: pd.Series) -> bool:
    """Whether a target is texts, booleans or categories, which are classes; not numbers."""
    if pd.api.types.is_bool_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype):
        return True
    if pd.api.types.is_numeric_dtype(column):
        return False
    kinds = ("string", "boolean", "mixed", "mixed-integer")
    return pd.api.types.infer_dtype(column, skipna=True) in kinds


def check_names(target: ClassLabels, taken: Collection[str | None]) -> None:
    """Refuse key columns of the rows that are named as a column of the answer.

    Raises
    ------
    DataValidationError
    """
    for name in taken:
        if name in target.columns:
            raise DataValidationError(f"'{name}' is a column of the forecasts; rename it")


def _kind(column: pd.Series, name: str) -> str:
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    held = any(map(is_nested, column))
    if inferred not in _KINDS or held:
        what = "lists or mappings" if held else f"{inferred} values"
        raise DataValidationError(
            f"target '{name}' holds {what}; give numbers, or classes as texts, numbers or booleans"
        )
    return _KINDS[inferred]


def _refuse_broken_numbers(column: pd.Series, name: str) -> None:
    texts = column.astype(str)
    numbers = int(are_numbers(texts).sum())
    if len(texts) / 2 < numbers < len(texts):
        raise DataValidationError(
            f"target '{name}' holds numbers and, in {len(texts) - numbers} row(s), texts; correct "
            "them, add the text to missing_markers, or set task to 'classification'"
        )


def _refuse_clashes(target: ClassLabels) -> None:
    if len(set(target.columns)) < len(target.columns):
        raise DataValidationError(
            f"two classes of target '{target.name}' differ in blanks or line breaks only; "
            "make them one, or give one another name"
        )
    folded = {column.casefold() for column in target.columns}
    if len(folded) < len(target.columns):
        warnings.warn(
            f"classes of target '{target.name}' differ in case only; make them one if they "
            "are (Spark does not tell columns apart by case)",
            stacklevel=2,
        )


def _number_text(value: Any) -> str:
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)
    whole = abs(number) < _WHOLE and number == int(number)
    return str(int(number)) if whole else repr(number)


def _order(kind: str) -> Any:
    """What sorts the classes: numbers by size (a text that is none comes last), texts as texts."""
    if kind != "number":
        return str

    def key(text: str) -> tuple[bool, float, str]:
        try:
            return False, float(text), text
        except ValueError:
            return True, 0.0, text

    return key
