"""LightGBM models in flat arrays, summed by one kernel to the last bit of `Booster.predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from tsclust_model._kernels import rows as kernels
from tsclust_model._kernels.search_tree import in_parts
from tsclust_model.errors import PredictionError
from tsclust_model.shown import one_line

# Objectives whose forecast is the sum of the trees and nothing more.
_PLAIN = {
    *("regression", "regression_l2", "l2", "mean_squared_error", "mse", "rmse"),
    *("regression_l1", "l1", "mae", "huber", "fair", "quantile", "mape", "custom", "none"),
}

_TREE_LINES = (
    "num_leaves",
    "num_cat",
    "split_feature",
    "split_gain",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "leaf_value",
)

_NAMES = (
    *("feature", "kind", "threshold", "word", "mask", "bits"),
    *("test_start", "leaf_start", "value", "n_words", "tree_start"),
)

_N_TESTS = 6  # of them tell of the tests

_IS_CATEGORY, _DEFAULT_LEFT = 1, 2

_MISSING_NONE, _MISSING_ZERO, _MISSING_NAN = 0, 1, 2

_WORD = 64


def is_packable(text: str) -> bool:
    """Whether a model's forecast is a plain sum of trees, as of regression with constant leaves."""
    header = dict(line.partition("=")[::2] for line in text.partition("\nTree=")[0].split("\n"))
    objective = header.get("objective", "none").split()
    return (
        header.get("num_class") == "1"
        and header.get("num_tree_per_iteration") == "1"
        and objective[0] in _PLAIN
        and "sqrt" not in objective
        and "average_output" not in header
        and "\nTree=" in text
        and "\nis_linear=1" not in text
    )


@one_line
@dataclass(frozen=True)
class Forest:
    """Packed models.

    Attributes
    ----------
    arrays : tuple
        What `_kernels.rows.forecast` reads. Of each test: feature, kind, threshold, word
        and mask of the leaves it leaves possible; bits of the categories. Of each tree: its first
        test, first leaf, leaf values from left to right and number of 64-leaf words. Of each
        model: its first tree.
    """

    arrays: tuple[Any, ...]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name; `from_arrays` reads them back."""
        tests, trees, tree_start = self.arrays
        return dict(zip(_NAMES, (*tests, *trees, tree_start), strict=True))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Forest:
        *parts, tree_start = (arrays[name] for name in _NAMES)
        return cls((tuple(parts[:_N_TESTS]), tuple(parts[_N_TESTS:]), tree_start))

    @cached_property
    def n_features(self) -> int:
        """Columns that the trees read: up to the last one that any test looks at."""
        feature = self.arrays[0][0]
        return int(feature.max(initial=-1)) + 1

    @classmethod
    def pack(cls, texts: Sequence[str]) -> Forest:
        """Pack LightGBM's model texts, each of them `is_packable`."""
        trees: list[list[str]] = []
        tree_start = [0]
        for text in texts:
            trees += _tree_lines(text)
            tree_start.append(len(trees))
        return cls((*_pack_trees(trees), np.array(tree_start)))

    def predict(
        self, X: np.ndarray, labels: np.ndarray, models: np.ndarray, everyone: np.ndarray
    ) -> np.ndarray:
        """Sums of trees, shape (n_outputs of `everyone` and then of `models`, n).

        Parameters
        ----------
        X : ndarray of float64, shape (n, n_features)
        labels : ndarray of int64, shape (n,)
            Row of `models` for each row of X.
        models : ndarray of int64, shape (n_labels, n_outputs)
            Which model forecasts an output for a label; -1 is none, whose forecast is 0.
        everyone : ndarray of int64, shape (n_outputs,)
            Models that forecast every row.

        Raises
        ------
        PredictionError
            X has fewer columns than the trees read.
        """
        X = np.require(X, np.float64, ["C", "W"])
        if X.shape[1] < self.n_features:
            raise PredictionError(
                f"the rows have {X.shape[1]} columns and the models read {self.n_features}"
            )
        out = np.zeros((len(everyone) + models.shape[1], len(X)))
        first = np.concatenate([everyone, np.full(models.shape[1], -1)])
        own = np.concatenate([np.full((len(models), len(everyone)), -1), models], axis=1)

        def work(rows: np.ndarray) -> None:
            clusters, starts = np.unique(labels[rows], return_index=True)
            groups = np.concatenate([[0], len(rows) + starts, [2 * len(rows)]])
            wanted = np.concatenate([first[None], own[clusters]])
            kernels.forecast(X, np.concatenate([rows, rows]), groups, wanted, self.arrays, out)

        in_parts(work, np.argsort(labels, kind="stable"))
        return out


