"""Models under version ids of one's own, over MLflow's registry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from sklearn.base import BaseEstimator

from tsclust_model.config import NAME_CHARACTERS, NAME_PATTERN
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.mlflow_integration.estimators import load_estimator, save_estimator
from tsclust_model.mlflow_integration.pyfunc import read_parts, save_generation, write_parts
from tsclust_model.mlflow_integration.sealed_models import Kept, open_model, seal_model
from tsclust_model.mlflow_integration.stores import THERE, tolerated, translated
from tsclust_model.models.base import FittedModel
from tsclust_model.models.state import MANIFEST

_MODEL, _METADATA, _STORE = "model", "metadata.json", "registry.db"

_ID_TAG = "version_id"


class ModelRegistry:
    """Fitted models by version id, in MLflow's registry.

    Parameters
    ----------
    base_dir : path or str
        A folder, which gets an embedded store of its own (sqlite, made when the first model is
        saved), or the tracking URI of a server.
    model_name : str
        The registered model whose versions these are.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.dummy import DummyClassifier
    >>> registry = ModelRegistry(tempfile.mkdtemp())
    >>> registry.get_latest_version() is None
    True
    """

    def __init__(self, base_dir: str | Path, model_name: str = "models") -> None:
        self.base_dir = base_dir
        self.model_name = model_name
        self._is_folder = "://" not in str(base_dir)

    def save(
        self,
        model: Kept,
        version_id: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Keep a fitted model.

        Parameters
        ----------
        model : Kept
            A model of this package, or a scikit-learn estimator (both served by MLflow as they
            are), or what else `seal_model` takes.
        version_id : str
            1 to 64 characters of A-Z a-z 0-9 . _ - without ``..``; not one that is there already.
        metadata : mapping, optional
            JSON-ready; `load` returns it with ``version_id`` and ``saved_at``.

        Returns
        -------
        str
            `version_id`.

        Raises
        ------
        MLflowIntegrationError
            The id is taken or impossible, the model or metadata cannot be kept, or the store
            refuses.
        """
        if not NAME_PATTERN.fullmatch(version_id):
            raise MLflowIntegrationError(
                f"version_id {version_id!r} cannot be used; give 1 to 64 characters of "
                f"{NAME_CHARACTERS}"
            )
        client = self._client()
        if self._find(client, version_id) is not None:
            raise MLflowIntegrationError(
                f"version '{version_id}' holds another model; choose another version_id"
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        known = dict(metadata or {}) | {"version_id": version_id, "saved_at": now}
        with tempfile.TemporaryDirectory() as folder:
            _write(model, known, Path(folder))
            with translated(f"version '{version_id}' cannot be saved"):
                self._upload(client, Path(folder), version_id)
        return version_id

    def load(self, version_id: str) -> tuple[Any, dict[str, Any]]:
        """A model and its metadata.

        Raises
        ------
        MLflowIntegrationError
            There is no such version.
        """
        client = self._client()
        version = self._find(client, version_id)
        if version is None:
            raise MLflowIntegrationError(f"there is no version '{version_id}'; see list_versions()")
        with tempfile.TemporaryDirectory() as folder, translated(f"'{version_id}'"):
            local = Path(client.download_artifacts(str(version.run_id), "", folder))
            metadata = json.loads((local / _METADATA).read_bytes())
            if (local / _MODEL / MANIFEST).exists():
                return open_model(read_parts(local / _MODEL)), metadata
            if (estimator := load_estimator(str(local / _MODEL))) is not None:
                return estimator, metadata
            model = mlflow.pyfunc.load_model(str(local / _MODEL))
            return model.unwrap_python_model().generation, metadata

    def list_versions(self) -> list[str]:
        """Ids of all versions, newest first."""
        return [version.tags[_ID_TAG] for version in self._versions(self._client())]

    def get_latest_version(self) -> str | None:
        """Id of the newest version, or None."""
        return next(iter(self.list_versions()), None)

    def _client(self) -> MlflowClient:
        if not self._is_folder:
            return MlflowClient(str(self.base_dir), str(self.base_dir))
        folder = Path(self.base_dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / _STORE}"
        return MlflowClient(uri, uri)

    def _upload(self, client: MlflowClient, folder: Path, version_id: str) -> None:
        """Files first, the version last: a kill leaves no version without its files."""
        run = client.create_run(self._experiment(client), run_name=version_id)
        client.log_artifacts(run.info.run_id, str(folder))
        client.set_terminated(run.info.run_id)
        with tolerated(THERE):
            client.create_registered_model(self.model_name)
        client.create_model_version(
            self.model_name,
            f"{run.info.artifact_uri}/{_MODEL}",
            run.info.run_id,
            tags={_ID_TAG: version_id},
        )

    def _experiment(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self.model_name)
        if experiment is not None:
            return str(experiment.experiment_id)
        place = (Path(self.base_dir).absolute() / "artifacts").as_uri() if self._is_folder else None
        return str(client.create_experiment(self.model_name, artifact_location=place))

    def _versions(self, client: MlflowClient) -> list[ModelVersion]:
        if self._is_folder and not (Path(self.base_dir) / _STORE).exists():
            return []
        with translated(f"the versions of '{self.model_name}' cannot be read"):
            versions = client.search_model_versions(f"name = '{self.model_name}'")
        ours = [version for version in versions if _ID_TAG in version.tags]
        return sorted(ours, key=lambda version: -int(version.version))

    def _find(self, client: MlflowClient, version_id: str) -> ModelVersion | None:
        versions = (v for v in self._versions(client) if v.tags[_ID_TAG] == version_id)
        return next(versions, None)


def _write(model: Any, metadata: Mapping[str, Any], folder: Path) -> None:
    try:
        (folder / _METADATA).write_text(json.dumps(metadata))
    except (TypeError, ValueError) as error:
        raise MLflowIntegrationError(f"the metadata is not JSON: {error}") from error
    if isinstance(model, FittedModel):
        save_generation(model, folder / _MODEL)
    elif isinstance(model, BaseEstimator):
        save_estimator(model, folder / _MODEL)
    else:
        (folder / _MODEL).mkdir()
        write_parts(seal_model(model), folder / _MODEL)
