"""The stores of MLflow: made once, asked for within seconds, their errors translated."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import mlflow
import requests
from mlflow.exceptions import MlflowException

from tsclust_model.errors import MLflowIntegrationError, PipelineError

ABSENT, THERE = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
"""Error codes of mlflow."""

_PROBE_SECONDS = 3.0


def require_server() -> None:
    """Refuse at once to begin what needs a tracking server that does not answer within 3 s.

    mlflow's own calls try again for minutes (4 min 10 s by default) before they say so. A store
    that is no server passes, as does any answer.
    """
    for uri in dict.fromkeys((mlflow.get_tracking_uri(), mlflow.get_registry_uri())):
        if not uri.startswith(("http://", "https://")):
            continue
        try:
            requests.head(f"{uri.rstrip('/')}/health", timeout=_PROBE_SECONDS)
        except requests.exceptions.SSLError:
            continue  # something answers; whether mlflow may trust it is its own setting
        except (requests.ConnectionError, requests.Timeout) as error:
            raise MLflowIntegrationError(
                f"the tracking server does not answer ({type(error).__name__}); "
                "start it, or check MLFLOW_TRACKING_URI"
            ) from error


def embedded_file(uri: str) -> Path | None:
    """The file of an embedded (sqlite) store; None of any other."""
    kind, _, place = uri.partition(":///")
    file = unquote(place.partition("?")[0])
    if kind.partition("+")[0] != "sqlite" or file in ("", ":memory:"):
        return None
    return Path(file).absolute()


def make_stores() -> None:
    """Make the tables of embedded stores that have none, one process at a time.

    mlflow makes them at the first use, and of two processes that do so at once one fails
    (``duplicate column name``).
    """
    for uri in dict.fromkeys((mlflow.get_tracking_uri(), mlflow.get_registry_uri())):
        file = embedded_file(uri)
        if file is not None and file.parent.is_dir():
            _make_store(uri, file)


@functools.cache
def _make_store(uri: str, file: Path) -> None:
    with _alone_in(file.parent), translated("the store cannot be opened"):
        mlflow.MlflowClient(uri).search_experiments(max_results=1)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time; what is locked is the folder itself, so that no file is left."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that locks no folders, such as NFS
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def translated(what: str, into: type[PipelineError] = MLflowIntegrationError) -> Iterator[None]:
    """mlflow's errors become ours, here and in the two functions below.

    Elsewhere they are caught by `private_replies` alone, whose server answers with them, and by the
    thread of `MetricWriter`, which tries again.
    """
    try:
        yield
    except MlflowException as error:
        raise into(f"{what}: {_first_line(error)}") from error


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Errors of a registry that is asked for a model say that it does not answer."""
    try:
        yield
    except MlflowException as error:
        raise MLflowIntegrationError(
            f"the registry does not answer for '{name}' ({type(error).__name__}); "
            "check MLFLOW_TRACKING_URI and its server"
        ) from error


@contextmanager
def loading(model_uri: str) -> Iterator[None]:
    """Errors of mlflow and of the disk say that a model cannot be loaded."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise MLflowIntegrationError(
            f"{model_uri} cannot be loaded: {_first_line(error)}; check the name, the version and "
            "MLFLOW_TRACKING_URI"
        ) from error


@contextmanager
def tolerated(*codes: str) -> Iterator[None]:
    """Let mlflow's errors of these codes pass, without codes all of them."""
    try:
        yield
    except MlflowException as error:
        if codes and error.error_code not in codes:
            raise


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
