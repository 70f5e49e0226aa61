"""Tables in and out: csv, parquet, json, xlsx and hdf5 from a path, a glob or an fsspec URL."""

from __future__ import annotations

import json
import lzma
import os
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from fsspec.compression import compr
from fsspec.implementations.local import LocalFileSystem

from tsclust_model.data.columns import MIXED, are_numbers, is_nested
from tsclust_model.data.delta import delta_version, read_delta
from tsclust_model.errors import DataValidationError, listed
from tsclust_model.files import whole_file

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".xlsx": "xlsx",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
}

_UNREADABLE = (
    ValueError,
    TypeError,
    OSError,
    EOFError,
    pa.ArrowException,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    pd.errors.ParserWarning,
)

_REMEDIES: dict[type, str] = {
    UnicodeDecodeError: "it is not UTF-8; save it as UTF-8",
    pd.errors.ParserWarning: "rows do not fit the header; separate by commas, decimals by points",
}

_DELIMITERS = (";", "\t", "|")
"""What separates the columns of a csv instead of a comma, if its header has no comma."""

_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+(,\d+)?([eE][+-]?\d+)?\s*")

_GROUPED = re.compile(r"\s*[+-]?[1-9]\d{0,2}([.,' ]\d{3})+([.,]\d+)?\s*")

_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip"}


def read_table(
    source: str,
    text_columns: Collection[str] = (),
    missing_markers: Collection[str] = ("",),
    *,
    file_format: str | None = None,
    cache_dir: str | None = None,
) -> pd.DataFrame:
    """One table of all the files that `source` names.

    Parameters
    ----------
    source : str
        A path, a glob (``data/*.parquet``) or an fsspec URL (``s3://bucket/key.csv``). The suffix
        tells the format; csv and json may be compressed (``.csv.gz``). Several files are read in
        the order of their names and must have the same columns. The columns of a csv are separated
        by commas or, as its header shows, by semicolons, tabs or bars; its decimals by points or
        commas. An xlsx holds one sheet with values. A folder of Delta Lake is read at its newest
        version, or at the one that its name ends in (``data/stays@v7``).
    text_columns : collection of str
        Columns a csv is not allowed to read as numbers ("007" stays "007").
    missing_markers : collection of str
        Texts of a csv that mean "missing".
    file_format : {'csv', 'json', 'parquet', 'xlsx', 'hdf5'}, optional
        What the files are, whatever their suffix says.
    cache_dir : str, optional
        Folder that keeps what comes from a URL; a file is fetched again when it has changed.

    Raises
    ------
    DataValidationError
        No such file, an unknown format, an empty, corrupt or inconsistent file.

    Notes
    -----
    An hdf5 file can hold pickled objects, which run code when read: open only files you trust.
    """
    if (delta := delta_version(source)) is not None:
        return _with_rows(read_delta(*delta), source)
    frames: list[pd.DataFrame] = []
    for system, path in _files(source, cache_dir):
        if system.size(path) == 0:
            raise DataValidationError(f"{path} is empty; give a file with a header and rows")
        frame = _read_one(system, path, frozenset(text_columns), list(missing_markers), file_format)
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
    return _with_rows(table, source)


def _with_rows(table: pd.DataFrame, source: str) -> pd.DataFrame:
    if table.empty:
        raise DataValidationError(f"{source} has no rows; give a table with rows")
    return table


def write_table(frame: pd.DataFrame, target: str) -> str:
    """Write `frame` as parquet, csv or tsv, by the suffix of `target`; all of it or nothing.

    Returns
    -------
    str
        `target`.
    """
    file_format = _format(target)
    if file_format not in ("csv", "parquet"):
        raise DataValidationError(f"{target}: tables are written as .csv, .tsv or .parquet")
    packed = _COMPRESSIONS.get(_suffixes(target)[1] or "")
    try:
        with (
            _whole(target) as file,
            compr[packed](file, mode="w") if packed else nullcontext(file) as stream,
        ):
            if file_format == "csv":
                tabs = _suffixes(target)[0] == ".tsv"
                frame.to_csv(stream, index=False, sep="\t" if tabs else ",")
            else:
                frame.to_parquet(stream, index=False)
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        # Arrow's own text quotes the data.
        raise DataValidationError(
            f"{target} cannot be written ({type(error).__name__}); check the folder, the space on "
            "the disk and that every column holds values of one type"
        ) from error
    return target


