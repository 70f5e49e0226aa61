"""The compiled segments and votes against scikit-learn's trees and hdbscan, bit for bit."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cloudpickle
import hdbscan
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clustering.oracle import approximate_predict, fit, knows_its_own_clusters
from tsclust_model._kernels import rows as kernels
from tsclust_model.clustering.engine import Scaler, Segmentation
from tsclust_model.clustering.fallback import KNNFallback
from tsclust_model.clustering.hdbscan_tree import DensityTree
from tsclust_model.errors import DataValidationError
from tsclust_model.results import NOISE, Assignment

DISTANCE = {"n_neighbors": 5, "weights": "distance"}
UNIFORM = {"n_neighbors": 5, "weights": "uniform"}
KINDS = [*["blobs", "duplicates", "places"] * 2, *["grid"] * 3, "line", "sphere", "identical"]


def unscaled(n_features: int) -> Scaler:
    """A scaler that leaves every bit as it is."""
    return Scaler(np.zeros(n_features), np.zeros(n_features), np.ones(n_features))


def segmentation_of(
    clusterer: hdbscan.HDBSCAN, knn_params: Mapping[str, Any], max_reference_rows: int | None = None
) -> Segmentation:
    """As `fit_fallback` builds it, without scaling."""
    density, kept = DensityTree.from_hdbscan(clusterer), np.arange(len(clusterer.labels_))
    if max_reference_rows is not None:
        density, kept = density.sample(max_reference_rows, 0)
    labels = clusterer.labels_[kept].astype(np.int64)
    return Segmentation.build(unscaled(density.points.shape[1]), density, labels, knn_params)


def by_libraries(segmentation: Segmentation, X: np.ndarray) -> Assignment:
    """The oracle: scikit-learn's trees, numpy and KNeighborsClassifier, nothing compiled here."""
    density = replace(segmentation.density)  # without what the other has built
    labels, strength = np.full(len(X), NOISE), np.zeros(len(X))
    if len(density.label) > 1 and len(X):
        labels, strength = density._by_query(X)
    is_noise = labels == NOISE
    if segmentation.fallback is not None and is_noise.any():
        known = KNNFallback(**segmentation.fallback.settings)
        known.remember(segmentation.fallback.points_, segmentation.fallback.labels_)
        labels = labels.copy()
        labels[is_noise] = known.vote(X[is_noise])
    return Assignment(labels, is_noise, strength)


def assert_same(found: Assignment, expected: Assignment) -> None:
    np.testing.assert_array_equal(found.is_noise, expected.is_noise)
    np.testing.assert_array_equal(found.strength, expected.strength)
    np.testing.assert_array_equal(found.labels, expected.labels)


def assert_exact(segmentation: Segmentation, X: np.ndarray) -> Assignment:
    with np.errstate(over="ignore"):
        expected = by_libraries(segmentation, X)
    found = segmentation.assign(X)
    assert_same(found, expected)
    assert (found.labels.dtype, found.is_noise.dtype, found.strength.dtype) == (
        np.int64,
        np.bool_,
        np.float64,
    )
    return found


def made_up(
    points: Any,
    labels: Any,
    *,
    core: Any = 1e-9,
    min_samples: int = 1,
    knn_params: Mapping[str, Any] = DISTANCE,
) -> Segmentation:
    """One condensed tree by hand: node 1 + i is cluster i, born and at its densest at 1.

    Every point leaves its cluster at once at density 1, noise leaves the root at 0.01; so a row
    whose mutual reachability is beyond 1 is noise, and its cluster is that of the point it follows.
    """
    points, labels = np.array(points, dtype=np.float64), np.array(labels, dtype=np.int64)
    n_clusters = int(labels.max()) + 1
    density = DensityTree(
        points=points,
        core_distances=np.broadcast_to(np.float64(core), len(points)).copy(),
        point_cluster=labels + 1,
        point_lambda=np.where(labels == NOISE, 0.01, 1.0),
        parent=np.zeros(n_clusters + 1, dtype=np.int64),
        birth=np.array([-np.inf] + [1.0] * n_clusters),
        label=np.arange(-1, n_clusters),
        max_lambda=np.array([0.0] + [1.0] * n_clusters),
        min_samples=min_samples,
    )
    return Segmentation.build(unscaled(points.shape[1]), density, labels, knn_params)


