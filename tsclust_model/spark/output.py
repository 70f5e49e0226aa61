"""A folder of parquet that is written whole: beside its place first, and resumed where it stopped.

``scored`` is made in ``scored.partial``, which holds a folder for each job of Spark. A job counts
once its rows have been counted, which ``_COUNTS`` says; what a job that failed has left is removed.
At the end the partitions are moved to their place. On a local disk, NFS or HDFS that is one rename
where the folder is new, and one for each partition where it is completed. An object store has no
rename: files are copied there one by one, and ``_SUCCESS`` comes last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tsclust_model.errors import DataValidationError
from tsclust_model.spark.source import Partition, is_hidden, partition_of, spark_path

MANIFEST, HISTORY = "_tsclust.json", "_tsclust_history.json"

_COUNTS = "_COUNTS"

_DONE = "_SUCCESS"

_SUFFIXES = (".csv", ".tsv", ".gz", ".bz2", ".xz", ".zip", ".json", ".xlsx")


class Output:
    """A folder that is written by jobs.

    Parameters
    ----------
    target : str
        Path or URL of the folder.
    about : mapping
        What must be the same where it is completed, as JSON: the model, its quantiles.

    Raises
    ------
    DataValidationError
        The folder is there and is not one of ours, or one of another model.
    """

    def __init__(self, target: str, about: Mapping[str, Any]) -> None:
        if target.lower().endswith(_SUFFIXES):
            raise DataValidationError(
                f"{target}: Spark writes a folder of parquet; name a folder, or take engine local"
            )
        self._system, self._target = fsspec.core.url_to_fs(target)
        self._staged = f"{self._target}.partial"
        self._url, self._about = f"{spark_path(target)}.partial", dict(about)
        if self._there(self._target) and self._read(f"{self._target}/{MANIFEST}") != self._about:
            raise DataValidationError(
                f"{target} exists and is not an output of this model and these options; "
                "name another folder, or remove it"
            )
        if self._there(self._staged) and self._read(self._manifest) != self._about:
            if not self._system.exists(self._manifest):
                raise DataValidationError(
                    f"{target}.partial exists and is not ours; remove it, or name another output"
                )
            self._system.rm(self._staged, recursive=True)  # of another model, never finished
        self._system.makedirs(self._staged, exist_ok=True)
        self._write(self._manifest, self._about)
        for job in self._jobs():
            if not self._system.exists(f"{job}/{_COUNTS}"):
                self._system.rm(job, recursive=True)

    @property
    def shared_files(self) -> list[str]:
        """Local files that every machine has to see; none on a URL."""
        return [self._manifest] if isinstance(self._system, LocalFileSystem) else []

    def done(self) -> set[Partition]:
        """Partitions that are there, in their place or beside it."""
        return {
            partition_of(folder)
            for base in (self._target, self._whole, *self._jobs())
            for folder in self._folders(base)
        }

    @contextmanager
    def job(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """A new folder for a job, and what is kept of it as JSON, which the block fills in.

        The job counts if the block ends without an error.
        """
        name = f"job-{len(self._jobs())}"
        kept: dict[str, Any] = {}
        try:
            yield f"{self._url}/{name}", kept
        except BaseException:
            if self._there(f"{self._staged}/{name}"):
                self._system.rm(f"{self._staged}/{name}", recursive=True)
            raise
        self._write(f"{self._staged}/{name}/{_COUNTS}", kept)

    def kept(self) -> list[dict[str, Any]]:
        """What was kept of each job that is whole."""
        return [self._read(f"{job}/{_COUNTS}") for job in self._jobs()]

    def finish(self, entry: Mapping[str, Any]) -> None:
        """Move everything to its place, and add an entry to the history of the folder."""
        is_new = not self._there(self._target)
        base = self._whole if is_new else self._target
        for job in self._jobs():
            for folder in self._folders(job):
                self._move(job, base, folder)
        self._system.makedirs(base, exist_ok=True)
        self._write(f"{base}/{MANIFEST}", self._about)
        self._write(f"{base}/{HISTORY}", [*(self._read(f"{base}/{HISTORY}") or []), entry])
        self._system.pipe_file(f"{base}/{_DONE}", b"")
        if is_new:
            self._system.mv(self._whole, self._target, recursive=True)
        self.drop()

    def drop(self) -> None:
        """Remove what is beside the folder."""
        self._system.rm(self._staged, recursive=True)

    @property
    def _manifest(self) -> str:
        return f"{self._staged}/{MANIFEST}"

    @property
    def _whole(self) -> str:
        return f"{self._staged}/whole"

    def _move(self, job: str, base: str, folder: str) -> None:
        source, place = f"{job}/{folder}".rstrip("/"), f"{base}/{folder}".rstrip("/")
        if folder and not self._system.exists(place):
            self._system.makedirs(str(PurePosixPath(place).parent), exist_ok=True)
            self._system.mv(source, place, recursive=True)
            return
        self._system.makedirs(place, exist_ok=True)
        for path in self._system.find(source):
            if not is_hidden(PurePosixPath(path).name):
                self._system.mv(path, f"{place}/{PurePosixPath(path).name}")

    def _jobs(self) -> list[str]:
        found = self._system.ls(self._staged, detail=False) if self._there(self._staged) else []
        return sorted(p.rstrip("/") for p in found if PurePosixPath(p).name.startswith("job-"))

    def _folders(self, base: str) -> list[str]:
        """Folders below `base` that hold files of parquet, relative; '' is `base` itself."""
        found = self._system.find(base) if self._there(base) else []
        names = [PurePosixPath(path).relative_to(base) for path in found]
        kept = {str(name.parent) for name in names if not is_hidden(str(name))}
        return sorted("" if folder == "." else folder for folder in kept)

    def _there(self, path: str) -> bool:
        self._system.invalidate_cache()
        return bool(self._system.exists(path))

    def _read(self, path: str) -> Any:
        if not self._system.exists(path):
            return None
        return json.loads(self._system.cat_file(path))

    def _write(self, path: str, content: Any) -> None:
        self._system.pipe_file(path, json.dumps(content).encode())
