from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from tsclust_model.clustering.engine import FittedSegmentation, fit_density, fit_fallback
from tsclust_model.clustering.lineage import Lineage, first_lineage, match_clusters
from tsclust_model.config import PipelineConfig
from tsclust_model.data.synthetic import _VITALS, make_hospital
from tsclust_model.results import NOISE, Assignment


def assignment(labels: list[int], noise: list[int] | None = None) -> Assignment:
    """Labels after the fallback; `noise` are positions of rows that HDBSCAN called noise."""
    found = np.array(labels, dtype=np.int64)
    is_noise = found == NOISE
    is_noise[noise or []] = True
    return Assignment(found, is_noise, np.where(is_noise, 0.0, 1.0))


def test_every_segment_of_a_first_generation_is_born():
    assert first_lineage(3) == Lineage(kept={}, born=(0, 1, 2), retired=(), next_id=3)
    assert first_lineage(0) == Lineage({}, (), (), 0)


def test_renumbered_clusters_get_their_old_ids_back():
    old = assignment([7] * 10 + [2] * 6 + [4] * 8)
    new = assignment([0] * 10 + [1] * 6 + [2] * 8)
    mapping, lineage = match_clusters(old, new, [2, 4, 7], 9, [0, 1, 2])
    assert mapping == {0: 7, 1: 2, 2: 4}
    assert lineage == Lineage(kept={7: 10, 2: 6, 4: 8}, born=(), retired=(), next_id=9)


def test_a_window_that_overlaps_by_80_percent_keeps_the_ids():
    rng = np.random.default_rng(0)
    before = rng.integers(0, 4, 100)
    after = (before + 1) % 4  # HDBSCAN's own numbers say nothing
    after[80:] = rng.integers(0, 4, 20)
    mapping, lineage = match_clusters(
        assignment(before.tolist()), assignment(after.tolist()), range(4), 4, range(4)
    )
    assert mapping == {1: 0, 2: 1, 3: 2, 0: 3}
    assert (lineage.born, lineage.retired) == ((), ())


def test_a_born_segment_gets_a_new_number_and_a_dead_one_is_retired():
    old = assignment([0] * 10 + [1] * 10 + [NOISE] * 10)
    new = assignment([NOISE] * 10 + [0] * 10 + [1] * 10)
    mapping, lineage = match_clusters(old, new, [0, 1], 5, [0, 1])
    assert mapping == {0: 1, 1: 5}
    assert lineage == Lineage(kept={1: 10}, born=(5,), retired=(0,), next_id=6)


def test_a_retired_id_is_never_used_again():
    ids, next_id, used = [0], 1, [0]
    for _ in range(4):  # each generation loses its only cluster and finds another elsewhere
        mapping, lineage = match_clusters(
            assignment(ids * 4), assignment([NOISE] * 4), ids, next_id, [0]
        )
        assert lineage.retired == tuple(ids)
        ids, next_id = [mapping[0]], lineage.next_id
        used += ids
    assert used == [0, 1, 2, 3, 4]


def test_two_halves_of_a_segment_are_matched_one_to_one_by_the_larger():
    old = assignment([3] * 20)
    new = assignment([0] * 8 + [1] * 12)
    mapping, lineage = match_clusters(old, new, [3], 4, [0, 1])
    assert mapping == {0: 4, 1: 3}
    assert lineage == Lineage(kept={3: 12}, born=(4,), retired=(), next_id=5)


def test_two_segments_that_merge_keep_the_id_of_the_larger():
    old = assignment([0] * 8 + [1] * 12)
    new = assignment([0] * 20)
    mapping, lineage = match_clusters(old, new, [0, 1], 2, [0])
    assert mapping == {0: 1}
    assert lineage == Lineage(kept={1: 12}, born=(), retired=(0,), next_id=2)


def test_the_total_overlap_counts_where_the_largest_pair_would_not():
    # Greedy takes the 10 and is left with 0 + 1; together 9 + 9 are more.
    old = assignment([0] * 10 + [1] * 9 + [0] * 9 + [1] * 1)
    new = assignment([0] * 10 + [0] * 9 + [1] * 9 + [1] * 1)
    mapping, lineage = match_clusters(old, new, [0, 1], 2, [0, 1])
    assert mapping == {0: 1, 1: 0}
    assert lineage.kept == {1: 9, 0: 9}