def undecided(segmentation: Segmentation, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows the kernel leaves to the libraries: their segments, their votes."""
    out = (
        np.empty(len(X), dtype=np.int64),
        np.empty(len(X)),
        np.empty(len(X), dtype=np.int64),
        np.empty(len(X), dtype=np.int8),
    )
    voting = segmentation._voting
    kernels.assign(X, np.arange(len(X)), *segmentation.density._compiled, voting, out)
    return out[3] == kernels.UNDECIDED_SEGMENT, out[3] == kernels.UNDECIDED_VOTE


# --- random models -----------------------------------------------------------------------------


def _rows(rng: np.random.Generator, kind: str, n: int, n_features: int) -> np.ndarray:
    places = rng.integers(0, 7, (int(rng.integers(2, 7)), n_features)).astype(np.float64)
    if kind == "identical":
        return np.repeat(places[:1], n, axis=0)
    if kind == "line":
        steps = np.round(rng.normal(0, 3, n) + 10 * rng.integers(0, 3, n), int(rng.integers(0, 4)))
        return steps[:, None] * rng.integers(-2, 3, n_features)
    if kind == "places":
        return places[rng.integers(0, len(places), n)]
    X = places[rng.integers(0, len(places), n)] + rng.normal(
        0, rng.uniform(0.05, 1), (n, n_features)
    )
    if kind == "grid":
        return np.round(X, int(rng.integers(0, 2)))
    if kind == "duplicates":
        X = X[rng.integers(0, max(1, n // 6), n)]
    if kind == "sphere":  # many points at nearly one distance from the middle
        X = rng.normal(0, 1, (n, n_features))
        X = np.round(X / np.linalg.norm(X, axis=1, keepdims=True) * rng.integers(1, 3, (n, 1)), 2)
    return X


def _new_rows(rng: np.random.Generator, X: np.ndarray) -> np.ndarray:
    """Fitted rows, the middles of two, reflections, a last bit beside them, and rows far away."""
    a, b, c = (X[rng.integers(0, len(X), 8)] for _ in range(3))
    middles = a / 2 + b / 2
    spread = np.ptp(X, axis=0) + 1e-300
    around = X.min(axis=0) + spread * rng.uniform(-0.3, 1.3, (8, X.shape[1]))
    unit = np.abs(X).max() / 7 or 1.0
    return np.concatenate(
        [
            a,
            middles,
            a + b - c,
            np.where(middles == 0, 0, np.nextafter(middles, np.inf)),
            around,
            np.round(around / unit) * unit,
            np.mean(X, axis=0, keepdims=True),
            X[:1] + 30 * spread,
        ]
    )


@st.composite
def models(draw: st.DrawFn) -> tuple[hdbscan.HDBSCAN, Segmentation, np.ndarray, bool]:
    """A clusterer, a segmentation, rows to assign, and whether hdbscan itself can tell them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_features = draw(st.sampled_from([1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 8, 9, 12]))
    params: dict[str, Any] = {
        "min_cluster_size": draw(st.integers(2, 8) | st.integers(2, 15)),
        "min_samples": draw(st.integers(1, 5) | st.none() | st.integers(1, 12)),
        "cluster_selection_method": draw(st.sampled_from(["eom", "leaf"])),
        "cluster_selection_epsilon": draw(st.sampled_from([0.0, 0.0, 0.1, 1.0])),
        "max_cluster_size": draw(st.sampled_from([0, 0, 0, 30])),
        "alpha": draw(st.sampled_from([1.0, 1.0, 0.7])),
        "metric": draw(
            st.sampled_from(
                ["euclidean"] * 9 + ["l2", "minkowski", "manhattan", "chebyshev", "canberra"]
            )
        ),
        "algorithm": draw(
            st.sampled_from(["best", "best", "generic", "prims_kdtree", "prims_balltree"])
        ),
    }
    if params["metric"] == "minkowski":
        params["p"] = draw(st.sampled_from([1, 2, 3]))
    if params["metric"] == "canberra" and params["algorithm"] == "prims_kdtree":
        params["algorithm"] = "best"
    least = max(
        2 * (params["min_samples"] or params["min_cluster_size"]), params["min_cluster_size"]
    )
    n = least + draw(st.sampled_from([0, 0, 1, 5, 20, 50, 50, 100, 100, 150, 250]))
    kind = draw(st.sampled_from(KINDS))
    X = _rows(rng, kind, n, n_features)
    scale = draw(st.sampled_from([1.0] * 5 + [1e-3, 1e-150, 1e-158, 1e-161, 1e150]))
    if params.get("p") == 3:  # hdbscan itself is lost where a cube overflows
        scale = 1.0
    X = X * scale + draw(st.sampled_from([0.0, 0.0, 0.1])) * scale
    rows = _new_rows(rng, X)
    if draw(st.booleans()):
        rows = np.concatenate([rows, np.full((1, n_features), 1e300), -rows[:1] - 1e154])
    clusterer = fit(X, **params)
    knn_params: dict[str, Any] = {
        "n_neighbors": draw(st.integers(1, 20) | st.just(130)),
        "weights": draw(st.sampled_from(["uniform", "distance"])),
        "algorithm": draw(st.sampled_from(["auto", "auto", "kd_tree", "ball_tree"])),
        "metric": draw(st.sampled_from(["euclidean"] * 4 + ["l2", "minkowski", "manhattan"])),
    }
    limit = draw(st.none() | st.none() | st.integers(10, max(10, n)))
    segmentation = segmentation_of(clusterer, knn_params, limit)
    if draw(st.integers(0, 9)) == 0:
        density = replace(segmentation.density, tree_class="ball_tree")
        return clusterer, replace(segmentation, density=density), rows, False
    if draw(st.integers(0, 3)) == 0 and segmentation.fallback is not None:
        names = rng.permutation(500)[: clusterer.labels_.max() + 1]
        ids = dict(enumerate(names.tolist()))
        return clusterer, segmentation.renumbered(ids), rows, False
    own = segmentation.density.points.shape[0] == n and knows_its_own_clusters(clusterer)
    return clusterer, segmentation, rows, own


# More classes than half the rows: scikit-learn wonders, of a sample of few rows.
@pytest.mark.filterwarnings("ignore:The number of unique classes is greater:UserWarning")
@given(models())
def test_every_segmentation_assigns_as_the_libraries_do(model):
    clusterer, segmentation, rows, own = model
    found = assert_exact(segmentation, rows)
    if own:
        with np.errstate(over="ignore"):
            labels, strength = approximate_predict(clusterer, rows)
        np.testing.assert_array_equal(found.is_noise, labels == NOISE)
        np.testing.assert_array_equal(found.labels[labels != NOISE], labels[labels != NOISE])
        np.testing.assert_array_equal(found.strength, strength)


# --- ties ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("min_samples", [1, 2, 3])
def test_a_row_as_far_from_two_clusters_goes_where_the_tree_says(min_samples, flip):
    steps = np.repeat(np.arange(1.0, 5.0), 3) / 8
    X = np.concatenate([-steps, steps])[:, None] * np.ones(2)
    labels = np.repeat([0, 1], len(steps))
    if flip:
        X, labels = X[::-1], labels[::-1]
    segmentation = made_up(X, labels, min_samples=min_samples)
    row = np.zeros((1, 2))
    assert undecided(segmentation, row)[0].all()
    assert_exact(segmentation, np.concatenate([row, X, row + 1e-17, row - 1e-17]))


@pytest.mark.parametrize("core", [1e-9, 0.5])
@pytest.mark.parametrize("n_other", [1, 6])
def test_equal_distances_beyond_the_first_neighbours_count_when_they_are_all_there_is(
    core, n_other
):
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 4
    X = np.concatenate([np.repeat(corners, 5, axis=0), np.full((n_other, 3), 0.3)])
    labels = np.concatenate([np.repeat(np.arange(8) % 2, 5), np.full(n_other, 1)])
    for min_samples in (1, 2, 4, 5, 6, 20):
        segmentation = made_up(X, labels, core=core, min_samples=min_samples)
        assert_exact(segmentation, np.concatenate([np.zeros((1, 3)), X, X / 2, X * 3]))


@pytest.mark.parametrize("min_samples", [1, 3, 5, 12])
@pytest.mark.parametrize("copies", [2, 11, 25, 60])
def test_more_copies_of_a_place_than_neighbours(copies, min_samples):
    """Copies are in different clusters too: the same place may have left the tree twice."""
    rng = np.random.default_rng(copies)
    places = np.repeat(rng.integers(0, 4, (6, 2)), copies, axis=0).astype(float)
    labels = rng.integers(-1, 3, len(places))
    labels[:3] = [0, 1, 2]
    if len(places) < 2 * min_samples:
        places, labels = np.repeat(places, 3, axis=0), np.repeat(labels, 3)
    core = np.where(rng.random(len(places)) < 0.5, 1e-9, rng.uniform(0, 3, len(places)))
    rows = np.concatenate([places, places + 0.5, rng.integers(-2, 8, (40, 2)) * 0.5])
    for knn_params in (DISTANCE, UNIFORM, UNIFORM | {"n_neighbors": 20}):
        assert_exact(
            made_up(places, labels, core=core, min_samples=min_samples, knn_params=knn_params), rows
        )


def test_fitted_copies_are_their_own_clusters():
    rng = np.random.default_rng(5)
    X = np.repeat(rng.integers(0, 9, (8, 3)), 30, axis=0).astype(float)
    clusterer = fit(X, min_cluster_size=10, min_samples=4)
    segmentation = segmentation_of(clusterer, DISTANCE)
    found = assert_exact(segmentation, np.concatenate([X, X + 0.5, X + np.array([0.5, 0, 0])]))
    np.testing.assert_array_equal(found.labels[: len(X)], clusterer.labels_)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("n_neighbors", [1, 2, 3, 4, 5])
def test_voters_equally_far_at_the_last_place(n_neighbors, weights):
    """Four voters at distance 5 of two clusters, and two nearer ones."""
    X = [[5, 0], [-5, 0], [0, 5], [0, -5], [3, 4], [3, 0], [-3, 0], [90, 90], [-90, 90], [3, -4]]
    labels = [0, 1, 1, 0, 1, 0, 1, 0, 1, 1]
    for order in (slice(None), slice(None, None, -1)):
        segmentation = made_up(
            np.array(X)[order],
            np.array(labels)[order],
            min_samples=2,
            knn_params={"n_neighbors": n_neighbors, "weights": weights},
        )
        found = assert_exact(segmentation, np.array([[0.0, 0.0], [0.0, 1e-16], [0.0, 1.0]]))
        assert found.is_noise.all()


def test_equally_far_voters_of_one_cluster_need_no_library():
    ring = np.array([[3, 4], [4, 3], [-3, 4], [5, 0], [0, 5], [-5, 0], [0, -5], [4, -3]], float)
    segmentation = made_up(ring, np.zeros(8), min_samples=2, knn_params=UNIFORM)
    row = np.zeros((1, 2))
    assert not undecided(segmentation, row)[1].any()
    assert assert_exact(segmentation, row).labels.tolist() == [0]


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("n_voters", [1, 2, 4, 5, 6])
def test_fewer_voters_than_neighbours_all_vote(n_voters, weights):
    rng = np.random.default_rng(n_voters)
    X = rng.normal(0, 5, (40, 2))
    labels = np.full(40, NOISE)
    labels[:n_voters] = np.arange(n_voters) % 2
    for n_neighbors in (n_voters, n_voters + 1, 5, 30, 500):
        segmentation = made_up(
            X,
            labels,
            min_samples=3,
            knn_params={"n_neighbors": n_neighbors, "weights": weights},
        )
        assert_exact(segmentation, np.concatenate([X, rng.normal(0, 9, (50, 2))]))


@pytest.mark.parametrize("n_neighbors", [2, 4, 8, 16, 100, 128, 130])
def test_an_even_vote_goes_to_the_lower_label(n_neighbors):
    X = np.arange(1.0, n_neighbors + 1)[:, None] * 1.01 + 5
    labels = np.arange(n_neighbors) % 2
    rows = np.array([[0.0], [n_neighbors * 1.01 + 12]])
    for ids, lower in (({0: 0, 1: 1}, 0), ({0: 41, 1: 7}, 7), ({0: 7, 1: 41}, 7)):
        segmentation = made_up(
            X, labels, knn_params={"n_neighbors": n_neighbors, "weights": "uniform"}
        ).renumbered(ids)
        assert (undecided(segmentation, rows)[1] == 0).all()
        assert assert_exact(segmentation, rows).labels.tolist() == [lower, lower]


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 15, 16, 17, 31, 64, 65, 100, 127, 128, 129])
def test_votes_are_summed_in_the_order_of_numpy(k):
    """Three clusters whose votes differ in their last bits alone."""
    rng = np.random.default_rng(k)
    same_winner = True
    for _ in range(40):
        n_clusters = 3 if k > 2 else 1
        labels = rng.permutation(np.arange(k) % n_clusters)
        size = np.bincount(labels, minlength=n_clusters)
        # Coarse reciprocals: each cluster's exact sum is all but the same.
        weights = rng.uniform(0.1, 0.4, k)
        for cluster in range(n_clusters):
            inside = labels == cluster
            weights[inside] += (0.25 * k / n_clusters - weights[inside].sum()) / size[cluster]
        if (weights < 0.01).any():
            continue
        X = np.append(1 / weights, [1e5, 2e5])[:, None]
        segmentation = made_up(
            X,
            np.append(labels, [0, 0]),
            knn_params={"n_neighbors": k, "weights": "distance"},
        )
        rows = np.concatenate([np.zeros((1, 1)), rng.normal(0, 1e-16, (10, 1))])
        found = assert_exact(segmentation, rows)
        assert found.is_noise.all()
        in_order = np.sort(1 / X[:k, 0])[::-1]
        ordered_labels = labels[np.argsort(X[:k, 0])]
        naive = [
            np.cumsum(in_order[ordered_labels == cluster])[-1] for cluster in range(n_clusters)
        ]
        same_winner &= int(np.argmax(naive)) == found.labels[0]
    assert k < 8 or not same_winner, "no vote hung on the order of summation"


