from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsclust_model.boosting.folds import ORIGINS, Fold, time_ordered_folds

# Who each of up to 60 rows belongs to, in time order.
GROUPS = st.lists(st.integers(0, 12), min_size=1, max_size=60).map(np.array)
SHARES = st.lists(st.sampled_from([0.1, 0.25, 0.4, 0.6, 0.8, 0.95]), min_size=1, unique=True)


def slow_folds(groups: list[int], origins: tuple[float, ...]) -> list[tuple[list[int], list[int]]]:
    """The definition: whole groups, in the order of their newest rows, as far as they fit."""
    n_rows = len(groups)
    newest = {group: row for row, group in enumerate(groups)}
    order = sorted(newest, key=lambda group: newest[group])
    end_of = {}
    rows_so_far = 0
    for group in order:
        rows_so_far += groups.count(group)
        end_of[group] = rows_so_far
    bounds = [round(origin * n_rows) for origin in origins] + [n_rows]
    folds = []
    for start, end in itertools.pairwise(bounds):
        train = [row for row in range(n_rows) if end_of[groups[row]] <= start]
        valid = [row for row in range(n_rows) if start < end_of[groups[row]] <= end]
        if train and valid:
            folds.append((train, valid))
    return folds


def as_lists(folds: list[Fold]) -> list[tuple[list[int], list[int]]]:
    return [(fold.train.tolist(), fold.valid.tolist()) for fold in folds]


def test_without_groups_the_folds_are_cuts_in_time():
    assert as_lists(time_ordered_folds(10)) == [
        ([0, 1, 2, 3, 4, 5], [6, 7]),
        ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9]),
    ]


def test_a_group_is_placed_by_its_newest_row():
    # Group 0 comes first and once more at the very end: all of it is validated by the last fold.
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    assert as_lists(time_ordered_folds(10, groups)) == [
        ([1, 2, 3, 4, 5, 6], [7, 8]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [0, 9]),
    ]


def test_a_group_across_an_origin_is_validated_and_not_trained_on():
    groups = np.array([0, 1, 2, 3, 4, 5, 5, 6, 7, 8])
    first, _ = time_ordered_folds(10, groups)
    assert first.train.tolist() == [0, 1, 2, 3, 4]
    assert first.valid.tolist() == [5, 6, 7]


@given(groups=GROUPS, origins=SHARES)
def test_folds_are_those_of_the_definition(groups: np.ndarray, origins: list[float]):
    rising = tuple(sorted(origins))
    folds = time_ordered_folds(len(groups), groups, rising)
    assert as_lists(folds) == slow_folds(groups.tolist(), rising)


@given(groups=GROUPS)
def test_a_fold_never_parts_a_group(groups: np.ndarray):
    for fold in time_ordered_folds(len(groups), groups):
        assert not set(groups[fold.train]) & set(groups[fold.valid])


@given(groups=GROUPS)
def test_no_fold_trains_on_a_row_newer_than_the_newest_of_a_group_it_validates(groups: np.ndarray):
    newest = {group: row for row, group in enumerate(groups.tolist())}
    for fold in time_ordered_folds(len(groups), groups):
        assert fold.train.max() < min(newest[group] for group in groups[fold.valid].tolist())


@given(groups=GROUPS)
def test_every_row_is_validated_once_at_most_and_the_training_part_grows(groups: np.ndarray):
    folds = time_ordered_folds(len(groups), groups)
    validated = [row for fold in folds for row in fold.valid.tolist()]
    assert len(validated) == len(set(validated))
    for earlier, later in itertools.pairwise(folds):
        assert set(earlier.train.tolist()) <= set(later.train.tolist())


@given(n_rows=st.integers(0, 200))
def test_rows_without_groups_are_groups_of_one(n_rows: int):
    alone = time_ordered_folds(n_rows)
    assert as_lists(alone) == slow_folds(list(range(n_rows)), ORIGINS)
    if n_rows:
        assert as_lists(time_ordered_folds(n_rows, np.arange(n_rows))) == as_lists(alone)


def test_the_numbers_of_the_groups_mean_nothing():
    groups = np.random.default_rng(0).integers(0, 30, 200)
    renamed = np.random.default_rng(1).permutation(1000)[groups]
    assert as_lists(time_ordered_folds(200, groups)) == as_lists(time_ordered_folds(200, renamed))


@pytest.mark.parametrize("n_rows", [0, 1])
def test_too_few_rows_have_no_fold(n_rows: int):
    assert time_ordered_folds(n_rows) == []


def test_a_single_group_cannot_be_split():
    assert time_ordered_folds(100, np.zeros(100, dtype=np.int64)) == []


def test_two_groups_have_one_fold():
    assert as_lists(time_ordered_folds(10, np.repeat([0, 1], 5))) == [
        ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])
    ]


def test_groups_are_not_changed():
    groups = np.array([2, 0, 1, 2, 0])
    groups.flags.writeable = False
    time_ordered_folds(5, groups)
    assert groups.tolist() == [2, 0, 1, 2, 0]
