from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import hdbscan
import numpy as np
import pandas as pd
import pytest
import sklearn.exceptions
from sklearn.metrics import (
    calinski_harabasz_score,
    davies_bouldin_score,
    silhouette_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tsclust_model.clustering.engine import (
    AdaptiveClusteringEngine,
    FittedSegmentation,
    KNNFallback,
    Scaler,
    Segmentation,
    fit_density,
    fit_fallback,
)
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    ModelTrainingError,
    NotFittedError,
)
from tsclust_model.results import NOISE

HDBSCAN = {"min_cluster_size": 15, "min_samples": 5}
COLUMNS = ["age", "pressure", "saturation"]


@pytest.fixture(scope="module", name="X")
def three_clusters() -> np.ndarray:
    """Three clusters of 120, 80 and 50 rows and 30 rows of noise, in columns of other units."""
    rng = np.random.default_rng(11)
    centers = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 6.0], [0.0, 7.0, -6.0]])
    clusters = centers[np.repeat([0, 1, 2], [120, 80, 50])] + rng.normal(0, 0.6, (250, 3))
    rows = np.concatenate([clusters, rng.uniform(-9, 9, (30, 3))])[rng.permutation(280)]
    return rows * [1.0, 1000.0, 0.01] + [50.0, 0.0, -3.0]


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    rng = np.random.default_rng(12)
    return rng.uniform(-9, 9, (200, 3)) * [1.0, 1000.0, 0.01] + [50.0, 0.0, -3.0]


@pytest.fixture(scope="module")
def engine(X: np.ndarray) -> AdaptiveClusteringEngine:
    """Fitted; do not change it."""
    fitted = AdaptiveClusteringEngine(HDBSCAN)
    fitted.fit(X)
    return fitted


def fit_segmentation(
    X: np.ndarray, max_fit_rows: int = 10_000, max_reference_rows: int | None = None, seed: int = 0
) -> FittedSegmentation:
    config = PipelineConfig(hdbscan_params=HDBSCAN)
    found = fit_density(X, config.hdbscan_params, max_fit_rows, seed)
    return fit_fallback(X, found, config.knn_params, max_reference_rows, seed)


