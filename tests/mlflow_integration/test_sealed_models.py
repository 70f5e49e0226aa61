"""Any fitted model as plain data: it comes back with the same bits, or is refused in one line."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import Birch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tsclust_model import (
    AdaptiveClusteringEngine,
    ClusterSpecificModelManager,
    KNNFallback,
    ModelRegistry,
)
from tsclust_model.errors import MLflowIntegrationError, NotFittedError
from tsclust_model.mlflow_integration.artifacts import ArtifactManager
from tsclust_model.mlflow_integration.runs import ExperimentManager
from tsclust_model.mlflow_integration.sealed_models import open_model, seal_model

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(0, 0.2, (60, 2)), RNG.normal(5, 0.2, (60, 2))])
Y = (X[:, 0] + RNG.normal(0, 1, 120) > 2.5).astype(int)
TEMPERATURE = 3 * X[:, 0] + X[:, 1]


def doubled(values: np.ndarray) -> np.ndarray:
    return 2 * values


ESTIMATORS = [
    make_pipeline(StandardScaler(), LogisticRegression()),
    make_pipeline(
        make_column_transformer((FunctionTransformer(np.square), [0])), LogisticRegression()
    ),
    RandomForestRegressor(5, random_state=0),
    HistGradientBoostingClassifier(max_iter=3),
    KNeighborsClassifier(3),
    VotingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier(3))]),
    StackingClassifier([("a", LogisticRegression())], KNeighborsClassifier(3), cv=2),
    lgb.LGBMClassifier(n_estimators=3, verbose=-1),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_an_estimator_of_scikit_learn_comes_back_the_same(estimator: BaseEstimator):
    estimator.fit(X, Y)
    loaded = open_model(seal_model(estimator))
    assert type(loaded) is type(estimator)
    np.testing.assert_array_equal(loaded.predict(X), estimator.predict(X))


def test_every_model_of_the_package_comes_back_the_same(ward_model, generation, hospital):
    engine = AdaptiveClusteringEngine({"min_cluster_size": 20})
    result = engine.fit(X)
    labels = result.labels
    found = open_model(seal_model(engine))
    np.testing.assert_array_equal(found.predict(X + 0.1), engine.predict(X + 0.1))
    assert found.get_clustering_metrics() == engine.get_clustering_metrics()
    np.testing.assert_array_equal(found.result_.cluster_centers, result.cluster_centers)

    fallback = KNNFallback(3).fit(X, labels)
    fallback.predict(X)
    found = open_model(seal_model(fallback))
    assert found.get_fallback_metrics() == fallback.get_fallback_metrics()
    np.testing.assert_array_equal(found.predict(X + 0.1), fallback.predict(X + 0.1))

    manager = ClusterSpecificModelManager({"num_leaves": 5, "n_estimators": 5})
    parts = {c: {"X": X[labels == c], "y": TEMPERATURE[labels == c]} for c in (0, 1)}
    manager.fit_timeseries_models(parts)
    manager.fit_resource_models(
        {c: p | {"resources": {"Cost (€)": p["y"]}} for c, p in parts.items()}
    )
    found = open_model(seal_model(manager))
    np.testing.assert_array_equal(found.predict_timeseries(1, X), manager.predict_timeseries(1, X))
    assert found.predict_resources(0, X) == manager.predict_resources(0, X)
    assert found.get_model_metrics() == manager.get_model_metrics()

    assert seal_model(open_model(seal_model(ward_model))) == seal_model(ward_model)
    assert seal_model(open_model(seal_model(generation))) == seal_model(generation)


def test_what_cannot_be_kept_is_one_line():
    with pytest.raises(
        MLflowIntegrationError, match="a Birch cannot be kept: skops takes no Birch"
    ):
        seal_model(Birch(n_clusters=2).fit(X))
    own = make_pipeline(FunctionTransformer(doubled), LogisticRegression()).fit(X, Y)
    with pytest.raises(MLflowIntegrationError, match=f"a Pipeline holds {__name__}"):
        seal_model(own)
    with pytest.raises(MLflowIntegrationError, match="a list cannot be stored as plain data"):
        seal_model([1])
    for unfitted in (AdaptiveClusteringEngine(), KNNFallback(), ClusterSpecificModelManager()):
        with pytest.raises(NotFittedError, match="call fit"):
            seal_model(unfitted)


def test_a_changed_estimator_is_not_read():
    parts = seal_model(LogisticRegression().fit(X, Y))
    parts["estimator.skops"] += b"x"
    with pytest.raises(MLflowIntegrationError, match=r"part 'estimator\.skops'"):
        open_model(parts)


@pytest.mark.usefixtures("store")
def test_artifacts_and_registry_keep_them_alike(tmp_path, ward_model):
    engine = AdaptiveClusteringEngine({"min_cluster_size": 20})
    engine.fit(X)
    models = {"engine": engine, "knn": KNeighborsClassifier(3).fit(X, Y), "wards": ward_model}
    registry = ModelRegistry(tmp_path / "registry")
    with ExperimentManager().run("kept") as run_id:
        for name, model in models.items():
            assert ArtifactManager().save_model(model, name, "any") == f"default/models/any/{name}"
            registry.save(model, name)
    manager = ArtifactManager(run_id=run_id)
    for name, model in models.items():
        for loaded in (manager.load_model(name, "any"), registry.load(name)[0]):
            assert type(loaded) is type(model)
    np.testing.assert_array_equal(registry.load("knn")[0].predict(X), models["knn"].predict(X))
    np.testing.assert_array_equal(registry.load("engine")[0].predict(X), engine.predict(X))
