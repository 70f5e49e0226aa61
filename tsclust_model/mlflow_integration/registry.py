"""Registered versions and the aliases that say which one serves.

``@champion`` serves, ``@challenger`` would like to, ``@previous`` served before; each move is
tagged with when, from what and why. A version's tag ``state.sha256`` names its state.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tsclust_model.config import NAME_CHARACTERS, NAME_PATTERN
from tsclust_model.errors import ConfigurationError, MLflowIntegrationError
from tsclust_model.mlflow_integration.pyfunc import SegmentForecaster
from tsclust_model.mlflow_integration.stores import (
    ABSENT,
    THERE,
    answering,
    embedded_file,
    loading,
    make_stores,
    tolerated,
    translated,
)
from tsclust_model.models.base import FittedModel, FittedPipeline
from tsclust_model.rows.baseline import Baseline

CHAMPION = "champion"

CHALLENGER = "challenger"

PREVIOUS = "previous"

BASELINE_METADATA = "tsclust_baseline"
"""Key of the metadata of a baseline that an earlier build logged with ``mlflow.sklearn``."""

STATE_TAG = "state.sha256"

STORAGE_TAG = "tsclust.storage"

_FOLDER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")

_SEGMENT = "segment."

_DATA = "data.versions."

_IDS_A_TAG = 60

_MOST_KEPT = 2

_KEPT: dict[str, FittedModel] = {}


def check_model_name(name: str) -> str:
    """`name`, if it can be a registered model's; raises `ConfigurationError` if not."""
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigurationError(
            f"model_name is {name!r}; it must be 1 to 64 characters of {NAME_CHARACTERS}"
        )
    return name


def register(
    model_uri: str, name: str, state_digest: str, tags: Mapping[str, str] | None = None
) -> ModelVersion:
    """Register a logged model as the next version of `name`, tagged with its state's digest."""
    tags = {STATE_TAG: state_digest, **(tags or {})}
    # mlflow prints two lines of its own on every version.
    with translated(f"model '{name}' cannot be registered"), redirect_stderr(io.StringIO()):
        return mlflow.register_model(model_uri, name, tags=tags)


def storage_folder(name: str) -> str | None:
    """Name of the folder that a registered model keeps its rows in; None without such a model.

    A model that has no such tag yet gets one. It follows from its name and the time it was made:
    processes that ask at once come to the same.
    """
    make_stores()
    folder = None
    with answering(name), tolerated(ABSENT):
        model = MlflowClient().get_registered_model(name)
        if STORAGE_TAG not in model.tags:
            made = sha256(f"{name} {model.creation_timestamp}".encode()).hexdigest()[:8]
            MlflowClient().set_registered_model_tag(name, STORAGE_TAG, f"{name}-{made}")
            model = MlflowClient().get_registered_model(name)  # the last writer's stands
        folder = str(model.tags[STORAGE_TAG])
    if folder is not None and not _FOLDER.fullmatch(folder):
        raise MLflowIntegrationError(
            f"the tag {STORAGE_TAG} of '{name}' is no name of a folder; set it to the one that "
            "holds its history"
        )
    return folder


def create_model(name: str, folder: str) -> str:
    """Make a registered model that keeps its rows in `folder`; the folder that stands.

    Another process may have made the model meanwhile: then its folder stands.
    """
    with translated(f"model '{name}' cannot be registered"), tolerated(THERE):
        MlflowClient().create_registered_model(name, tags={STORAGE_TAG: folder})
    return storage_folder(name) or folder


def store_address() -> str:
    """The URI of the registry in use, without a user's name and password."""
    uri = str(mlflow.get_registry_uri())
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl().rstrip("/") if host else uri


def embedded_folder() -> Path | None:
    """The folder of the embedded store's file; None where the registry is a server's."""
    file = embedded_file(str(mlflow.get_registry_uri()))
    return None if file is None else file.parent


def set_champion(
    name: str,
    version: str,
    reason: str,
    *,
    expected: str | None = None,
    figures: Mapping[str, Any] | None = None,
) -> str | None:
    """Let a version serve, and return the one that did, which becomes ``@previous``.

    `expected` is the version that must still be serving: somebody may have moved the alias
    meanwhile (the registry itself has no compare-and-set, so the check is as late as it can be).
    The reason and the `figures` become tags of the version, ``promoted.<name>``.

    Raises
    ------
    MLflowIntegrationError
        Another version serves than `expected`, or the registry refused.
    """
    client = MlflowClient()
    before = alias_version(name, CHAMPION)
    if expected is not None and before != expected:
        raise MLflowIntegrationError(
            f"@{CHAMPION} of '{name}' was moved from version {expected} to {before} meanwhile; "
            "compare with that one"
        )
    tags = {
        "promoted.at": datetime.now(UTC).isoformat(timespec="seconds"),
        "promoted.from": before or "none",
        "promoted.reason": reason,
    } | {f"promoted.{key}": str(value) for key, value in (figures or {}).items()}
    with translated(f"the alias of '{name}' cannot be moved"):
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        if before is not None and before != version:
            client.set_registered_model_alias(name, PREVIOUS, before)
        client.set_registered_model_alias(name, CHAMPION, version)
    return before


