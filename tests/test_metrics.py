from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tsclust_model.errors import DataValidationError
from tsclust_model.metrics import (
    _SILHOUETTE_SAMPLE,
    METRICS,
    SILHOUETTE_ROWS,
    calculate_classification_metrics,
    calculate_clustering_metrics,
    calculate_model_metrics,
    silhouette_rows,
)

SCORES = ("silhouette_score", "calinski_harabasz_score", "davies_bouldin_score")


def blobs(n_rows: int = 30, n_clusters: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n_rows) % n_clusters
    return rng.normal(size=(n_rows, 2)) + 3 * labels[:, None], labels


def silhouette(X: np.ndarray, labels: np.ndarray) -> float:
    """Rousseeuw's definition, a row at a time."""
    scores = []
    for i in range(len(X)):
        distance = {
            c: [math.dist(X[i], X[j]) for j in range(len(X)) if labels[j] == c and j != i]
            for c in set(labels.tolist())
        }
        own = distance.pop(int(labels[i]))
        if not own:
            scores.append(0.0)
            continue
        a, b = np.mean(own), min(np.mean(others) for others in distance.values())
        scores.append((b - a) / max(a, b))
    return float(np.mean(scores))


def calinski_harabasz(X: np.ndarray, labels: np.ndarray) -> float:
    clusters = set(labels.tolist())
    between = within = 0.0
    for c in clusters:
        own = X[labels == c]
        between += len(own) * math.dist(own.mean(axis=0), X.mean(axis=0)) ** 2
        within += sum(math.dist(row, own.mean(axis=0)) ** 2 for row in own)
    return (between / (len(clusters) - 1)) / (within / (len(X) - len(clusters)))


def davies_bouldin(X: np.ndarray, labels: np.ndarray) -> float:
    centers = {c: X[labels == c].mean(axis=0) for c in set(labels.tolist())}
    spread = {
        c: np.mean([math.dist(row, center) for row in X[labels == c]])
        for c, center in centers.items()
    }
    worst = [
        max((spread[a] + spread[b]) / math.dist(centers[a], centers[b]) for b in centers if b != a)
        for a in centers
    ]
    return float(np.mean(worst))


@pytest.mark.parametrize("n_clusters", [2, 3, 5])
def test_the_scores_are_those_of_their_definitions(n_clusters: int):
    X, labels = blobs(n_clusters=n_clusters)
    metrics = calculate_clustering_metrics(X, labels)
    assert metrics["silhouette_score"] == pytest.approx(silhouette(X, labels))
    assert metrics["calinski_harabasz_score"] == pytest.approx(calinski_harabasz(X, labels))
    assert metrics["davies_bouldin_score"] == pytest.approx(davies_bouldin(X, labels))


def test_noise_is_counted_and_left_out_of_the_scores():
    X, labels = blobs()
    noisy = np.concatenate([X, [[1000.0, -1000.0]] * 10])
    metrics = calculate_clustering_metrics(noisy, [*labels, *[-1] * 10])
    assert metrics == calculate_clustering_metrics(X, labels) | {
        "n_noise_points": 10,
        "noise_ratio": 0.25,
    }
    assert metrics["n_clusters"] == 3


@pytest.mark.parametrize(
    ("labels", "n_clusters", "n_noise_points", "noise_ratio"),
    [
        ([-1, -1, -1, -1], 0, 4, 1.0),
        ([0, 0, 0, 0], 1, 0, 0.0),
        ([0, -1, 0, -1], 1, 2, 0.5),
        ([0, 1, 2, 3], 4, 0, 0.0),
        ([0, 1, -1, -1], 2, 2, 0.5),
    ],
    ids=["all noise", "one cluster", "one cluster and noise", "a row a cluster", "both"],
)
def test_scores_are_none_where_they_are_undefined(
    labels: list[int], n_clusters: int, n_noise_points: int, noise_ratio: float
):
    X = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]
    assert calculate_clustering_metrics(X, labels) == {
        "n_clusters": n_clusters,
        "n_noise_points": n_noise_points,
        "noise_ratio": noise_ratio,
        **dict.fromkeys(SCORES),
    }


def test_a_clustering_of_nothing_has_no_noise():
    assert calculate_clustering_metrics(np.empty((0, 2)), []) == {
        "n_clusters": 0,
        "n_noise_points": 0,
        "noise_ratio": 0.0,
        **dict.fromkeys(SCORES),
    }


def test_cluster_ids_may_have_gaps():
    X, labels = blobs()
    gaps = np.array([7, 12, 90])[labels]
    assert calculate_clustering_metrics(X, gaps) == calculate_clustering_metrics(X, labels)


def test_figures_are_plain_numbers_that_json_can_hold():
    metrics = calculate_clustering_metrics(*blobs())
    assert {name: type(value) for name, value in metrics.items()} == {
        "n_clusters": int,
        "n_noise_points": int,
        "noise_ratio": float,
        **dict.fromkeys(SCORES, float),
    }


@pytest.mark.parametrize("n_rows", [1, SILHOUETTE_ROWS])
def test_the_silhouette_reads_all_rows_up_to_its_limit(n_rows: int):
    rows = silhouette_rows(np.zeros(n_rows, dtype=int), 42)
    np.testing.assert_array_equal(rows, np.arange(n_rows))


