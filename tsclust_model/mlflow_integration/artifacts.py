"""Artifacts of a run: models and reports, kept apart by hospital profile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from tsclust_model.config import NAME_CHARACTERS, NAME_PATTERN
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.mlflow_integration.pyfunc import read_parts, write_parts
from tsclust_model.mlflow_integration.sealed_models import Kept, open_model, seal_model
from tsclust_model.mlflow_integration.stores import translated


class ArtifactManager:
    """Models and reports of a run, separate for each hospital profile.

    Parameters
    ----------
    hospital_profile_id : str, optional
        First folder of every path; default ``default``.
    run_id : str, optional
        The run; default: the active one at each call.
    """

    def __init__(self, hospital_profile_id: str | None = None, run_id: str | None = None) -> None:
        self.profile = checked_name(hospital_profile_id or "default")
        self.run_id = run_id

    def save_model(self, model: Kept, model_name: str, model_type: str) -> str:
        """Store a fitted model as plain data with checksums; never as a pickle.

        Parameters
        ----------
        model : Kept
            A model, clustering engine, fallback or cluster models of this package, a
            ``lightgbm.Booster``, or an estimator of scikit-learn or LightGBM (see `seal_model`).
        model_name, model_type : str
            The path is ``<profile>/models/<model_type>/<model_name>``.

        Returns
        -------
        str
            That path, under the run's artifacts.

        Raises
        ------
        MLflowIntegrationError
            The model is of no such class, or holds a type that could run code when it is read.
        """
        path = self._model_path(model_name, model_type)
        parts = seal_model(model)
        with tempfile.TemporaryDirectory() as folder, translated("the model cannot be stored"):
            write_parts(parts, Path(folder))
            mlflow.log_artifacts(folder, path, run_id=self._run())
        return path

    def load_model(self, model_name: str, model_type: str) -> Any:
        """The model of `save_model`; nothing is parsed before its checksum is verified."""
        path = self.get_artifact_path(self._model_path(model_name, model_type))
        return open_model(read_parts(Path(path)))

    def save_report(self, report: Mapping[str, Any] | str, report_name: str) -> str:
        """Store a report, a string or a mapping (as JSON), and return its path under the run.

        The path is ``<profile>/reports/<report_name>``.

        Raises
        ------
        MLflowIntegrationError
            The report is neither, or cannot be written as JSON.
        """
        path = f"{self.profile}/reports/{checked_name(report_name)}"
        text = report if isinstance(report, str) else _as_json(report)
        with translated("the report cannot be stored"):
            mlflow.log_text(text, path, run_id=self._run())
        return path

    def get_artifact_path(self, artifact_name: str) -> str:
        """Local path of an artifact of the run, fetched if its store is not local."""
        check_artifact_path(artifact_name)
        run_id = self._run()
        try:
            return str(
                mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=artifact_name)
            )
        except (MlflowException, OSError) as error:
            raise MLflowIntegrationError(
                f"run {run_id} has no artifact '{artifact_name}'; store it first"
            ) from error

    def _model_path(self, model_name: str, model_type: str) -> str:
        return f"{self.profile}/models/{checked_name(model_type)}/{checked_name(model_name)}"

    def _run(self) -> str:
        active = mlflow.active_run()
        if self.run_id is None and active is None:
            raise MLflowIntegrationError("no run is active; start one or give a run_id")
        return self.run_id or str(active.info.run_id)  # type: ignore[union-attr]


def _as_json(report: Mapping[str, Any]) -> str:
    remedy = "give a string, or a mapping of strings, numbers, lists and mappings"
    if not isinstance(report, Mapping):
        raise MLflowIntegrationError(f"the report is of type {type(report).__name__}; {remedy}")
    try:
        return json.dumps(dict(report), indent=2, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise MLflowIntegrationError(f"the report is not JSON ({error}); {remedy}") from error


def check_artifact_path(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise MLflowIntegrationError(
            f"artifact {str(name)!r} is no path under a run; give one such as reports/week.json"
        )


def checked_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise MLflowIntegrationError(
            f"{name!r} is no name; use 1 to 64 characters of {NAME_CHARACTERS}"
        )
    return name