@pytest.mark.parametrize("knn_params", [DISTANCE, UNIFORM], ids=["distance", "uniform"])
def test_labels_that_have_other_names(knn_params):
    rng = np.random.default_rng(3)
    X = np.round(np.concatenate([rng.normal(6 * i, 1, (60, 2)) for i in range(3)]), 1)
    clusterer = fit(X, min_cluster_size=10, min_samples=4)
    assert clusterer.labels_.max() >= 1
    rows = np.round(rng.uniform(-5, 18, (400, 2)), 1)
    plain = segmentation_of(clusterer, knn_params)
    before = assert_exact(plain, rows)
    ids = {label: int(name) for label, name in enumerate([41, 7, 90, 3, 12, 55])}
    after = assert_exact(plain.renumbered(ids), rows)
    np.testing.assert_array_equal(after.is_noise, before.is_noise)
    np.testing.assert_array_equal(after.strength, before.strength)
    inside = ~before.is_noise
    names = np.array([ids[label] for label in before.labels[inside].tolist()])
    np.testing.assert_array_equal(after.labels[inside], names)
    assert before.is_noise.any()


# --- batches, threads, files ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd() -> tuple[Segmentation, np.ndarray]:
    """A segmentation with ties and noise, and enough rows for every core."""
    rng = np.random.default_rng(8)
    X = np.round(np.concatenate([rng.normal(5 * i, 1, (250, 3)) for i in range(4)]), 1)
    X = np.concatenate([X, rng.uniform(-5, 20, (100, 3))])
    segmentation = segmentation_of(fit(X, min_cluster_size=20, min_samples=5), DISTANCE)
    rows = np.concatenate([X, np.round(rng.uniform(-6, 21, (4000, 3)), 1)])
    return segmentation, rng.permutation(rows)