def test_above_its_limit_the_silhouette_reads_a_sample_with_a_row_of_every_cluster():
    labels = np.zeros(200_000, dtype=int)
    labels[:40] = np.arange(1, 41)
    rows = silhouette_rows(labels, 42)
    assert set(labels[rows]) == set(range(41))
    assert _SILHOUETTE_SAMPLE <= len(rows) <= _SILHOUETTE_SAMPLE + 41
    np.testing.assert_array_equal(rows, np.unique(rows))


def test_the_sample_of_the_silhouette_is_seeded():
    labels = np.zeros(30_000, dtype=int)
    np.testing.assert_array_equal(silhouette_rows(labels, 1), silhouette_rows(labels, 1))
    assert not np.array_equal(silhouette_rows(labels, 1), silhouette_rows(labels, 2))


def test_a_sampled_silhouette_is_close_to_that_of_all_rows():
    X, labels = blobs(SILHOUETTE_ROWS + 2000, n_clusters=2)
    sampled = calculate_clustering_metrics(X, labels)["silhouette_score"]
    few = calculate_clustering_metrics(X[:2000], labels[:2000])["silhouette_score"]
    assert sampled == pytest.approx(few, abs=0.02)


def test_model_metrics_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    y, forecast = rng.normal(5, 2, 40), rng.normal(5, 2, 40)
    errors = [a - b for a, b in zip(y, forecast, strict=True)]
    squares = sum(e * e for e in errors)
    assert calculate_model_metrics(y, forecast) == pytest.approx(
        {
            "rmse": math.sqrt(squares / 40),
            "mae": sum(abs(e) for e in errors) / 40,
            "r2": 1 - squares / sum((a - y.mean()) ** 2 for a in y),
        }
    )


def test_model_metrics_of_a_perfect_forecast():
    assert calculate_model_metrics([1, 2, 4], [1, 2, 4]) == {"rmse": 0.0, "mae": 0.0, "r2": 1.0}


@pytest.mark.parametrize("y", [[3.0], [3.0, 3.0, 3.0]], ids=["one row", "one value"])
def test_r2_is_none_where_the_outcome_does_not_vary(y: list[float]):
    metrics = calculate_model_metrics(y, [5.0] * len(y))
    assert metrics == {"rmse": 2.0, "mae": 2.0, "r2": None}


def test_model_metrics_of_no_row_are_none():
    assert calculate_model_metrics([], []) == {"rmse": None, "mae": None, "r2": None}


@pytest.fixture(scope="module")
def forecasts() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    P = rng.dirichlet([1, 2, 3], size=200)
    return rng.integers(0, 3, 200), P


def test_figures_of_classes_are_those_of_sklearn(forecasts):
    codes, P = forecasts
    found = calculate_classification_metrics(codes, P)
    assert found["accuracy"] == (P.argmax(axis=1) == codes).sum() / 200
    assert found["log_loss"] == pytest.approx(log_loss(codes, P), rel=1e-12)
    assert found["auc"] == pytest.approx(roc_auc_score(codes, P, multi_class="ovr"), rel=1e-12)
    named = calculate_classification_metrics(np.array(list("xyz"))[codes], P, list("xyz"))
    assert named == found


def test_two_classes_have_the_area_of_the_second(forecasts):
    codes, P = forecasts[0] % 2, forecasts[1][:, :2]
    P = P / P.sum(axis=1, keepdims=True)
    found = calculate_classification_metrics(codes, P)
    assert found["auc"] == pytest.approx(roc_auc_score(codes, P[:, 1]), rel=1e-12)


def test_what_is_undefined_of_classes_is_none(forecasts):
    nothing = calculate_classification_metrics([], np.empty((0, 3)))
    assert nothing == {"accuracy": None, "log_loss": None, "auc": None}
    one = calculate_classification_metrics([1], np.array([[0.2, 0.5, 0.3]]))
    assert one == {"accuracy": 1.0, "log_loss": -math.log(0.5), "auc": None}
    codes, P = forecasts
    some = calculate_classification_metrics(np.minimum(codes, 1), P)
    expected = [roc_auc_score(np.minimum(codes, 1) == code, P[:, code]) for code in (0, 1)]
    assert some["auc"] == pytest.approx(np.mean(expected), rel=1e-12)


def test_a_class_that_was_thought_impossible_costs_as_much_as_one_in_a_million():
    found = calculate_classification_metrics(["a", "new"], np.array([[0, 1.0], [0, 1.0]]), "ab")
    assert found["log_loss"] == pytest.approx(-math.log(1e-6), rel=1e-12)
    assert found["accuracy"] == 0.0


@pytest.mark.parametrize(("name", "expected"), [("rmse", 3.0), ("log_loss", 9.0)])
def test_a_metric_is_made_of_the_mean_loss_and_back(name, expected):
    metric = METRICS[name]
    assert metric.name == name
    assert metric.of(9.0) == expected
    assert metric.loss(metric.of(9.0)) == 9.0


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([1.0, 2.0, 3.0], [1.0], "y_true has 3 values and y_pred 1; give one forecast a row"),
        ([], [1.0], "y_true has 0 values and y_pred 1; give one forecast a row"),
        ([1.0, np.nan], [1, 2], "y_true has missing or infinite values; leave those rows out"),
        ([1.0, 2.0], [1, np.inf], "y_pred has missing or infinite values; leave those rows out"),
    ],
)
def test_metrics_of_what_is_no_forecast_a_row_are_refused_in_one_line(y_true, y_pred, message):
    with pytest.raises(DataValidationError) as caught:
        calculate_model_metrics(y_true, y_pred)
    assert str(caught.value) == message