def test_rows_that_were_noise_in_either_generation_say_nothing():
    labels = [0] * 10 + [1] * 30
    new = assignment([0] * 40)
    # 30 rows came to 1 by the fallback alone.
    mapping, lineage = match_clusters(
        assignment(labels, noise=list(range(10, 40))), new, [0, 1], 2, [0]
    )
    assert mapping == {0: 0}
    assert lineage == Lineage(kept={0: 10}, born=(), retired=(1,), next_id=2)
    mapping, lineage = match_clusters(
        assignment(labels), assignment([0] * 40, noise=list(range(10, 40))), [0, 1], 2, [0]
    )
    assert (mapping, lineage.kept) == ({0: 0}, {0: 10})


@pytest.mark.parametrize(
    ("shared", "mapping", "retired"),
    [(1, {0: 1}, (0,)), (3, {0: 1}, (0,)), (4, {0: 0}, ()), (20, {0: 0}, ())],
)
def test_a_few_shared_rows_make_no_identity(
    shared: int, mapping: dict[int, int], retired: tuple[int, ...]
):
    # A fifth of the smaller cluster, which has 20 rows, is the least.
    old = assignment([0] * 20 + [9] * (30 - shared))
    new = assignment([0] * shared + [8] * (20 - shared) + [0] * (30 - shared))
    found, lineage = match_clusters(old, new, [0], 1, [0])
    assert found == mapping
    assert lineage.retired == retired


@pytest.mark.parametrize(
    ("old_ids", "new_ids", "mapping", "lineage"),
    [
        ([], [], {}, Lineage({}, (), (), 6)),
        ([], [0, 1], {0: 6, 1: 7}, Lineage({}, (6, 7), (), 8)),
        ([2, 5], [], {}, Lineage({}, (), (2, 5), 6)),
    ],
)
def test_a_generation_without_clusters_keeps_nothing(
    old_ids: list[int], new_ids: list[int], mapping: dict[int, int], lineage: Lineage
):
    old = assignment((old_ids or [NOISE]) * 4)
    new = assignment((new_ids or [NOISE]) * 4)
    rows = min(len(old.labels), len(new.labels))
    old, new = (
        Assignment(a.labels[:rows], a.is_noise[:rows], a.strength[:rows]) for a in (old, new)
    )
    assert match_clusters(old, new, old_ids, 6, new_ids) == (mapping, lineage)


def test_without_rows_every_old_segment_is_retired_and_every_new_one_born():
    nothing = assignment([])
    assert match_clusters(nothing, nothing, [0, 3], 4, [0, 1]) == (
        {0: 4, 1: 5},
        Lineage({}, (4, 5), (0, 3), 6),
    )


def test_an_old_segment_without_a_row_here_is_retired():
    mapping, lineage = match_clusters(assignment([1] * 5), assignment([0] * 5), [0, 1, 2], 3, [0])
    assert mapping == {0: 1}
    assert lineage.retired == (0, 2)


def best_total(shared: np.ndarray) -> int:
    """The largest total overlap of any one-to-one matching, by trying all of them."""
    if shared.shape[0] > shared.shape[1]:
        shared = shared.T
    n_rows, n_columns = shared.shape
    return max(
        sum(int(shared[i, j]) for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(n_columns), n_rows)
    )


