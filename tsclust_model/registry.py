"""Registered versions and the aliases that say which one serves.

``@champion`` serves, ``@previous`` served before it; each move is tagged with when, from what and
why. A version's tag ``state.sha256`` names the state it was registered with.
"""

from __future__ import annotations

from datetime import UTC, datetime

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tsclust_model.config import NAME_PATTERN
from tsclust_model.errors import ConfigurationError, MLflowIntegrationError
from tsclust_model.generation import Generation
from tsclust_model.pyfunc import SegmentForecaster

CHAMPION = "champion"
PREVIOUS = "previous"
STATE_TAG = "state.sha256"


def check_model_name(name: str) -> str:
    """`name`, if it can be a registered model's; raises `ConfigurationError` if not."""
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigurationError(
            f"model_name is {name!r}; it must be 1 to 64 characters of A-Z a-z 0-9 . _ - "
            "that do not start with a dot"
        )
    return name


def register(model_uri: str, name: str, state_digest: str) -> ModelVersion:
    """Register a logged model as the next version of `name`, tagged with its state's digest.

    Raises
    ------
    MLflowIntegrationError
        The registry refused.
    """
    try:
        return mlflow.register_model(model_uri, name, tags={STATE_TAG: state_digest})
    except MlflowException as error:
        raise MLflowIntegrationError(f"model '{name}' cannot be registered: {error}") from error


def set_champion(name: str, version: str, reason: str) -> str | None:
    """Let a version serve; the one before becomes ``@previous``.

    Parameters
    ----------
    name, version : str
    reason : str
        Why, for the version's tags.

    Returns
    -------
    str or None
        The version that served before.
    """
    client = MlflowClient()
    before = alias_version(name, CHAMPION)
    try:
        if before is not None:
            client.set_registered_model_alias(name, PREVIOUS, before)
        client.set_registered_model_alias(name, CHAMPION, version)
        for key, value in {
            "promoted.at": datetime.now(UTC).isoformat(timespec="seconds"),
            "promoted.from": before or "none",
            "promoted.reason": reason,
        }.items():
            client.set_model_version_tag(name, version, key, value)
    except MlflowException as error:
        raise MLflowIntegrationError(f"the alias of '{name}' cannot be moved: {error}") from error
    return before


def alias_version(name: str, alias: str) -> str | None:
    """Version that an alias points to, or None."""
    try:
        return str(MlflowClient().get_model_version_by_alias(name, alias).version)
    except MlflowException:
        return None


def load_generation(model_uri: str) -> Generation:
    """The fitted pipeline of a logged or registered model.

    Parameters
    ----------
    model_uri : str
        ``models:/<name>@champion``, ``models:/<name>/<version>``, ``runs:/...`` or a folder.

    Raises
    ------
    MLflowIntegrationError
        No such model, not one of ours, or a state other than the one that was registered.
    """
    try:
        model = mlflow.pyfunc.load_model(model_uri).unwrap_python_model()
        registered = _registered_digest(model_uri)
    except (MlflowException, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise MLflowIntegrationError(
            f"{model_uri} cannot be loaded: {first_line}; check the name, the version and "
            "MLFLOW_TRACKING_URI"
        ) from error
    if not isinstance(model, SegmentForecaster):
        raise MLflowIntegrationError(f"{model_uri} is not a model of this package")
    if registered is not None and registered != model.state_digest:
        raise MLflowIntegrationError(
            f"{model_uri} is not the state that was registered; log and register it again"
        )
    return model.generation


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