def assert_same_assignment(first: Any, second: Any) -> None:
    for name in ("labels", "is_noise", "strength"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


# Scaling


def test_scaler_is_scikit_learns_after_medians_for_missing_values(X):
    gaps = X.copy()
    gaps[::7, 1] = np.nan
    filled = np.where(np.isnan(gaps), np.nanmedian(gaps, axis=0), gaps)
    scaler = Scaler.fit(gaps)
    np.testing.assert_array_equal(scaler.fill(gaps), filled)
    np.testing.assert_allclose(
        scaler.transform(gaps), StandardScaler().fit_transform(filled), rtol=1e-12, atol=1e-12
    )


def test_a_column_that_does_not_vary_has_scale_one():
    scaler = Scaler.fit(np.array([[3.0, 1.0], [3.0, 5.0]]))
    assert scaler.scale.tolist() == [1.0, 2.0]
    assert scaler.transform(np.array([[4.0, 5.0]])).tolist() == [[1.0, 1.0]]


# KNNFallback


def mixed_clusters(n: int = 90, n_clusters: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows of clusters that overlap, so that votes are split."""
    rng = np.random.default_rng(21)
    labels = rng.integers(0, n_clusters, n)
    return rng.normal(0, 1, (n, 2)) + labels[:, None], labels


def brute_force_vote(
    points: np.ndarray, labels: np.ndarray, row: np.ndarray, k: int, weights: str
) -> int:
    distances = np.sqrt(((points - row) ** 2).sum(axis=1))
    votes: Counter[int] = Counter()
    for i in np.argsort(distances, kind="stable")[:k]:
        votes[int(labels[i])] += 1 if weights == "uniform" else 1 / distances[i]
    most = max(votes.values())
    return min(label for label, count in votes.items() if count == most)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 4, 5])
def test_votes_are_those_of_a_loop_over_all_rows(weights, k):
    points, labels = mixed_clusters()
    rows = np.random.default_rng(22).uniform(-2, 4, (60, 2))
    expected = [brute_force_vote(points, labels, row, k, weights) for row in rows]
    fallback = KNNFallback(k, weights=weights).fit(points, labels)
    assert fallback.predict(rows).tolist() == expected


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weights": "uniform", "n_neighbors": 7},
        {"algorithm": "ball_tree"},
        {"metric": "manhattan"},
        {"metric": "minkowski", "p": 3},
        {"metric": "canberra"},
    ],
    ids=str,
)
def test_votes_are_scikit_learns(settings):
    points, labels = mixed_clusters()
    rows = np.random.default_rng(23).uniform(-2, 4, (60, 2))
    reference = {"n_neighbors": 5, "weights": "distance"} | settings | {"algorithm": "brute"}
    expected = KNeighborsClassifier(**reference).fit(points, labels).predict(rows)
    np.testing.assert_array_equal(
        KNNFallback(**settings).fit(points, labels).predict(rows), expected
    )


def test_a_tie_goes_to_the_lower_cluster():
    fallback = KNNFallback(2, weights="uniform").fit([[0.0], [2.0]], [8, 3])
    assert fallback.predict([[0.1]]).tolist() == [3]


def test_a_known_row_keeps_its_cluster_whatever_its_neighbours_say():
    fallback = KNNFallback(3).fit([[0.0], [0.1], [0.2]], [0, 1, 1])
    assert fallback.predict([[0.0]]).tolist() == [0]


def test_noise_rows_are_not_among_the_neighbours():
    fallback = KNNFallback(1).fit([[0.0], [1.0], [9.0]], [4, NOISE, 7])
    assert fallback.predict([[1.0], [8.0]]).tolist() == [4, 7]
    assert fallback.points_.tolist() == [[0.0], [9.0]]


def test_fewer_known_rows_than_neighbours_all_vote():
    fallback = KNNFallback(5, weights="uniform").fit([[0.0], [1.0], [9.0]], [4, 7, 7])
    assert fallback.predict([[0.0]]).tolist() == [7]


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 4, 5])
def test_fallback_accuracy_is_that_of_predicting_each_row_from_the_others(weights, k):
    points, labels = mixed_clusters()
    right = 0
    for i in range(len(points)):
        others = KNNFallback(k, weights=weights).fit(np.delete(points, i, 0), np.delete(labels, i))
        right += others.predict(points[[i]])[0] == labels[i]
    metrics = KNNFallback(k, weights=weights).fit(points, labels).get_fallback_metrics()
    assert metrics["accuracy"] == pytest.approx(right / len(points))


def test_duplicates_vote_in_the_accuracy_but_not_for_themselves():
    twice_wrong = KNNFallback(1).fit([[0.0], [0.0], [5.0], [5.0]], [0, 1, 2, 2])
    assert twice_wrong.get_fallback_metrics()["accuracy"] == 0.5
    many = KNNFallback(2).fit(np.zeros((20, 1)), [3] * 20)
    assert many.get_fallback_metrics()["accuracy"] == 1.0


def test_accuracy_is_measured_on_two_thousand_evenly_spaced_rows():
    # Of 3,999 rows these are the even ones: here each is nearest to an odd row, and so are those.
    positions = np.add.outer(np.arange(1000) * 100.0, [-2.0, 0.0, 3.0, 1.0]).ravel()[:3999]
    fallback = KNNFallback(1).fit(positions[:, None], np.arange(3999) % 2)
    assert fallback.get_fallback_metrics()["accuracy"] == 0.0
    fallback.fit(positions[:1999, None], np.arange(1999) % 2)
    assert (
        fallback.get_fallback_metrics()["accuracy"] == 998 / 1999
    )  # one odd row has lost its neighbour


def test_usage_counts_predicted_rows_since_the_last_fit():
    points, labels = mixed_clusters()
    fallback = KNNFallback().fit(points, labels)
    assert fallback.get_fallback_metrics()["usage"] == 0
    fallback.predict(points[:4])
    fallback.predict(points[:3])
    assert fallback.get_fallback_metrics()["usage"] == 7
    assert fallback.fit(points, labels).get_fallback_metrics()["usage"] == 0


@pytest.mark.parametrize("ask", [lambda f: f.predict([[0.0]]), lambda f: f.get_fallback_metrics()])
def test_an_unfitted_fallback_says_so(ask):
    with pytest.raises(NotFittedError, match="KNNFallback is not fitted; call fit first"):
        ask(KNNFallback())


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([[0.0], [1.0]], [NOISE, NOISE], "every row is noise"),
        ([[0.0], [1.0]], [0], "1 labels for 2 rows"),
        ([[0.0], [np.nan]], [0, 1], "missing or infinite values in: column 0"),
    ],
)
def test_the_fallback_refuses_rows_it_cannot_know(rows, labels, message):
    with pytest.raises(DataValidationError, match=message):
        KNNFallback().fit(np.array(rows), labels)


def test_the_fallback_refuses_a_row_of_other_width():
    fallback = KNNFallback().fit(np.zeros((3, 2)), [0, 0, 0])
    with pytest.raises(DataValidationError, match=r"the batch has 3 features, .* fitted with 2"):
        fallback.predict(np.zeros((1, 3)))


def test_a_fallback_metric_without_a_tree_is_refused_by_name():
    with pytest.raises(ModelTrainingError, match=r"'cosine' has no search tree; use one of .*man"):
        KNNFallback(metric="cosine").fit(np.eye(6), [0] * 6)


@pytest.mark.parametrize(
    "settings", [{"metric": "mahalanobis"}, {"metric": "minkowski", "p": 0.5}], ids=str
)
def test_a_fallback_metric_that_lacks_something_is_refused_in_our_words(settings):
    with pytest.raises((ModelTrainingError, ConfigurationError), match="metric"):
        AdaptiveClusteringEngine(HDBSCAN, settings).fit(
            np.random.default_rng(0).normal(size=(60, 2))
        )


# The fit


def test_the_engine_finds_what_hdbscan_finds_on_standardised_rows(X, engine):
    params = PipelineConfig(hdbscan_params=HDBSCAN).hdbscan_params
    expected = hdbscan.HDBSCAN(**params).fit(StandardScaler().fit_transform(X))
    np.testing.assert_array_equal(engine.result_.labels, expected.labels_)
    assert engine.result_.metrics["n_clusters"] == 3


def test_noise_ratio_counts_rows_before_the_fallback(X, engine):
    noise = int((engine.result_.labels == NOISE).sum())
    assert noise > 0
    assert engine.result_.noise_ratio == noise / len(X)
    assignment = engine.assign(X)
    assert (assignment.labels != NOISE).all()
    assert assignment.noise_ratio == noise / len(X)


def test_centers_are_means_of_clusters_in_the_units_of_the_input(X, engine):
    result = engine.result_
    expected = [X[result.labels == cluster].mean(axis=0) for cluster in range(3)]
    np.testing.assert_array_equal(result.cluster_centers, expected)


def test_clustering_metrics_are_scikit_learns_on_standardised_rows_without_noise(X, engine):
    labels = engine.result_.labels
    inside = labels != NOISE
    scaled = engine.segmentation_.scaler.transform(X)[inside]
    assert engine.get_clustering_metrics() == {
        "n_clusters": 3,
        "n_noise_points": int((~inside).sum()),
        "noise_ratio": engine.result_.noise_ratio,
        "silhouette_score": pytest.approx(silhouette_score(scaled, labels[inside])),
        "calinski_harabasz_score": pytest.approx(calinski_harabasz_score(scaled, labels[inside])),
        "davies_bouldin_score": pytest.approx(davies_bouldin_score(scaled, labels[inside])),
    }


def test_the_same_rows_and_seed_give_the_same_segmentation(X):
    first, second = (fit_segmentation(X, 150, 60).segmentation.to_arrays() for _ in range(2))
    assert first[1] == second[1]
    for name, values in first[0].items():
        np.testing.assert_array_equal(values, second[0][name])


@pytest.mark.parametrize("kind", ["writable", "read-only", "float32", "list", "frame"])
def test_any_kind_of_matrix_is_fitted_and_left_untouched(X, kind):
    rows = np.round(X, 1)
    given: Any = {
        "writable": rows.copy(),
        "read-only": pd.DataFrame(rows).to_numpy(),
        "float32": rows.astype(np.float32),
        "list": rows.tolist(),
        "frame": pd.DataFrame(rows, columns=COLUMNS),
    }[kind]
    if kind == "read-only":
        given.flags.writeable = False
    engine = AdaptiveClusteringEngine(HDBSCAN)
    labels = engine.fit(given).labels
    engine.predict(given)
    np.testing.assert_array_equal(np.asarray(given), rows.astype(np.asarray(given).dtype))
    np.testing.assert_array_equal(labels, AdaptiveClusteringEngine(HDBSCAN).fit(rows).labels)


def test_the_callers_parameters_are_left_untouched(X):
    params, knn = {"min_cluster_size": 20}, {"n_neighbors": 3}
    engine = AdaptiveClusteringEngine(params, knn)
    engine.fit(X)
    assert (params, knn) == ({"min_cluster_size": 20}, {"n_neighbors": 3})
    assert engine.segmentation_.density.min_samples == 3  # the default of PipelineConfig
    assert engine.segmentation_.fallback.n_neighbors == 3


def test_a_second_fit_forgets_the_first(X, engine, batch):
    other = AdaptiveClusteringEngine(HDBSCAN)
    rng = np.random.default_rng(3)
    first = np.concatenate([rng.normal(0, 1, (40, 2)), rng.normal(9, 1, (40, 2))])
    other.fit(pd.DataFrame(first, columns=["a", "b"]))
    other.update_fallback_model(first[:10], [7] * 10)
    result = other.fit(X)
    np.testing.assert_array_equal(result.labels, engine.result_.labels)
    assert_same_assignment(other.assign(batch), engine.assign(batch))
    assert other.get_clustering_metrics() == engine.get_clustering_metrics()


@pytest.mark.parametrize(
    "ask",
    [
        lambda engine, X: engine.predict(X),
        lambda engine, X: engine.assign(X),
        lambda engine, X: engine.get_clustering_metrics(),
        lambda engine, X: engine.update_fallback_model(X, [0] * len(X)),
    ],
    ids=["predict", "assign", "get_clustering_metrics", "update_fallback_model"],
)
def test_an_unfitted_engine_says_so(ask, X):
    with pytest.raises(NotFittedError, match="is not fitted; call fit first") as caught:
        ask(AdaptiveClusteringEngine(), X)
    assert isinstance(caught.value, sklearn.exceptions.NotFittedError)


def test_a_sample_is_clustered_and_the_rest_is_assigned(X):
    params = PipelineConfig(hdbscan_params=HDBSCAN).hdbscan_params
    found = fit_density(X, params, 200, 5)
    assert len(set(found.rows)) == len(found.density.points) == 200
    scaled = StandardScaler().fit_transform(X)  # all rows set the scale
    sample = hdbscan.HDBSCAN(**params).fit(scaled[found.rows])
    np.testing.assert_array_equal(found.labels[found.rows], sample.labels_)
    np.testing.assert_array_equal(found.strength[found.rows], sample.probabilities_)
    rest = np.setdiff1d(np.arange(280), found.rows)
    labels, strength = hdbscan.approximate_predict(sample, scaled[rest])
    np.testing.assert_array_equal(found.labels[rest], labels)
    np.testing.assert_array_equal(found.strength[rest], strength)
    assert (fit_density(X, params, 200, 6).rows != found.rows).any()


def test_a_sampled_fit_reports_every_row(X, engine):
    result = AdaptiveClusteringEngine(HDBSCAN, max_fit_rows=220).fit(X)
    assert result.labels.shape == (280,)
    assert result.noise_ratio == (result.labels == NOISE).mean()
    assert (result.labels == NOISE).sum() == pytest.approx(
        (engine.result_.labels == NOISE).sum(), abs=8
    )


@pytest.mark.parametrize("n_rows", [10, 100, 279])
def test_max_reference_rows_is_the_number_of_rows_the_model_keeps(X, n_rows):
    engine = AdaptiveClusteringEngine(HDBSCAN, max_reference_rows=n_rows)
    engine.fit(X)
    arrays, _ = engine.segmentation_.to_arrays()
    assert len(arrays["density_points"]) == n_rows
    assert len(arrays["point_labels"]) == n_rows  # the fallback knows no other rows
    # Nothing else in the model is as long as the table.
    assert all(len(values) <= n_rows for values in arrays.values())


def test_kept_rows_of_a_sample_keep_their_labels(X):
    fitted = fit_segmentation(X, max_fit_rows=200, max_reference_rows=80)
    scaled = fitted.segmentation.scaler.transform(X)
    labels = {row.tobytes(): label for row, label in zip(scaled, fitted.result.labels, strict=True)}
    fallback = fitted.segmentation.fallback
    assert fallback.labels_.tolist() == [labels[row.tobytes()] for row in fallback.points_]
    assert set(fallback.labels_) == {0, 1, 2}


def test_fewer_reference_rows_change_few_segments_and_no_fitted_label(X, engine, batch):
    reduced = AdaptiveClusteringEngine(HDBSCAN, max_reference_rows=100)
    result = reduced.fit(X)
    np.testing.assert_array_equal(result.labels, engine.result_.labels)
    assert (reduced.predict(X) == engine.predict(X)).mean() > 0.97
    assert (reduced.predict(batch) == engine.predict(batch)).mean() > 0.9


# Clusterings that serve little


def test_without_clusters_the_engine_warns_and_says_none(X):
    engine = AdaptiveClusteringEngine({"min_cluster_size": 140})
    with pytest.warns(UserWarning, match="no cluster was found: all 280 rows are noise"):
        result = engine.fit(X)
    assert result.labels.tolist() == [NOISE] * 280
    assert (result.noise_ratio, result.cluster_centers.shape) == (1.0, (0, 3))
    assert result.metrics["silhouette_score"] is None
    assignment = engine.assign(X[:4])
    assert assignment.labels.tolist() == [NOISE] * 4
    assert assignment.source.tolist() == ["none"] * 4
    assert assignment.strength.tolist() == [0.0] * 4
    assert assignment.noise_ratio == 1.0


def test_one_cluster_warns_and_takes_every_row():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (90, 2)), rng.normal(40, 1, (30, 2))])
    engine = AdaptiveClusteringEngine({"min_cluster_size": 28, "max_cluster_size": 60})
    with pytest.warns(UserWarning, match="one cluster was found"):
        result = engine.fit(X)
    assert (result.metrics["n_clusters"], result.metrics["silhouette_score"]) == (1, None)
    assert engine.predict(X).tolist() == [0] * 120
    assert engine.assign(np.array([[0.0, 0.0], [40.0, 40.0]])).source.tolist() == ["knn", "hdbscan"]


def test_more_than_200_clusters_warn_with_a_size_that_makes_fewer():
    rng = np.random.default_rng(0)
    X = np.repeat(np.arange(210.0), 6)[:, None] * 10 + rng.normal(0, 0.1, (1260, 1))
    with pytest.warns(
        UserWarning, match=r"210 clusters were found .*min_cluster_size=7 "
    ) as caught:
        AdaptiveClusteringEngine({"min_cluster_size": 5}).fit(X)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = AdaptiveClusteringEngine({"min_cluster_size": 7}).fit(X)
    assert result.metrics["n_clusters"] <= 200


def test_a_good_clustering_gives_no_warning(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AdaptiveClusteringEngine(HDBSCAN).fit(X)


@pytest.mark.parametrize(
    ("params", "n_rows", "message"),
    [
        ({"min_cluster_size": 20}, 19, "19 rows are fewer than min_cluster_size=20; give more"),
        ({"min_samples": 8}, 15, "15 rows are too few for min_samples=8, which needs 16"),
        ({"min_cluster_size": 8, "min_samples": None}, 15, "too few for min_samples=8"),
    ],
)
def test_too_few_rows_are_refused_with_the_parameter_to_lower(X, params, n_rows, message):
    with pytest.raises(DataValidationError, match=message):
        AdaptiveClusteringEngine(params).fit(X[:n_rows])


def test_a_sample_that_is_too_small_is_blamed_and_not_the_table(X):
    with pytest.raises(DataValidationError, match="max_fit_rows"):
        AdaptiveClusteringEngine({"min_cluster_size": 50}, max_fit_rows=20).fit(X)


def test_a_metric_that_hdbscan_refuses_is_a_training_error(X):
    with pytest.raises(ModelTrainingError, match="hdbscan refused its parameters: Minkowski"):
        AdaptiveClusteringEngine({"metric": "minkowski"}).fit(X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"min_cluster_sise": 5}, "no key 'min_cluster_sise' .did you mean 'min_cluster_size'"),
        ({"allow_single_cluster": True}, "allow_single_cluster is True; it must be false"),
        ({"prediction_data": False}, "prediction_data is False; it must be true"),
        ({"metric": "cosine"}, r"metric is 'cosine'; it must be .* search tree .*: euclidean"),
        ({"metric": "precomputed"}, "metric is 'precomputed'"),
    ],
)
def test_parameters_are_checked_by_the_configuration(X, params, message):
    with pytest.raises(ConfigurationError, match=message):
        AdaptiveClusteringEngine(params).fit(X)


def test_a_persistence_where_there_is_nothing_to_simplify_leaves_no_cluster():
    X = np.random.default_rng(4).normal(size=(40, 2))
    for persistence in (0.0, 0.5):
        engine = AdaptiveClusteringEngine({"cluster_selection_persistence": persistence})
        with pytest.warns(UserWarning, match="no cluster was found"):
            assert set(engine.fit(X).labels) == {NOISE}


# Assignment


def test_a_row_is_from_hdbscan_or_from_its_neighbours(engine, batch):
    assignment = engine.assign(batch)
    density = engine.segmentation_.density
    labels, strength = density.predict(engine.segmentation_.scaler.transform(batch))
    np.testing.assert_array_equal(assignment.is_noise, labels == NOISE)
    np.testing.assert_array_equal(assignment.strength, strength)
    clear = ~assignment.is_noise
    np.testing.assert_array_equal(assignment.labels[clear], labels[clear])
    assert clear.any()
    assert assignment.is_noise.any()
    np.testing.assert_array_equal(assignment.source, np.where(clear, "hdbscan", "knn"))


def test_noise_rows_take_the_vote_of_their_clustered_neighbours(X, engine, batch):
    scaler = StandardScaler().fit(X)
    inside = engine.result_.labels != NOISE
    neighbours = KNeighborsClassifier(5, weights="distance", algorithm="brute")
    neighbours.fit(scaler.transform(X[inside]), engine.result_.labels[inside])
    assignment = engine.assign(batch)
    noise = assignment.is_noise
    np.testing.assert_array_equal(
        assignment.labels[noise], neighbours.predict(scaler.transform(batch[noise]))
    )


@pytest.mark.parametrize("epsilon", [0.0, 1.25])
def test_fitted_rows_that_come_again_are_the_noise_and_the_clusters_they_were(
    hospital_data, epsilon
):
    X = hospital_data.X[:, hospital_data.schema.cluster_columns]
    engine = AdaptiveClusteringEngine(
        {"min_cluster_size": 30, "min_samples": 5, "cluster_selection_epsilon": epsilon}
    )
    result = engine.fit(X)
    assignment = engine.assign(X)
    assert assignment.noise_ratio == pytest.approx(result.noise_ratio, abs=0.02)
    clustered = result.labels != NOISE
    assert (assignment.labels[clustered] == result.labels[clustered]).mean() > 0.98


@pytest.mark.parametrize("chunk", [1, 7])
def test_a_row_is_assigned_alone_as_in_a_batch(engine, batch, chunk):
    whole = engine.assign(batch)
    parts = [engine.assign(batch[i : i + chunk]) for i in range(0, len(batch), chunk)]
    for name in ("labels", "is_noise", "strength", "source"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_columns_of_a_frame_may_come_in_any_order_and_with_others(X, batch):
    engine = AdaptiveClusteringEngine(HDBSCAN)
    engine.fit(pd.DataFrame(X, columns=COLUMNS))
    expected = engine.predict(pd.DataFrame(batch, columns=COLUMNS))
    mixed = pd.DataFrame(batch, columns=COLUMNS).assign(ward="a")[
        ["ward", "saturation", "age", "pressure"]
    ]
    np.testing.assert_array_equal(engine.predict(mixed), expected)
    np.testing.assert_array_equal(engine.predict(batch), expected)


def test_a_frame_whose_columns_are_numbers_is_assigned(X, engine, batch):
    numbered = AdaptiveClusteringEngine(HDBSCAN)
    numbered.fit(pd.DataFrame(X))
    np.testing.assert_array_equal(numbered.predict(pd.DataFrame(batch)), engine.predict(batch))


def test_an_absent_column_is_named(X):
    engine = AdaptiveClusteringEngine(HDBSCAN)
    frame = pd.DataFrame(X, columns=COLUMNS)
    engine.fit(frame)
    with pytest.raises(DataValidationError, match="no column 'pressure'"):
        engine.predict(frame.drop(columns="pressure"))
    with pytest.raises(DataValidationError, match=r"has 2 features, .* with 3: age, pressure, sat"):
        engine.predict(X[:, :2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_engine_refuses_missing_and_infinite_values(X, engine, value):
    broken = X.copy()
    broken[3, 1] = value
    for ask in (engine.predict, AdaptiveClusteringEngine(HDBSCAN).fit):
        with pytest.raises(DataValidationError, match="missing or infinite values in: column 1"):
            ask(broken)


@pytest.mark.parametrize("value", [1e300, -1e300])
def test_the_engine_refuses_values_whose_distances_overflow(X, engine, value):
    broken = X.copy()
    broken[3, 1] = value
    for ask in (engine.predict, AdaptiveClusteringEngine(HDBSCAN).fit):
        with pytest.raises(DataValidationError, match="column 1"):
            ask(broken)


@pytest.mark.parametrize("knn_params", [{}, {"metric": "minkowski", "p": 4}], ids=str)
def test_a_row_far_beyond_all_others_is_noise_and_leaves_them_alone(X, batch, knn_params):
    engine = AdaptiveClusteringEngine(HDBSCAN, knn_params)
    engine.fit(X)
    alone = engine.assign(batch[:5])
    together = engine.assign(np.concatenate([batch[:5], [[1e99, -1e99, 1e99]]]))
    for name in ("labels", "is_noise", "strength"):
        np.testing.assert_array_equal(getattr(together, name)[:5], getattr(alone, name))
    assert together.source[5] == "knn"
    assert together.labels[5] in (0, 1, 2)


def test_a_missing_value_counts_as_the_median_of_the_fitted_rows(X, batch):
    gaps = X.copy()
    gaps[np.arange(0, 280, 9), np.arange(0, 280, 9) % 3] = np.nan
    filled = np.where(np.isnan(gaps), np.nanmedian(gaps, axis=0), gaps)
    fitted = fit_segmentation(gaps)
    np.testing.assert_array_equal(fitted.result.labels, fit_segmentation(filled).result.labels)
    assert np.isfinite(fitted.result.cluster_centers).all()
    missing, median = batch.copy(), batch.copy()
    missing[::2, 1], median[::2, 1] = np.nan, np.nanmedian(gaps[:, 1])
    assert_same_assignment(fitted.segmentation.assign(missing), fitted.segmentation.assign(median))


def test_an_empty_batch_is_assigned(engine):
    assignment = engine.segmentation_.assign(np.empty((0, 3)))
    assert assignment.labels.shape == assignment.strength.shape == (0,)
    assert assignment.source.tolist() == []


# The fallback of a fitted engine


def test_an_updated_fallback_changes_noise_rows_alone(X, batch, engine):
    updated = AdaptiveClusteringEngine(HDBSCAN)
    updated.fit(X)
    updated.update_fallback_model(X[:20], [2] * 10 + [NOISE] * 10)
    before, after = engine.assign(batch), updated.assign(batch)
    np.testing.assert_array_equal(after.is_noise, before.is_noise)
    np.testing.assert_array_equal(after.strength, before.strength)
    noise = before.is_noise
    np.testing.assert_array_equal(after.labels[~noise], before.labels[~noise])
    assert after.labels[noise].tolist() == [2] * noise.sum()
    assert len(updated.segmentation_.fallback.points_) == 10


def test_an_updated_fallback_sees_scaled_rows(X, batch, engine):
    updated = AdaptiveClusteringEngine(HDBSCAN)
    updated.fit(X)
    updated.update_fallback_model(X, engine.result_.labels)
    assert_same_assignment(updated.assign(batch), engine.assign(batch))


def test_a_refused_update_leaves_the_fallback_as_it_was(X, batch, engine):
    updated = AdaptiveClusteringEngine(HDBSCAN)
    updated.fit(X)
    with pytest.raises(DataValidationError, match="every row is noise"):
        updated.update_fallback_model(X[:5], [NOISE] * 5)
    with pytest.raises(DataValidationError, match="4 labels for 5 rows"):
        updated.update_fallback_model(X[:5], [0] * 4)
    assert_same_assignment(updated.assign(batch), engine.assign(batch))


# State


@pytest.mark.parametrize(
    ("hdbscan_params", "knn_params", "max_reference_rows"),
    [
        (HDBSCAN, {}, None),
        (HDBSCAN | {"metric": "canberra"}, {"metric": "minkowski", "p": 3}, 90),
        (HDBSCAN | {"min_samples": None}, {"weights": "uniform", "n_neighbors": 201}, None),
    ],
)
def test_a_segmentation_read_back_assigns_the_same_to_the_last_bit(
    X, batch, hdbscan_params, knn_params, max_reference_rows
):
    engine = AdaptiveClusteringEngine(
        hdbscan_params, knn_params, max_reference_rows=max_reference_rows
    )
    engine.fit(X)
    read_back = Segmentation.from_arrays(*engine.segmentation_.to_arrays())
    assert_same_assignment(read_back.assign(batch), engine.assign(batch))


def test_a_segmentation_without_clusters_is_read_back(X, batch):
    engine = AdaptiveClusteringEngine({"min_cluster_size": 140})
    with pytest.warns(UserWarning, match="no cluster was found"):
        engine.fit(X)
    read_back = Segmentation.from_arrays(*engine.segmentation_.to_arrays())
    assert read_back.assign(batch).source.tolist() == ["none"] * 200