def test_many_rows_are_assigned_as_by_the_libraries(crowd):
    segmentation, rows = crowd
    found = assert_exact(segmentation, rows)
    assert 0.1 < found.is_noise.mean() < 0.9
    assert len(set(found.labels)) > 2


@pytest.mark.parametrize("n", [1, 2, 249, 250, 251, 499, 500, 501, 1003])
def test_parts_of_a_batch_are_assigned_as_the_whole(crowd, n):
    segmentation, rows = crowd
    whole = segmentation.assign(rows)
    starts = range(0, len(rows) if n > 1 else 300, n)
    for start in starts:
        part = segmentation.assign(rows[start : start + n])
        at = slice(start, start + n)
        assert_same(part, Assignment(whole.labels[at], whole.is_noise[at], whole.strength[at]))


@pytest.mark.parametrize("n_cores", [1, 2, 7])
def test_cores_change_nothing(crowd, n_cores, monkeypatch):
    segmentation, rows = crowd
    whole = segmentation.assign(rows)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(n_cores)), raising=False)
    assert_same(segmentation.assign(rows), whole)


@pytest.mark.parametrize("kind", ["read-only", "columns first", "slice", "reversed", "float32"])
def test_any_layout_is_read_and_left_untouched(crowd, kind):
    segmentation, rows = crowd
    rows = rows.astype(np.float32).astype(np.float64) if kind == "float32" else rows.copy()
    given_rows: np.ndarray = {
        "read-only": lambda: rows.copy(),
        "columns first": lambda: np.asfortranarray(rows),
        "slice": lambda: np.repeat(np.repeat(rows, 2, axis=1), 2, axis=0)[::2, ::2],
        "reversed": lambda: rows[::-1, ::-1].copy()[::-1, ::-1],
        "float32": lambda: rows.astype(np.float32),
    }[kind]()
    if kind == "read-only":
        given_rows.setflags(write=False)
    before = given_rows.copy()
    expected = segmentation.assign(rows)
    assert_same(segmentation.assign(given_rows), expected)
    labels, strength = segmentation.density.predict(given_rows)
    np.testing.assert_array_equal(labels == NOISE, expected.is_noise)
    np.testing.assert_array_equal(strength, expected.strength)
    np.testing.assert_array_equal(given_rows, before)