def set_challenger(name: str, version: str) -> None:
    """Point ``@challenger`` to a version."""
    with translated(f"the alias of '{name}' cannot be moved"):
        MlflowClient().set_registered_model_alias(name, CHALLENGER, version)


def challenger_tags(name: str) -> dict[str, str]:
    """Tags of the version behind ``@challenger``; none without one."""
    version = alias_version(name, CHALLENGER)
    return {} if version is None else version_tags(name, version)


def tag_version(name: str, version: str, tags: Mapping[str, Any]) -> None:
    """Set tags of a version."""
    with translated(f"version {version} of '{name}' cannot be tagged"):
        for key, value in tags.items():
            MlflowClient().set_model_version_tag(name, version, key, str(value))


def describe_version(name: str, version: str, text: str) -> None:
    """Set what the registry's page of a version says, in Markdown."""
    with translated(f"version {version} of '{name}' cannot be described"):
        MlflowClient().update_model_version(name, version, description=text)


def rollback(name: str, reason: str) -> str:
    """Let ``@previous`` serve again, and return its version; the two change places."""
    before = alias_version(name, PREVIOUS)
    if before is None:
        raise MLflowIntegrationError(f"'{name}' has no @{PREVIOUS} version to go back to")
    set_champion(name, before, f"rollback: {reason}")
    return before


def name_segment(name: str, cluster_id: int, segment_name: str) -> None:
    """Name a segment, for this and every later version: ids are stable across retrains."""
    if not 0 < len(segment_name) <= 200 or not segment_name.isprintable():
        raise ConfigurationError("a segment's name is one line of 1 to 200 characters")
    with translated(f"a segment of '{name}' cannot be named"):
        MlflowClient().set_registered_model_tag(name, f"{_SEGMENT}{cluster_id}", segment_name)


def segment_names(name: str) -> dict[int, str]:
    """Names of segments by id."""
    with translated(f"'{name}' cannot be read"):
        tags = MlflowClient().get_registered_model(name).tags
    return {
        int(key.removeprefix(_SEGMENT)): value
        for key, value in tags.items()
        if key.startswith(_SEGMENT)
    }


def alias_version(name: str, alias: str) -> str | None:
    """Version that an alias points to, or None."""
    make_stores()
    with answering(name), tolerated(ABSENT, "INVALID_PARAMETER_VALUE"):
        return str(MlflowClient().get_model_version_by_alias(name, alias).version)
    return None


def answers() -> bool:
    """Whether the registry answers at all; waits as long as mlflow's own retries do."""
    with tolerated():
        MlflowClient().search_registered_models(max_results=1)
        return True
    return False


def version_tags(name: str, version: str) -> dict[str, str]:
    """The tags of a version."""
    with translated(f"version {version} of '{name}' cannot be read"):
        return dict(MlflowClient().get_model_version(name, version).tags)


def registered_at(name: str, version: str) -> datetime:
    """When a version was registered (UTC)."""
    with translated(f"version {version} of '{name}' cannot be read"):
        stamp = MlflowClient().get_model_version(name, version).creation_timestamp
    return datetime.fromtimestamp(stamp / 1000, UTC)


def name_and_version(model_uri: str) -> tuple[str, str]:
    """Name and version of ``models:/<name>@<alias>`` or ``models:/<name>/<version>``."""
    name, at, alias = model_uri.removeprefix("models:/").partition("@")
    version = alias_version(name, alias) if at else None
    if not at:
        name, _, version = name.partition("/")
    if not model_uri.startswith("models:/") or not name or not version:
        raise MLflowIntegrationError(
            f"{model_uri} names no registered version; use models:/<name>@{CHAMPION}"
        )
    return name, version


def version_uri(model_uri: str) -> str:
    """The URI of the version that an alias means now; another URI as it is."""
    if not (model_uri.startswith("models:/") and "@" in model_uri):
        return model_uri
    name, _, alias = model_uri.removeprefix("models:/").partition("@")
    version = alias_version(name, alias)
    return model_uri if version is None else f"models:/{name}/{version}"


