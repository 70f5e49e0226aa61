"""The files of a history: what their names say, how one is written, read and set aside.

A table is one file, ``<sequence>.<rows>.<hash>.<version id>.parquet``, there as a whole or not at
all. The hash is of the content; a file whose content is another is set aside and never read. Labels
that come later lie in a file of the same form with the suffix ``.outcomes``. A further name of a
version is a file ``<name>.alias`` that holds the version's id.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from tsclust_model.data.digest import content_digest
from tsclust_model.errors import ConfigurationError, DataValidationError, listed
from tsclust_model.files import whole_file, write_whole
from tsclust_model.shown import one_line

OUTCOMES = ".outcomes"

_FILE = re.compile(r"(\d{8})\.(\d+)\.([0-9a-f]{16,128})\.(.+)\.parquet")

_ALIAS, _ASIDE = ".alias", "corrupt"


@one_line
@dataclass(frozen=True)
class Content:
    """A file's rows, when they were registered, and where they stood in the batch at first."""

    frame: pd.DataFrame
    registered_at: str
    positions: np.ndarray


@dataclass(frozen=True)
class Entry:
    """A file and what its name says."""

    path: Path
    sequence: int
    n_rows: int
    digest: str
    version_id: str


class VersionFiles:
    """The files of one folder, which have one hash algorithm.

    Raises
    ------
    ConfigurationError
        There is no such algorithm, or the files have another one.
    """

    def __init__(self, folder: Path, hash_algorithm: str) -> None:
        self.folder = folder
        self.hash_algorithm = hash_algorithm
        check_hash_algorithm(hash_algorithm)
        self._require_algorithm(next(filter(None, map(_algorithm, self.all())), hash_algorithm))

    def all(self) -> Iterator[Entry]:
        """Every whole file, batches and outcomes."""
        if not self.folder.is_dir():
            return
        with os.scandir(self.folder) as listing:
            items = list(listing)
        for item in items:
            match = _FILE.fullmatch(item.name)
            if match:
                sequence, n_rows, digest, name = match.groups()
                yield Entry(Path(item.path), int(sequence), int(n_rows), digest, name)

    def batches(self) -> list[Entry]:
        """Every file of a batch, oldest first, also the copy of another one."""
        batches = [entry for entry in self.all() if not entry.version_id.endswith(OUTCOMES)]
        return sorted(batches, key=lambda entry: (entry.sequence, entry.digest))

    def versions(self) -> list[Entry]:
        """The versions, oldest first; content that two writers registered at once counts once."""
        first: dict[str, Entry] = {}
        for entry in self.batches():
            first.setdefault(entry.digest, entry)
        # A purge that was killed leaves a version twice: the one with fewer rows counts.
        newest: dict[str, Entry] = {}
        for entry in sorted(first.values(), key=lambda entry: entry.n_rows):
            newest.setdefault(entry.version_id, entry)
        return [entry for entry in first.values() if newest[entry.version_id] is entry]

    def outcomes(self, version_id: str) -> list[Entry]:
        """The labels of a version, oldest first; the newest count."""
        entries = [entry for entry in self.all() if entry.version_id == version_id + OUTCOMES]
        return sorted(entries, key=lambda entry: entry.sequence)

    def entry_of(self, version_id: str) -> Entry:
        """The version of an id or a further name; DataValidationError without one."""
        entries = {entry.version_id: entry for entry in self.versions()}
        if version_id not in entries:
            version_id = self.aliases().get(version_id, version_id)
        if version_id in entries:
            return entries[version_id]
        raise DataValidationError(f"there is no version '{version_id}'; see list_versions()")

    def aliases(self) -> dict[str, str]:
        """Further names and the version ids they stand for."""
        aliases: dict[str, str] = {}
        for path in self.folder.glob(f"[!.]*{_ALIAS}"):
            with contextlib.suppress(FileNotFoundError):  # a purge has just removed it
                aliases[path.name.removesuffix(_ALIAS)] = path.read_text()
        return aliases

    def write_alias(self, name: str, version_id: str) -> None:
        write_whole(self.folder / f"{name}{_ALIAS}", version_id)

    def drop_aliases(self) -> None:
        """Forget the further names of versions that are gone."""
        listed = {entry.version_id for entry in self.versions()}
        for name, version_id in self.aliases().items():
            if version_id not in listed:
                (self.folder / f"{name}{_ALIAS}").unlink(missing_ok=True)

    def purged(self, version_id: str) -> Path:
        """The empty file that says that a version which is not there was purged, not lost."""
        return self.folder / f"{version_id}.purged"

    def drop_leftovers(self) -> None:
        """Delete what killed writers left and what was set aside."""
        for leftover in (*self.folder.glob(".*.parquet.*"), *self.folder.glob(f"{_ASIDE}/*")):
            match = _FILE.fullmatch(leftover.name)
            if match:
                self.purged(match[4].removesuffix(OUTCOMES)).touch()
            leftover.unlink(missing_ok=True)

    def write(
        self,
        frame: pd.DataFrame,
        sequence: int,
        name: str,
        *,
        digest: str | None = None,
        left: Content | None = None,
    ) -> None:
        """Write a table; `left` is what a purge has left of the file it stands for."""
        digest = digest or content_digest(frame, self.hash_algorithm)
        table = _arrow(frame)
        now = left.registered_at if left else datetime.now(UTC).isoformat(timespec="microseconds")
        metadata = (table.schema.metadata or {}) | {
            b"registered_at": now.encode(),
            b"hash_algorithm": self.hash_algorithm.encode(),
            b"seal": _seal(digest, now, self.hash_algorithm),
        }
        if left is not None:
            metadata[b"positions"] = left.positions.astype("<i8").tobytes()
        target = self.folder / f"{sequence:08d}.{len(frame)}.{digest}.{name}.parquet"
        with whole_file(target) as stream:
            pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), stream)

    def read(self, entry: Entry) -> Content | None:
        """A file's content; None, and set aside, if it was changed."""
        try:
            table = pyarrow.parquet.ParquetFile(entry.path).read()
            known = table.schema.metadata or {}
            kind = known[b"hash_algorithm"].decode()
            registered_at = known[b"registered_at"].decode()
            if known[b"seal"] == _seal(entry.digest, registered_at, kind):
                self._require_algorithm(kind)
                frame = table.to_pandas()
                positions = np.arange(len(frame))
                if b"positions" in known:
                    positions = np.frombuffer(known[b"positions"], "<i8").astype(np.int64)
                if content_digest(frame, kind) == entry.digest and len(positions) == len(frame):
                    return Content(frame, registered_at, positions)
        except FileNotFoundError:
            raise  # another process has replaced it, which is no corruption
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            pass  # cut short or overwritten: the same as another content
        aside = self.folder / _ASIDE
        aside.mkdir(exist_ok=True)
        entry.path.replace(aside / entry.path.name)
        warnings.warn(
            f"{entry.path.name} was changed or cut short on disk; its {entry.n_rows} rows are set "
            f"aside in {aside} and not read",
            stacklevel=4,
        )
        return None

    def with_outcomes(self, frame: pd.DataFrame, version_id: str) -> pd.DataFrame:
        """A version's rows with the newest labels that fit them."""
        while True:
            entries = [e for e in self.outcomes(version_id) if e.n_rows == len(frame)]
            try:
                outcomes = self.read(entries[-1]) if entries else None
            except FileNotFoundError:
                continue  # newer labels have just replaced them
            if outcomes is None:
                return frame
            labels = outcomes.frame
            return frame.assign(**{str(name): labels[name] for name in labels})

    def _require_algorithm(self, kind: str) -> None:
        if kind != self.hash_algorithm:
            raise ConfigurationError(
                f"the versions of {self.folder} have hash_algorithm '{kind}', "
                f"not '{self.hash_algorithm}'; open them with it"
            )


