"""What Spark reads: a folder of parquet, or a table of its catalog, by partitions.

A *partition* is a folder of files below the one that is named (``month=2026-01/ward=a``), as the
values of its columns, strings or None; a folder without such ones is a single partition, ``()``.
Files may differ in their columns, the order of these and their types: files of equal columns are
read together.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # its name in the docs of Spark

from tsclust_model.data.tables import file_system
from tsclust_model.errors import DataValidationError, listed
from tsclust_model.shown import one_line

Partition = tuple[str | None, ...]

_NULL = "__HIVE_DEFAULT_PARTITION__"

_READERS = 16


class Source(Protocol):
    """A table that is read by partitions.

    Attributes
    ----------
    partition_by : tuple of str
        Columns of its partitions.
    partitions : list of Partition
        Those that hold rows.
    columns : list of str
        All columns, those of the partitions too.
    n_rows : dict of Partition to int, or None
        None where counting them would read the table.
    """

    partition_by: tuple[str, ...]
    partitions: list[Partition]
    columns: list[str]

    @property
    def n_rows(self) -> Mapping[Partition, int] | None: ...

    def empty_tables(self) -> Iterator[tuple[str, pa.Table]]:
        """A name and a table without rows for each set of columns and types."""

    def read(self, partitions: Collection[Partition], names: Sequence[str]) -> list[DataFrame]:
        """Those of the columns `names` that are there, one table for each set of types."""


def open_source(spark: SparkSession, data: str) -> Source:
    """The folder, file or table that `data` names.

    Raises
    ------
    DataValidationError
        There is no such folder or table, or a file cannot be read as parquet.
    """
    if "://" not in data and not os.path.exists(data) and "/" not in data:
        if data and spark.catalog.tableExists(data):
            return Table(spark, data)
        raise DataValidationError(
            f"{data}: no such folder, and Spark knows no table of this name; check the path"
            f" (looked for {os.path.abspath(data)})"
        )
    return Folder(spark, data)


@one_line
@dataclass(frozen=True)
class _File:
    """A file of parquet, `path` relative to its folder."""

    path: str
    n_rows: int
    columns: pa.Schema

    @property
    def folder(self) -> str:
        folder = str(PurePosixPath(self.path).parent)
        return "" if folder == "." else folder


class Folder:
    """A folder of parquet files, or one file; see `Source`.

    What a file holds is read from its footer, which has no rows.
    """

    def __init__(self, spark: SparkSession, data: str) -> None:
        self._spark, self._root = spark, spark_path(data)
        files = [file for file in _files(data) if file.n_rows]
        if not files:
            raise DataValidationError(f"{data} has no rows; give a table with rows")
        shapes = {tuple(name for name, _ in _levels(file.folder)) for file in files}
        if len(shapes) > 1:
            raise DataValidationError(
                f"{data} has files in folders of different levels: "
                f"{listed(sorted('/'.join(shape) or 'none' for shape in shapes))}; "
                "partition all of them by the same columns"
            )
        (self.partition_by,) = shapes
        self._files: dict[Partition, list[_File]] = {}
        for file in files:
            self._files.setdefault(partition_of(file.folder), []).append(file)
        self.partitions = list(self._files)
        self.n_rows = {key: sum(f.n_rows for f in own) for key, own in self._files.items()}
        seen = dict.fromkeys(name for file in files for name in file.columns.names)
        self.columns = [*seen, *(name for name in self.partition_by if name not in seen)]

    def empty_tables(self) -> Iterator[tuple[str, pa.Table]]:
        for files in self._by_columns(self.partitions, self.columns):
            yield files[0].path or self._root, files[0].columns.empty_table()

    def read(self, partitions: Collection[Partition], names: Sequence[str]) -> list[DataFrame]:
        tables = []
        for files in self._by_columns(partitions, names):
            is_alone = files[0].path == ""
            paths = [self._root if is_alone else f"{self._root}/{file.path}" for file in files]
            reader = (
                self._spark.read if is_alone else self._spark.read.option("basePath", self._root)
            )
            there = {*files[0].columns.names, *self.partition_by}
            columns = [_as_times(files[0].columns, name) for name in names if name in there]
            tables.append(reader.parquet(*paths).select(*columns))
        return tables

    def _by_columns(
        self, partitions: Collection[Partition], names: Sequence[str]
    ) -> list[list[_File]]:
        """Files of the partitions, together where the columns have the same types."""
        together: dict[frozenset[tuple[str, str]], list[_File]] = {}
        for key in partitions:
            for file in self._files[key]:
                types = {(f.name, str(f.type)) for f in file.columns if f.name in names}
                together.setdefault(frozenset(types), []).append(file)
        return list(together.values())


class Table:
    """A table of the catalog; see `Source`."""

    n_rows = None

    def __init__(self, spark: SparkSession, name: str) -> None:
        self._table = spark.table(name)
        self._name, self.columns = name, self._table.columns
        known = spark.catalog.listColumns(name)
        self.partition_by = tuple(column.name for column in known if column.isPartition)
        self.partitions: list[Partition] = [()]
        if self.partition_by:
            rows = self._table.select(*map(_as_string, self.partition_by)).distinct().collect()
            self.partitions = [tuple(row) for row in rows]
        if self._table.isEmpty():
            raise DataValidationError(f"{name} has no rows; give a table with rows")

    def empty_tables(self) -> Iterator[tuple[str, pa.Table]]:
        yield self._name, self._table.limit(0).toArrow()

    def read(self, partitions: Collection[Partition], names: Sequence[str]) -> list[DataFrame]:
        table = self._table
        if self.partition_by and len(partitions) < len(self.partitions):
            chosen = F.lit(False)
            for key in partitions:
                one = F.lit(True)
                for name, value in zip(self.partition_by, key, strict=True):
                    one &= _as_string(name).eqNullSafe(F.lit(value))
                chosen |= one
            table = table.where(chosen)
        return [table.select(*(quoted(name) for name in names if name in self.columns))]


def quoted(name: str) -> Column:
    """A column by its name, whatever characters it has."""
    return F.col(_quoted(name))


def partition_of(folder: str) -> Partition:
    """The values that a folder stands for: ``month=1/ward=a`` is ``("1", "a")``."""
    return tuple(value for _, value in _levels(folder))


def spark_path(path: str) -> str:
    """A path as Spark takes it: local ones from the root, URLs as they are."""
    system, plain = fsspec.core.url_to_fs(path)
    return f"file://{plain}" if isinstance(system, LocalFileSystem) else path.rstrip("/")


def is_hidden(path: str) -> bool:
    """Whether Spark passes a file over: ``_SUCCESS``, ``.part-0.crc`` ..."""
    return any(part[0] in "._" and "=" not in part for part in PurePosixPath(path).parts)


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _levels(folder: str) -> list[tuple[str, str | None]]:
    """Column and value of each level of a folder; a level without a ``=`` is no partition."""
    pairs = [part.partition("=") for part in PurePosixPath(folder).parts if "=" in part]
    return [(unquote(n), None if v == _NULL else unquote(v)) for n, _, v in pairs]


def _as_string(name: str) -> Column:
    return quoted(name).cast("string").alias(name)


def _as_times(columns: pa.Schema, name: str) -> Column:
    """The column; nanoseconds, which Spark reads as numbers, as times."""
    kind = columns.field(name).type if name in columns.names else None
    if kind is None or not pa.types.is_timestamp(kind) or kind.unit != "ns":
        return quoted(name)
    micros = F.expr(f"timestamp_micros({_quoted(name)} div 1000)")
    return (micros if kind.tz else micros.cast("timestamp_ntz")).alias(name)


def _files(data: str) -> list[_File]:
    """The files of a folder with what their footers say, in the order of their names."""
    system, root = file_system(data)
    if system.isfile(root):
        return [_footer(system, root, "")]
    found = sorted(system.find(root)) if system.exists(root) else []
    names = [str(PurePosixPath(path).relative_to(root)) for path in found]
    wanted = [name for name in names if not is_hidden(name)]
    if not wanted:
        problem = "no such folder" if not found else "the folder holds no file of parquet"
        raise DataValidationError(f"{data}: {problem}; check the path")
    with ThreadPoolExecutor(_READERS) as threads:
        return list(threads.map(lambda name: _footer(system, f"{root}/{name}", name), wanted))


def _footer(system: Any, path: str, name: str) -> _File:
    try:
        with system.open(path, "rb") as stream:
            file = pq.ParquetFile(stream)
            columns = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataValidationError(
            f"{path} cannot be read as parquet ({type(error).__name__}); the folder may hold whole "
            "files of parquet only"
        ) from error
    names = columns.names
    twice = {column for column in names if names.count(column) > 1}
    if twice:
        raise DataValidationError(
            f"{path} has duplicated column names: {listed(sorted(twice))}; rename them"
        )
    return _File(name, file.metadata.num_rows, columns)