@contextmanager
def _whole(target: str) -> Iterator[IO[bytes]]:
    """The file of a path or URL, which is there after the block or as it was before."""
    system, path = fsspec.core.url_to_fs(target)
    if isinstance(system, LocalFileSystem):
        with whole_file(Path(path)) as file:
            yield file
        return
    partial = f"{path}.partial"
    try:
        system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        with system.open(partial, "wb") as file:
            yield file
        system.mv(partial, path)
    finally:
        if system.exists(partial):
            system.rm(partial)


def mixed_as_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns that mix numbers and texts (JSON has such) as texts, which can be kept in files."""
    mixed = [
        name
        for name in frame
        if frame[name].dtype == object
        and pd.api.types.infer_dtype(frame[name], skipna=True) in MIXED
        and not frame[name].map(is_nested).any()
    ]
    texts = {str(name): frame[name].map(str, na_action="ignore") for name in mixed}
    return frame.assign(**texts) if mixed else frame


def _suffixes(path: str) -> tuple[str, str | None]:
    """The format suffix and the compression suffix of a path."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSIONS else None
    return (suffixes[-1] if suffixes else ""), packed


def _format(path: str, asked: str | None = None) -> str:
    suffix, _ = _suffixes(path)
    if asked is not None and (asked != "json" or FORMATS.get(suffix) != "jsonl"):
        return asked
    if suffix not in FORMATS:
        raise DataValidationError(
            f"{path}: the format is told by the suffix; use one of {', '.join(sorted(FORMATS))}"
        )
    return FORMATS[suffix]


def _files(source: str, cache_dir: str | None = None) -> Iterator[tuple[Any, str]]:
    if not source:
        raise DataValidationError("no data was named; give a path, a glob or a URL")
    system, path = file_system(source, cache_dir)
    if system.isdir(path):
        raise DataValidationError(f"{source} is a folder; name its files, as in {source}/*.parquet")
    paths = [path] if system.exists(path) else sorted(system.glob(path))
    if not paths:
        raise DataValidationError(f"{source}: no such file; check the path{_absolute(source)}")
    return ((system, item) for item in paths)