@pytest.mark.parametrize("seed", range(25))
def test_the_matching_is_the_best_of_all_permutations(seed: int):
    rng = np.random.default_rng(seed)
    n_old, n_new = rng.integers(1, 6, 2)
    old_ids = rng.choice(20, n_old, replace=False)
    truth = rng.integers(0, 6, 150)
    noisy = [np.where(rng.random(150) < 0.3, rng.integers(0, 6, 150), truth) for _ in range(2)]
    old, new = (
        Assignment(labels, rng.random(150) < 0.1, np.ones(150))
        for labels in (old_ids[noisy[0] % n_old], noisy[1] % n_new)
    )
    inside = ~old.is_noise & ~new.is_noise
    raw = np.zeros((n_new, n_old), dtype=int)
    enough = raw.copy()
    for i, j in itertools.product(range(n_new), range(n_old)):
        a, b = new.labels[inside] == i, old.labels[inside] == old_ids[j]
        raw[i, j] = (a & b).sum()
        enough[i, j] = raw[i, j] if raw[i, j] >= max(0.2 * min(a.sum(), b.sum()), 1) else 0

    mapping, lineage = match_clusters(old, new, old_ids.tolist(), 20, range(int(n_new)))

    assert sum(lineage.kept.values()) == best_total(enough)
    assert sorted(mapping) == list(range(n_new))
    assert len(set(mapping.values())) == n_new
    assert set(mapping.values()) == set(lineage.kept) | set(lineage.born)
    assert lineage.born == tuple(range(20, lineage.next_id))
    assert set(lineage.kept) | set(lineage.retired) == set(old_ids.tolist())
    assert not set(lineage.kept) & set(lineage.retired)
    for number, cluster in mapping.items():
        if cluster in lineage.kept:
            column = old_ids.tolist().index(cluster)
            assert lineage.kept[cluster] == raw[number, column] == enough[number, column]


def test_a_lineage_is_json_with_plain_numbers():
    _, lineage = match_clusters(
        assignment([7] * 6 + [1] * 6), assignment([0] * 6 + [NOISE] * 6), [1, 7], 8, [0, 3]
    )
    assert json.loads(json.dumps(lineage.to_dict())) == {
        "kept": {"7": 6},
        "born": [8],
        "retired": [1],
        "next_id": 9,
    }


# The made-up hospital, clustered twice


PARAMS = PipelineConfig(hdbscan_params={"min_cluster_size": 40, "min_samples": 5})


def clustered(X: np.ndarray) -> FittedSegmentation:
    found = fit_density(X, PARAMS.hdbscan_params, PARAMS.max_fit_rows, 0)
    return fit_fallback(X, found, PARAMS.knn_params, None, 0)


def generations(
    old_rows: slice, new_rows: slice, **hospital: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Lineage]:
    """True kind, old id and new id of each row of the second window."""
    frame, kind = make_hospital(2400, random_state=5, return_kind=True, **hospital)
    X = frame[list(_VITALS)].to_numpy(float)
    first, second = clustered(X[old_rows]), clustered(X[new_rows])
    n_old, n_new = (found.result.metrics["n_clusters"] for found in (first, second))
    old = first.segmentation.assign(X[new_rows])
    # As HDBSCAN might have numbered them: the other way round.
    new = second.assignment
    new = Assignment(
        np.where(new.labels == NOISE, NOISE, n_new - 1 - new.labels), new.is_noise, new.strength
    )
    mapping, lineage = match_clusters(old, new, range(n_old), n_old, range(n_new))
    ids = np.array([mapping.get(int(label), NOISE) for label in new.labels])
    return kind[new_rows], old.labels, ids, lineage


def id_of_kind(kind: np.ndarray, ids: np.ndarray, number: int) -> int:
    """The id that most patients of a kind have."""
    found, counts = np.unique(ids[kind == number], return_counts=True)
    return int(found[counts.argmax()])


@pytest.mark.parametrize("drift", [0.0, 1.5])
def test_on_a_window_that_overlaps_by_80_percent_95_percent_of_the_rows_keep_their_id(
    drift: float,
):
    _, before, after, lineage = generations(slice(0, 2000), slice(400, 2400), drift=drift)
    assert (before == after).mean() >= 0.95
    assert sorted(lineage.kept) == [0, 1, 2, 3, 4]
    assert (lineage.born, lineage.retired, lineage.next_id) == ((), (), 5)


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_with_one_segment_born_and_one_dying_every_surviving_segment_keeps_its_id(drift: float):
    kind, before, after, lineage = generations(
        slice(0, 1200), slice(1000, 2400), born=0.5, dying=0.4, drift=drift
    )
    survivors, born = (0, 1, 2, 3), 5
    assert [id_of_kind(kind, after, number) for number in survivors] == [
        id_of_kind(kind, before, number) for number in survivors
    ]
    assert sorted(lineage.kept) == sorted(id_of_kind(kind, before, n) for n in survivors)
    assert lineage.born == (5,)
    assert id_of_kind(kind, after, born) == 5
    assert len(lineage.retired) == 1
    assert lineage.next_id == 6
