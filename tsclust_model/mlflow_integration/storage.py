"""Where a model keeps what it has seen: its history, the loop's tables and monitor state.

::

    <root>/<folder>/history      batches that retrains read
                    data         tables that the loop has ingested
                    monitoring   metrics, drift reference and quality reports of the loop

The folder's name is a tag of the registered model, so that it is found through the model and two
stores never share one. The root is `PipelineConfig.history_dir`, else the environment variable
``TSCLUST_STORAGE``, else ``tsclust_storage`` beside the embedded store, else (a tracking server) a
folder of the user's for that server. The working folder decides nothing: ``mlflow run`` starts
every command in the project's, which for a git URL is a temporary clone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsclust_model.config import PipelineConfig
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.window import Ranges, Window
from tsclust_model.errors import ConfigurationError, MLflowIntegrationError, RetrainingError
from tsclust_model.files import write_whole
from tsclust_model.mlflow_integration.registry import (
    create_model,
    embedded_folder,
    storage_folder,
    store_address,
    trained_batches,
)
from tsclust_model.shown import one_line

ROOT_VARIABLE = "TSCLUST_STORAGE"

# What the settings were by default when all of this lay in the working folder.
_OLD_DEFAULTS = ("tsclust_history", "tsclust_data", "tsclust_monitoring")


@one_line
@dataclass(frozen=True)
class ModelStorage:
    """The places of one registered model: a folder of its own, the batches that retrains read, the
    tables that the loop has ingested and what its monitor keeps.
    """

    folder: Path
    history: DataVersioner
    data_versions: Path
    monitoring: Path

    @property
    def retrain_lock(self) -> Path:
        """The file that one retrain at a time holds."""
        return self.folder / ".retrain.lock"


def open_storage(
    config: PipelineConfig,
    model_name: str,
    *,
    register: bool = False,
    versions_dir: str | None = None,
    monitoring_dir: str | None = None,
) -> ModelStorage:
    """The places of a registered model; nothing but a name is written before rows are.

    With `register` the registered model is made if there is none, so that the folder is its own
    before rows are written there. A model that was trained when its history lay in the working
    folder takes over the batches it was trained on, if they are still there. `versions_dir` and
    `monitoring_dir` are other roots of these two.

    Raises
    ------
    ConfigurationError
        A relative root and a tracking server, or a root that cannot be written.
    MLflowIntegrationError
        The registry does not answer, and `register` is asked for.
    """
    root = _root(config.history_dir, "history_dir")
    name = _folder_name(root, model_name, register)
    if register:
        _require_writable(root / name)
    history = DataVersioner(root / name / "history")
    if not history.base_dir.exists():
        _take_over(config, model_name, history)
    return ModelStorage(
        root / name,
        history,
        _root(versions_dir, "data.versions_dir", root) / name / "data",
        _root(monitoring_dir, "monitoring.dir", root) / name / "monitoring",
    )


def refuse_lost_rows(
    storage: ModelStorage, champion: Mapping[str, Any], target: str, window: Window
) -> None:
    """Refuse to retrain where rows that the champion was trained on should be and are not.

    Rows that were purged, or are older than the `window` of a challenger reaches, are not missing.
    `champion` is its ``info``: ``trained_on``, and ``trained_order`` of the batches, oldest first
    (without it no batch is known to be newer than another).
    """
    trained_on: Ranges = champion["trained_on"]
    order = list(champion.get("trained_order", trained_on))
    there = set(window.versions)
    first = next((i for i, batch in enumerate(order) if batch in there), len(order))
    outside = order[:first] if window.full else []
    lost = [
        batch
        for batch, (start, stop) in trained_on.items()
        if batch not in there
        and batch not in outside
        and storage.history.has_lost(batch, start, stop, target)
    ]
    if lost:
        n_rows = sum(trained_on[batch][1] - trained_on[batch][0] for batch in lost)
        raise RetrainingError(
            f"{n_rows} rows ({len(lost)} of {len(trained_on)} batches) that the champion was "
            f"trained on are not in {storage.history.base_dir}; bring that folder back, or let "
            f"history_dir or {ROOT_VARIABLE} name where it is, or train anew (tsclust train)"
        )


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return
        why = "read-only"
    except OSError as error:
        why = str(error.strerror)
    raise ConfigurationError(
        f"{folder} cannot be written ({why}), and a model's rows are kept there; let "
        f"history_dir or {ROOT_VARIABLE} name a folder that can"
    )


def _root(given: str | None, key: str, default: Path | None = None) -> Path:
    if given is not None and given not in _OLD_DEFAULTS:
        return _absolute(given, key)
    if default is not None:
        return default
    variable = os.environ.get(ROOT_VARIABLE)
    if variable:
        return _absolute(variable, ROOT_VARIABLE)
    beside = embedded_folder()
    return _user_folder() if beside is None else beside / "tsclust_storage"


def _absolute(given: str, key: str) -> Path:
    """A relative path is meant beside the embedded store, wherever the command runs."""
    path = Path(given).expanduser()
    if path.is_absolute():
        return path
    beside = embedded_folder()
    if beside is None:
        raise ConfigurationError(
            f"{key} is '{given}', and a tracking server has no folder that it could be relative "
            "to; give an absolute path"
        )
    return beside / path


def _user_folder() -> Path:
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():
        data = Path.home() / ".local" / "share"
    return data / "tsclust" / _digest(store_address())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _folder_name(root: Path, model_name: str, register: bool) -> str:
    """The folder's name: that of the registered model's tag, once there is a model.

    Until then a name is proposed and kept, which the first training registers; and while the
    registry does not answer, the last name it gave counts.
    """
    kept = root / ".names" / _digest(f"{store_address()}\n{model_name}")
    registered, proposed = kept.with_suffix(".registered"), kept.with_suffix(".proposed")
    try:
        name = storage_folder(model_name)
    except MLflowIntegrationError:
        if register:
            raise
        return registered.read_text() if registered.exists() else _proposal(proposed, model_name)
    if name is None:
        with contextlib.suppress(OSError):
            registered.unlink(missing_ok=True)  # of a model that was deleted
        name = _proposal(proposed, model_name)
        if not register:
            return name
        name = create_model(model_name, name)
    _remember(registered, name)
    with contextlib.suppress(OSError):
        proposed.unlink(missing_ok=True)
    return name


def _proposal(path: Path, model_name: str) -> str:
    """The name that whoever came first has proposed."""
    _require_writable(path.parent)
    own = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    own.write_text(f"{model_name}-{secrets.token_hex(4)}")
    with contextlib.suppress(FileExistsError):
        os.link(own, path)
    own.unlink()
    return path.read_text()


def _remember(path: Path, name: str) -> None:
    """Keep a name for when the registry does not answer; a folder to read alone will do."""
    with contextlib.suppress(OSError):
        if path.exists() and path.read_text() == name:
            return
        write_whole(path, name)


def _take_over(config: PipelineConfig, model_name: str, history: DataVersioner) -> None:
    """Copy what the model was trained on from where histories used to lie: the working folder.

    Other batches of that folder stay there: they may be of another store.
    """
    old = DataVersioner(Path(config.history_dir or _OLD_DEFAULTS[0]) / model_name)
    if not old.base_dir.is_dir():
        return
    taken = history.take_over(old, trained_batches(model_name))
    if taken:
        left = len(old.list_versions()) - len(taken)
        warnings.warn(
            f"the history of '{model_name}' was taken over from {old.base_dir.absolute()} to "
            f"{history.base_dir}: {len(taken)} batches that it was trained on; {left} other(s) "
            "were left: give them again if they are this model's, then delete the old folder",
            stacklevel=3,
        )
