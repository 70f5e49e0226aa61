"""Tables of Delta Lake: a folder of parquet files with a log of its versions."""

from __future__ import annotations

import re
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa

from tsclust_model.errors import DataValidationError

_VERSION = re.compile(r"(?P<folder>.+)@v(?P<version>\d+)")


def delta_version(source: str) -> tuple[str, int | None] | None:
    """Folder and version (None is the newest) of a Delta table; None if `source` is none.

    ``path/to/table@v7`` names the version 7, as Spark does.
    """
    named = _VERSION.fullmatch(source)
    folder = source if named is None else named["folder"]
    try:
        system, path = fsspec.core.url_to_fs(folder)
    except (ValueError, ImportError):  # the reader of the other formats says what is wrong
        return None
    if not system.isdir(f"{path.rstrip('/')}/_delta_log"):
        return None
    return folder, None if named is None else int(named["version"])


def pinned(source: str) -> str:
    """`source` with the version that is the newest now, if it is a Delta table without one.

    What is read and what is written down of it are then the same rows, whatever is added meanwhile.

    Raises
    ------
    DataValidationError
        The table cannot be opened.
    """
    found = delta_version(source)
    if found is None or found[1] is not None:
        return source
    return f"{source}@v{_opened(*found).version()}"


def read_delta(folder: str, version: int | None) -> pd.DataFrame:
    """The rows of a version (None is the newest) of a Delta table.

    Raises
    ------
    DataValidationError
        There is no such version, the table is broken, or the package ``deltalake`` is absent.
    """
    table = _opened(folder, version)
    try:
        return table.to_pandas()
    except (OSError, pa.ArrowException) as error:  # a file that the log names is gone or broken
        raise DataValidationError(
            f"{folder} cannot be read as a Delta table ({type(error).__name__}); a file that its "
            "log names is missing or broken: restore it, or name an older version (@v0)"
        ) from error


def _opened(folder: str, version: int | None) -> Any:
    try:
        import deltalake
    except ImportError as error:
        raise DataValidationError(
            "a Delta table needs one more package: pip install 'tsclust-model[delta]'"
        ) from error
    try:
        newest = deltalake.DeltaTable(folder)
        if version is None or version == newest.version():
            return newest
        if version < newest.version():
            return deltalake.DeltaTable(folder, version=version)
    except (deltalake.exceptions.DeltaError, OSError) as error:
        raise DataValidationError(
            f"{folder} cannot be opened as a Delta table ({type(error).__name__}); check its "
            "_delta_log, and that the version was not vacuumed"
        ) from error
    raise DataValidationError(
        f"{folder} has no version {version}; the newest is {newest.version()}"
    )