def check_hash_algorithm(name: str) -> None:
    """Refuse a hash that `hashlib` does not have, or whose length is not its own."""
    try:
        length = hashlib.new(name).digest_size
    except (ValueError, TypeError):
        length = 0
    if not length:
        raise ConfigurationError(
            f"there is no hash_algorithm {str(name)!r} of fixed length; "
            "give one of hashlib, as sha256"
        )


def _algorithm(entry: Entry) -> str | None:
    """The hash algorithm that a file was written with; None if it was changed or cut short."""
    try:
        known = pyarrow.parquet.read_schema(entry.path).metadata or {}
        kind = str(known[b"hash_algorithm"].decode())
        sealed = _seal(entry.digest, known[b"registered_at"].decode(), kind)
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    return kind if known[b"seal"] == sealed else None


def _seal(digest: str, registered_at: str, algorithm: str) -> bytes:
    """What shows that a file's time or algorithm was changed."""
    return hashlib.sha256(f"{digest} {registered_at} {algorithm}".encode()).hexdigest().encode()


def _arrow(frame: pd.DataFrame) -> pa.Table:
    with warnings.catch_warnings():
        # pyarrow 25 reads time zones in a way that pandas 3 calls outdated.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return pa.Table.from_pandas(frame, preserve_index=False)
        except pa.ArrowException:
            mixed = [name for name in frame if _refused(frame[name])]
    # Without "from": Arrow's own text quotes the data.
    raise DataValidationError(
        f"columns of mixed types cannot be kept: {listed(mixed)}; give each values of one type"
    )


def _refused(column: pd.Series) -> bool:
    try:
        pa.Array.from_pandas(column)
    except pa.ArrowException:
        return True
    return False
