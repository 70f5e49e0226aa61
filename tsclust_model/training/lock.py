"""One retrain at a time, in any process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsclust_model.errors import (
    RetrainingError,
)


@contextmanager
def retrain_lock(path: Path, what: str = "retrain of this model is running") -> Iterator[None]:
    """Only one retrain at a time, in any process; the system frees the lock of one that died.

    Parameters
    ----------
    path : Path
    what : str
        What the lock is held for, in the words of the error.

    Raises
    ------
    RetrainingError
        Another one is running.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise RetrainingError(
            f"{path.parent} cannot be written ({error.strerror}), and a retrain keeps its lock "
            "there; make it writable"
        ) from error
    with lock as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RetrainingError(f"another {what}; wait for it") from error
        yield