def load_generation(model_uri: str) -> FittedPipeline:
    """The fitted pipeline of a logged or registered model.

    Parameters
    ----------
    model_uri : str
        ``models:/<name>@champion``, ``models:/<name>/<version>``, ``runs:/...`` or a folder.

    Raises
    ------
    MLflowIntegrationError
        No such model, a baseline, not one of ours, or a state other than the one that was
        registered.
    """
    return _with_segments(load_fitted(model_uri), model_uri)


def load_fitted(model_uri: str) -> FittedModel:
    """As `load_generation`, also of a baseline."""
    plain = model_uri.removeprefix("models:/")
    if not model_uri or (plain != model_uri and not set(plain) & set("@/") and plain[:2] != "m-"):
        raise MLflowIntegrationError(
            f"'{model_uri}' names no version of a model; give models:/<name>@{CHAMPION} or "
            "models:/<name>/<version>"
        )
    with loading(model_uri):
        loaded = mlflow.pyfunc.load_model(model_uri)
        about = (loaded.metadata.metadata or {}).get(BASELINE_METADATA)
        if about is not None:
            return Baseline.from_metadata(mlflow.sklearn.load_model(model_uri), json.loads(about))
        model = loaded.unwrap_python_model()
        registered = _registered_digest(model_uri)
    if not isinstance(model, SegmentForecaster):
        raise MLflowIntegrationError(f"{model_uri} is not a model of this package")
    if registered is not None and registered != model.state_digest:
        raise MLflowIntegrationError(
            f"{model_uri} is not the state that was registered; log and register it again"
        )
    return model.generation


def _with_segments(model: FittedModel, model_uri: str) -> FittedPipeline:
    if not isinstance(model, FittedPipeline):
        raise MLflowIntegrationError(
            f"{model_uri} is a scikit-learn baseline: tsclust pipeline evaluates and retrains "
            "it, and mlflow scores and serves it (mlflow.pyfunc, mlflow models serve)"
        )
    return model


def registered_generation(name: str, version: str) -> FittedPipeline:
    """The fitted pipeline of a registered version; see `registered_model`."""
    return _with_segments(registered_model(name, version), f"models:/{name}/{version}")


def registered_model(name: str, version: str) -> FittedModel:
    """The model of a registered version; the last two are kept, by their digest.

    The steps of the loop ask for the champion one after another, and to fetch it is most of what
    they would do.
    """
    digest = version_tags(name, version).get(STATE_TAG)
    generation = _KEPT.pop(digest, None) if digest else None
    if generation is None:
        generation = load_fitted(f"models:/{name}/{version}")
    if digest:
        _KEPT[digest] = generation
        for oldest in list(_KEPT)[:-_MOST_KEPT]:
            del _KEPT[oldest]
    return generation


def _registered_digest(model_uri: str) -> str | None:
    """The digest tag of the version a ``models:/name`` URI names; None for other URIs."""
    if not model_uri.startswith("models:/"):
        return None
    name, at, alias = model_uri.removeprefix("models:/").partition("@")
    client = MlflowClient()
    if at:
        return client.get_model_version_by_alias(name, alias).tags.get(STATE_TAG)
    name, slash, version = name.partition("/")
    return client.get_model_version(name, version).tags.get(STATE_TAG) if slash else None


def training_data_tags(ranges: Iterable[str]) -> dict[str, str]:
    """Which batches of the history a version was trained on, in tags of limited length."""
    ids = sorted(ranges)
    parts = [ids[i : i + _IDS_A_TAG] for i in range(0, len(ids), _IDS_A_TAG)]
    return {f"{_DATA}{i}": ",".join(part) for i, part in enumerate(parts)}


def trained_batches(name: str) -> set[str]:
    """Batches of the history that any version of a model was trained on."""
    return set().union(*_batches_by_version(name).values())


def versions_trained_on(name: str, batch_ids: Iterable[str]) -> list[str]:
    """Versions of a model that were trained on any of the batches, oldest first."""
    wanted = set(batch_ids)
    trained = _batches_by_version(name).items()
    return [str(version) for version, ids in sorted(trained) if ids & wanted]


def _batches_by_version(name: str) -> dict[int, set[str]]:
    with translated(f"the versions of '{name}' cannot be read"):
        return {
            int(version.version): {
                batch_id
                for key, value in version.tags.items()
                if key.startswith(_DATA)
                for batch_id in value.split(",")
            }
            for version in MlflowClient().search_model_versions(f"name = '{name}'")
        }