def _tree_lines(text: str) -> list[list[str]]:
    """The lines of each tree of a model."""
    body = text.partition("\nTree=")[2].partition("\nend of trees")[0]
    return [tree.split("\n") for tree in body.split("\nTree=")] if body else []


def _pack_trees(trees: Sequence[list[str]]) -> tuple[Any, ...]:
    columns: dict[str, list[str]] = {name: [] for name in _TREE_LINES}
    for lines in trees:
        for name, line in zip(_TREE_LINES, lines[1:], strict=False):
            columns[name].append(line.removeprefix(name + "="))

    def numbers(name: str, dtype: Any = np.int64) -> np.ndarray:
        # Not the empty lines of trees with one leaf: numpy reads a number out of mere blanks.
        return np.fromstring(" ".join(filter(None, columns[name])), dtype=dtype, sep=" ")

    n_leaves = numbers("num_leaves")
    tests = np.maximum(n_leaves - 1, 0)
    first_test, first_leaf = _starts(tests), _starts(n_leaves)
    low, middle, rank = kernels.pack_trees(
        numbers("left_child"), numbers("right_child"), n_leaves, first_test[:-1]
    )
    value = np.empty(first_leaf[-1])
    value[np.repeat(first_leaf[:-1], n_leaves) + rank] = numbers("leaf_value", np.float64)

    threshold = numbers("threshold", np.float64)
    decision = numbers("decision_type")
    kind = _kinds(decision, threshold)
    threshold, bits = _with_categories(trees, columns["num_cat"], tests, decision, threshold)

    # A test that rules out leaves of several words is repeated, once for each of them.
    words = (middle - 1) // _WORD - low // _WORD + 1
    # Tests of one kind come together within a tree: what they rule out adds up in any order.
    tree = np.repeat(np.arange(len(n_leaves)), tests)
    test = np.repeat(np.arange(len(low)), words)
    word = low[test] // _WORD + np.arange(len(test)) - np.repeat(_starts(words)[:-1], words)
    mask = ~(_below(middle[test] - _WORD * word) & ~_below(low[test] - _WORD * word))
    order = np.lexsort((word, kind[test], tree[test]))
    test, word, mask = test[order], word[order], mask[order]
    feature = numbers("split_feature")[test].astype(np.int32)
    return (
        (feature, kind[test], threshold[test], word.astype(np.int32), mask, bits),
        (_starts(words)[first_test], first_leaf, value, -(-n_leaves // _WORD)),
    )


def _starts(sizes: np.ndarray) -> np.ndarray:
    """Where parts of these sizes start, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _below(n: np.ndarray) -> np.ndarray:
    """Words whose lowest `n` bits are set; n is cut to 0 to 64."""
    n = np.clip(n, 0, _WORD)
    some = np.uint64(2) ** (np.maximum(n, 1) - 1).astype(np.uint64)
    return np.where(n == 0, np.uint64(0), some | (some - np.uint64(1)))


def _kinds(decision: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Which of the kernel's tests each node is, by where it sends what is missing."""
    missing = (decision >> 2) & 3
    # Without missing values in training LightGBM takes a missing one for 0.
    left = np.where(missing == _MISSING_NONE, threshold >= 0, (decision & _DEFAULT_LEFT) > 0)
    kind = np.where(left, kernels.LEFT, kernels.RIGHT)
    zero = missing == _MISSING_ZERO
    kind[zero] = np.where(left[zero], kernels.ZERO_LEFT, kernels.ZERO_RIGHT)
    kind[(decision & _IS_CATEGORY) > 0] = kernels.CATEGORY
    return kind.astype(np.int8)


def _with_categories(
    trees: Sequence[list[str]],
    num_cat: Sequence[str],
    tests: np.ndarray,
    decision: np.ndarray,
    threshold: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds that point to the bits of their categories, and the bits."""
    threshold = threshold.copy()
    is_category = (decision & _IS_CATEGORY) > 0
    first_test = _starts(tests)
    bits: list[np.ndarray] = [np.zeros(1, dtype=np.uint32)]
    n_bits = 1
    for tree in np.flatnonzero(np.array(num_cat, dtype=object) != "0"):
        named = dict(line.partition("=")[::2] for line in trees[int(tree)])
        bounds = np.fromstring(named["cat_boundaries"], dtype=np.int64, sep=" ")
        words = np.fromstring(named["cat_threshold"], dtype=np.int64, sep=" ").astype(np.uint32)
        places = []
        for start, stop in pairwise(bounds):
            places.append(n_bits)
            bits += [np.array([stop - start], dtype=np.uint32), words[start:stop]]
            n_bits += 1 + int(stop - start)
        rows = np.arange(first_test[tree], first_test[tree + 1])
        rows = rows[is_category[rows]]
        threshold[rows] = np.array(places)[threshold[rows].astype(np.int64)]
    return threshold, np.concatenate(bits)
