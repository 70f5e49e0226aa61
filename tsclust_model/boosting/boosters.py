"""LightGBM models, fitted side by side by one thread each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import lightgbm as lgb
import numpy as np

from tsclust_model.errors import ModelTrainingError

# One thread a model, models side by side: LightGBM's own threads gain little on small clusters,
# and the same text comes out whatever the number of cores.
_MANAGED = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1}


@contextmanager
def model_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that fit models; what waits is dropped when an error leaves."""
    # One more than there are cores: while one thread is in Python, another computes.
    threads = ThreadPoolExecutor((os.cpu_count() or 1) + 1)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def train_boosters(
    X: np.ndarray,
    outcomes: Mapping[str, np.ndarray],
    params: Mapping[str, Any],
    categorical: Sequence[int] = (),
) -> Iterator[tuple[str, lgb.Booster]]:
    """A model of each outcome; the rows are sorted into bins once.

    Raises
    ------
    ModelTrainingError
        LightGBM refused the data or its parameters.
    """
    settings = {"n_estimators": 100} | dict(params) | _MANAGED
    rounds = settings.pop("n_estimators")
    data = lgb.Dataset(X, categorical_feature=list(categorical), free_raw_data=True)
    try:
        for name, y in outcomes.items():
            data.set_label(y)
            booster = lgb.train(settings, data, num_boost_round=rounds, keep_training_booster=True)
            yield name, booster
    except lgb.basic.LightGBMError as error:
        raise ModelTrainingError(f"LightGBM refused the data or its parameters: {error}") from error


def booster_forecast(booster: lgb.Booster, X: np.ndarray) -> np.ndarray:
    """LightGBM's own forecast, by one thread; each row's answer depends on that row alone."""
    if len(X) == 0:
        return np.empty(0)
    return np.asarray(booster.predict(X, num_threads=1), dtype=np.float64)


def class_forecast(booster: lgb.Booster, X: np.ndarray) -> np.ndarray:
    """LightGBM's probabilities, shape (n, n_classes)."""
    if len(X) == 0:
        return np.empty((0, max(booster.num_model_per_iteration(), 2)))
    forecast = booster_forecast(booster, X)
    return np.column_stack([1.0 - forecast, forecast]) if forecast.ndim == 1 else forecast


def rows_by_cluster(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each label with the sorted positions of its rows, in one sort."""
    order = np.argsort(labels, kind="stable")
    clusters, starts = np.unique(labels[order], return_index=True)
    parts = np.split(order, starts[1:])
    return [(int(cluster), rows) for cluster, rows in zip(clusters, parts, strict=True)]
