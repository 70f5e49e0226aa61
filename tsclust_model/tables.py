"""Tables in and out: csv, parquet, json and hdf5 from a path, a glob or an fsspec URL."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from tsclust_model.errors import DataValidationError, listed

FORMATS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip"}


def read_table(
    source: str, text_columns: Collection[str] = (), missing_markers: Collection[str] = ("",)
) -> pd.DataFrame:
    """One table of all the files that `source` names.

    Parameters
    ----------
    source : str
        A path, a glob (``data/*.parquet``) or an fsspec URL (``s3://bucket/key.csv``). The suffix
        tells the format; csv and json may be compressed (``.csv.gz``). Several files are read in
        the order of their names and must have the same columns.
    text_columns : collection of str
        Columns a csv is not allowed to read as numbers ("007" stays "007").
    missing_markers : collection of str
        Texts of a csv that mean "missing".

    Raises
    ------
    DataValidationError
        No such file, an unknown format, an empty, corrupt or inconsistent file.

    Notes
    -----
    An hdf5 file can hold pickled objects, which run code when read: open only files you trust.
    """
    frames: list[pd.DataFrame] = []
    for system, path in _files(source):
        if system.size(path) == 0:
            raise DataValidationError(f"{path} is empty; give a file with a header and rows")
        frame = _read_one(system, path, frozenset(text_columns), list(missing_markers))
        frame.columns = frame.columns.map(str)
        twice = frame.columns[frame.columns.duplicated()].unique()
        if len(twice):
            raise DataValidationError(
                f"{path} has duplicated column names: {listed(twice)}; rename them"
            )
        if frames and set(frame.columns) != set(frames[0].columns):
            differing = set(frame.columns) ^ set(frames[0].columns)
            raise DataValidationError(
                f"{path} has other columns than the first file of {source}: "
                f"{listed(sorted(differing))}; read files of one shape at a time"
            )
        frames.append(frame)
    table = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    if table.empty:
        raise DataValidationError(f"{source} has no rows; give a table with rows")
    return table


def write_table(frame: pd.DataFrame, target: str) -> str:
    """Write `frame` as parquet or csv, by the suffix of `target`; all of it or nothing.

    Returns
    -------
    str
        `target`.
    """
    file_format = _format(target)
    if file_format not in ("csv", "parquet"):
        raise DataValidationError(f"{target}: tables are written as .csv or .parquet")
    system, path = fsspec.core.url_to_fs(target)
    parent = str(PurePosixPath(path).parent)
    system.makedirs(parent, exist_ok=True)
    partial = f"{path}.partial"
    with system.open(partial, "wb") as stream:
        if file_format == "csv":
            frame.to_csv(stream, index=False)
        else:
            frame.to_parquet(stream, index=False)
    system.mv(partial, path)
    return target


def content_digest(frame: pd.DataFrame) -> str:
    """sha256 of a table's names and values, in row order, whatever file it came from.

    Every row and type counts (mlflow's own digest reads the first 10,000 rows and skips dates).
    The order of the columns does not.
    """
    ordered = frame[sorted(frame.columns)]
    table = pa.Table.from_pandas(ordered, preserve_index=False).replace_schema_metadata(None)
    canonical = pa.schema([(item.name, _canonical(item.type)) for item in table.schema])
    table = table.cast(canonical).combine_chunks()
    digest = hashlib.sha256()
    with pyarrow.ipc.new_stream(_HashSink(digest.update), table.schema) as writer:
        writer.write_table(table)
    return digest.hexdigest()


class _HashSink:
    """The least file that pyarrow writes to: it hands every buffer on and keeps none."""

    closed = False

    def __init__(self, update: Callable[[Any], None]) -> None:
        self.write = update

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _canonical(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _canonical(kind.value_type)
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return pa.int64()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ns", kind.tz)
    return kind


def _suffixes(path: str) -> tuple[str, str | None]:
    """The format suffix and the compression suffix of a path."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSIONS else None
    return (suffixes[-1] if suffixes else ""), packed


def _format(path: str) -> str:
    suffix, _ = _suffixes(path)
    if suffix not in FORMATS:
        raise DataValidationError(
            f"{path}: the format is told by the suffix; use one of {', '.join(sorted(FORMATS))}"
        )
    return FORMATS[suffix]


def _files(source: str) -> Iterator[tuple[Any, str]]:
    if not source:
        raise DataValidationError("no data was named; give a path, a glob or a URL")
    try:
        system, path = fsspec.core.url_to_fs(source)
    except (ValueError, ImportError) as error:
        raise DataValidationError(
            f"{source}: this kind of URL cannot be read ({error}); "
            "install its fsspec driver or give a path"
        ) from error
    if system.isdir(path):
        raise DataValidationError(f"{source} is a folder; name its files, as in {source}/*.parquet")
    if any(mark in path for mark in "*?["):
        paths = sorted(system.glob(path))
    else:
        paths = [path] if system.exists(path) else []
    if not paths:
        raise DataValidationError(f"{source}: no such file; check the path")
    return ((system, item) for item in paths)


def _read_one(
    system: Any, path: str, text_columns: frozenset[str], markers: list[str]
) -> pd.DataFrame:
    file_format = _format(path)
    if file_format == "hdf5":
        return _read_hdf5(system, path)
    packed = _COMPRESSIONS.get(_suffixes(path)[1] or "")
    try:
        with system.open(path, "rb", compression=packed) as stream:
            if file_format == "csv":
                return _read_csv(stream, text_columns, markers)
            if file_format == "parquet":
                return _read_parquet(stream)
            return _read_json(stream, lines=file_format == "jsonl")
    except (ValueError, TypeError, OSError, EOFError, pa.ArrowException) as error:
        # The parsers' own texts quote the data, which is patients' data: name the kind only.
        raise DataValidationError(
            f"{path} cannot be read as {file_format} ({type(error).__name__}); "
            "check that it is whole and of the format its suffix says"
        ) from error


def _read_csv(stream: IO[bytes], text_columns: frozenset[str], markers: list[str]) -> pd.DataFrame:
    options: dict[str, Any] = {
        "na_values": markers,
        "keep_default_na": False,
        "low_memory": False,
    }
    names = pd.read_csv(stream, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
    stream.seek(0)
    frame = pd.read_csv(stream, dtype=dict.fromkeys(text_columns & set(names), str), **options)
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError("rows with more fields than the header")
    frame.columns = pd.Index(names)  # pandas renames the second "a" to "a.1"
    return frame


def _read_parquet(stream: IO[bytes]) -> pd.DataFrame:
    return pyarrow.parquet.ParquetFile(stream).read().to_pandas()


def _read_json(stream: IO[bytes], lines: bool) -> pd.DataFrame:
    if lines:
        return pd.DataFrame([json.loads(line) for line in stream if line.strip()])
    return pd.DataFrame(json.load(stream))


def _read_hdf5(system: Any, path: str) -> pd.DataFrame:
    try:
        import tables as pytables
    except ImportError as error:
        raise DataValidationError(
            "hdf5 needs one more package: pip install 'tsclust-model[hdf5]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        local = f"{folder}/table.h5"
        system.get(path, local)
        try:
            frame = pd.read_hdf(local)
        except (ValueError, TypeError, KeyError, OSError, pytables.HDF5ExtError) as error:
            raise DataValidationError(
                f"{path} cannot be read as hdf5 ({type(error).__name__}); "
                "it must hold exactly one pandas table"
            ) from error
    if not isinstance(frame, pd.DataFrame):
        raise DataValidationError(f"{path} holds a series; store a DataFrame")
    return frame
