"""Files that are whole or not there at all, and the small JSON ones that one process leaves."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

State = dict[str, Any]
"""What a process leaves for the next one, as JSON."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is there after the block, on the disk, or as it was before; its folder is made.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write or replace a file; see `whole_file`."""
    with whole_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def read_state(path: Path) -> State:
    """The state that was written last; empty without one, or if the file is no JSON object."""
    try:
        state = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Replace a JSON file; whoever is killed leaves the old one or the new one."""
    write_whole(path, json.dumps(state))