def file_system(source: str, cache_dir: str | None = None) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path there; see `read_table`.

    Raises
    ------
    DataValidationError
        A kind of URL that has no driver here.
    """
    try:
        system, path = fsspec.core.url_to_fs(source)
        if cache_dir is not None and not isinstance(system, LocalFileSystem):
            cache = {"cache_storage": cache_dir, "check_files": True}
            system, path = fsspec.core.url_to_fs(f"filecache::{source}", filecache=cache)
    except (ValueError, ImportError) as error:
        raise DataValidationError(
            f"{source}: this kind of URL cannot be read ({error}); "
            "install its fsspec driver or give a path"
        ) from error
    return system, path


def _absolute(source: str) -> str:
    """Where a relative path was looked for; nothing for URLs and absolute paths."""
    if "://" in source or os.path.isabs(source):
        return ""
    return f" (looked for {os.path.abspath(source)})"


def _read_one(
    system: Any,
    path: str,
    text_columns: frozenset[str],
    markers: list[str],
    asked_format: str | None = None,
) -> pd.DataFrame:
    file_format = _format(path, asked_format)
    if file_format == "hdf5":
        return _read_hdf5(system, path)
    packed = _COMPRESSIONS.get(_suffixes(path)[1] or "")
    try:
        if packed == "zip":
            _require_one_file(system, path)
        with system.open(path, "rb", compression=packed) as stream:
            if file_format == "csv":
                return _read_csv(stream, text_columns, markers)
            if file_format == "xlsx":
                return _read_xlsx(stream, path, text_columns, markers)
            if file_format == "parquet":
                return _read_parquet(stream)
            return _read_json(stream, lines=file_format == "jsonl")
    except _UNREADABLE as error:
        # The parsers' own texts quote the data, which is patients' data: name the kind only.
        remedy = _REMEDIES.get(
            type(error), "check that it is whole and of the format its suffix says"
        )
        raise DataValidationError(
            f"{path} cannot be read as {file_format} ({type(error).__name__}); {remedy}"
        ) from error


def _require_one_file(system: Any, path: str) -> None:
    with system.open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
        n_files = len(archive.namelist())
    if n_files != 1:
        raise DataValidationError(f"{path} holds {n_files} files; pack one table an archive")


def _read_csv(stream: IO[bytes], text_columns: frozenset[str], markers: list[str]) -> pd.DataFrame:
    names, delimiter = _header(stream)
    if "" in names:
        raise DataValidationError(
            "the csv has a column without a name; name it, or write the file without its index"
        )
    strings: dict[str, type] = dict.fromkeys(text_columns & set(names), str)
    frame = _parsed(stream, delimiter, ".", strings, markers)
    frame.columns = pd.Index(names)  # pandas renames the second "a" to "a.1"
    decimals = _decimal_commas(frame, strings, delimiter)
    if not decimals:
        return frame
    again = _parsed(stream, delimiter, ",", strings, markers)
    again.columns = frame.columns
    # Only those columns: in the others a comma may be part of a name.
    return frame.assign(**{name: again[name] for name in decimals})


def _header(stream: IO[bytes]) -> tuple[list[str], str]:
    """The names of the columns and what separates them; the header decides."""
    names: list[str] = []
    for delimiter in (",", *_DELIMITERS):
        stream.seek(0)
        header = pd.read_csv(
            stream, header=None, nrows=1, dtype=str, keep_default_na=False, sep=delimiter
        )
        candidate = [str(name) for name in header.iloc[0]]
        if len(candidate) > 1:
            return candidate, delimiter
        names = names or candidate
    return names, ","


def _parsed(
    stream: IO[bytes], delimiter: str, decimal: str, strings: dict[str, type], markers: list[str]
) -> pd.DataFrame:
    stream.seek(0)
    with warnings.catch_warnings():
        # Rows longer than the header would lose their end, or shift every column.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            stream,
            sep=delimiter,
            decimal=decimal,
            dtype=strings,
            index_col=False,
            na_values=markers,
            keep_default_na=False,
            low_memory=False,
        )


def _decimal_commas(frame: pd.DataFrame, strings: Collection[str], delimiter: str) -> list[str]:
    """Columns whose strings are all numbers with a decimal comma.

    Raises
    ------
    DataValidationError
        Numbers with separated thousands. Between commas "1,234" may be one, and only the writer
        of the file knows; between semicolons it is a decimal comma.
    """
    decimals: list[str] = []
    grouped: list[str] = []
    for name in frame.columns[~frame.columns.duplicated()]:
        if name in strings or not pd.api.types.is_string_dtype(frame[name]):
            continue
        values = frame[name].dropna()
        commas = values[values.str.contains(",", regex=False)]
        are_decimals = values.str.fullmatch(_DECIMAL_COMMA.pattern)
        are_grouped = values.str.fullmatch(_GROUPED.pattern)
        plain = are_numbers(values)
        if not len(commas) or not (are_decimals | are_grouped | plain).all():
            continue
        unclear = delimiter == "," and bool(are_grouped[commas.index].all())
        (decimals if are_decimals.all() and not unclear else grouped).append(name)
    if grouped:
        raise DataValidationError(
            f"numbers with separated thousands in: {listed(grouped)}; write them without"
        )
    return decimals


def _read_xlsx(
    stream: IO[bytes], path: str, text_columns: frozenset[str], markers: list[str]
) -> pd.DataFrame:
    try:
        import openpyxl  # noqa: F401  # pandas asks for it
    except ImportError as error:
        raise DataValidationError(
            "xlsx needs one more package: pip install 'tsclust-model[excel]'"
        ) from error
    sheets = pd.read_excel(
        stream,
        sheet_name=None,
        dtype=dict.fromkeys(text_columns, str),
        na_values=markers,
        keep_default_na=False,
        engine="openpyxl",
    )
    filled = [sheet for sheet in sheets.values() if not sheet.empty]
    if len(filled) != 1:
        raise DataValidationError(
            f"{path} has {len(filled)} sheets with rows; keep one table in a workbook"
        )
    return filled[0]


def _read_parquet(stream: IO[bytes]) -> pd.DataFrame:
    return _with_index(pyarrow.parquet.ParquetFile(stream).read().to_pandas())


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The levels of a named index as columns: somebody's ``set_index("patient_id")``."""
    named = [name for name in frame.index.names if name is not None]
    return frame.reset_index(level=named) if named else frame


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
    return _with_index(frame)