def test_an_empty_batch(crowd):
    found = crowd[0].assign(np.empty((0, 3)))
    assert found.labels.shape == found.is_noise.shape == found.strength.shape == (0,)


@pytest.mark.parametrize("first_use", [False, True])
def test_eight_threads_share_a_segmentation(crowd, first_use):
    segmentation, rows = crowd
    expected = segmentation.assign(rows)
    if first_use:  # nothing built yet: they all find it missing
        segmentation = Segmentation.from_arrays(*segmentation.to_arrays())
    parts = [rows[i::16] if i % 2 else rows[i::3] for i in range(16)]
    slices = [slice(i, None, 16 if i % 2 else 3) for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for at, found in zip(slices, pool.map(segmentation.assign, parts), strict=True):
            want = Assignment(expected.labels[at], expected.is_noise[at], expected.strength[at])
            assert_same(found, want)


@pytest.mark.parametrize("library", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_a_used_segmentation_is_pickled(crowd, library):
    segmentation, rows = crowd
    expected = segmentation.assign(rows)
    again = library.loads(library.dumps(segmentation))
    assert_same(again.assign(rows), expected)
    names = {label: label + 5 for label in range(int(expected.labels.max()) + 1)}
    assert_exact(again.renumbered(names), rows)


@pytest.mark.parametrize(
    "knn_params", [DISTANCE, UNIFORM, DISTANCE | {"n_neighbors": 130}], ids=str
)
def test_arrays_of_the_first_format_give_the_same(crowd, knn_params):
    density, labels = crowd[0].density, crowd[0].point_labels
    segmentation, rows = Segmentation.build(crowd[0].scaler, density, labels, knn_params), crowd[1]
    arrays, values = segmentation.to_arrays()
    own = arrays.pop("point_labels")
    arrays["fallback_points"] = density.points[own != NOISE]
    arrays["fallback_labels"] = own[own != NOISE]
    first_format = Segmentation.from_arrays(arrays, values)
    assert first_format.point_labels is None
    assert_same(first_format.assign(rows), segmentation.assign(rows))
    assert_exact(first_format, rows)


def test_a_row_of_another_width_is_refused_and_not_read_beyond_its_end(crowd):
    for wrong in (np.zeros((3, 2)), np.zeros((3, 4))):
        with pytest.raises(DataValidationError, match="and the segments 3 columns"):
            crowd[0].density.predict(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_refused_by_the_tree(crowd, value):
    rows = crowd[1][:600].copy()
    rows[300, 1] = value
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        crowd[0].density.predict(rows)
