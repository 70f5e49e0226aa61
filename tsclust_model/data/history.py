"""Batches as they came in: content-addressed parquet files in one folder.

A batch is one file, ``<sequence>.<rows>.<hash>.<version id>.parquet``, written beside its place,
flushed to disk and renamed, so that a kill leaves a whole file or none. The hash is of the content;
a file whose content is another is set aside and never read. Labels that come later lie in a file of
the same form with the suffix ``.outcomes``, and are joined when the batch is read. A further name
of a version is a file ``<name>.alias`` that holds the version's id.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from tsclust_model.config import NAME_CHARACTERS, NAME_PATTERN
from tsclust_model.data.tables import content_digest
from tsclust_model.data.window import Window
from tsclust_model.errors import ConfigurationError, DataValidationError, listed
from tsclust_model.shown import one_line

_FILE = re.compile(r"(\d{8})\.(\d+)\.([0-9a-f]{16,128})\.(.+)\.parquet")

_ALIAS = ".alias"

_ASIDE = "corrupt"

_OUTCOMES = ".outcomes"

_ID_LENGTH = 16


@one_line
@dataclass(frozen=True)
class _Content:
    """A file's rows, when they were registered, and where they stood in the batch at first."""

    frame: pd.DataFrame
    registered_at: str
    positions: np.ndarray


@dataclass(frozen=True)
class _Entry:
    path: Path
    sequence: int
    n_rows: int
    digest: str
    version_id: str


class DataVersioner:
    """Versions of a growing table.

    Parameters
    ----------
    base_dir : path
        Folder of the versions; made when the first one is registered.
    hash_algorithm : str
        Of `hashlib`; one for all versions of a folder.

    Raises
    ------
    ConfigurationError
        There is no such algorithm, or the folder's versions have another one.

    Examples
    --------
    >>> import tempfile, pandas as pd
    >>> history = DataVersioner(tempfile.mkdtemp())
    >>> batch = pd.DataFrame({"age": [31.0, 64.0]})
    >>> history.register(batch) == history.register(batch.copy())
    True
    >>> len(history.list_versions())
    1
    """

    def __init__(self, base_dir: str | Path, hash_algorithm: str = "sha256") -> None:
        self.base_dir = Path(base_dir)
        self.hash_algorithm = hash_algorithm
        check_hash_algorithm(hash_algorithm)
        self._require_algorithm(next(filter(None, map(_algorithm, self._files())), hash_algorithm))

    def register(self, df: pd.DataFrame, version_id: str | None = None) -> str:
        """Keep a batch; the same content a second time is the version it already is.

        Parameters
        ----------
        df : DataFrame
            Column names are strings; the index is not kept.
        version_id : str, optional
            1 to 64 characters of A-Z a-z 0-9 . _ - without ``..``; default: the start of the
            content's hash. For content that is there under another id it is a further name: every
            method takes it, and `list_versions` has the content once, under its first id.

        Returns
        -------
        str
            The version's (first) id.

        Raises
        ------
        DataValidationError
            An empty table, an impossible id, or an id that other content already has.
        """
        return self.registered(df, version_id)[0]

    def registered(self, df: pd.DataFrame, version_id: str | None = None) -> tuple[str, bool]:
        """As `register`, and whether the content is new to the folder."""
        if df.empty:
            raise DataValidationError("an empty batch cannot be registered; give rows")
        digest = content_digest(df, self.hash_algorithm)
        entries = self._entries()
        holder = next((entry.version_id for entry in entries if entry.digest == digest), None)
        if holder is not None and version_id in (None, holder):
            return holder, False
        ids = {entry.version_id for entry in entries}
        aliases = {name: held for name, held in self._aliases().items() if held in ids}
        taken = ids | set(aliases)
        free = (digest[:n] for n in (_ID_LENGTH, 2 * _ID_LENGTH) if digest[:n] not in taken)
        name = next(free, digest) if version_id is None else _checked_id(version_id)
        if name in taken and (holder is None or aliases.get(name) != holder):
            raise DataValidationError(
                f"version '{name}' holds other content; choose another version_id"
            )
        if holder is not None:
            self._write_alias(name, holder)
            return holder, False
        sequence = 1 + max((entry.sequence for entry in entries), default=0)
        self._write(df, sequence, digest, name)
        return name, True

    def list_versions(self) -> list[str]:
        """Ids of all versions, newest first."""
        return [entry.version_id for entry in reversed(self._entries())]

    def get_latest_version(self) -> str | None:
        """Id of the newest version, or None."""
        return next(iter(self.list_versions()), None)

    def load(self, version_id: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """A version's rows, with the labels that came later, and what is known of it.

        Returns
        -------
        df : DataFrame
        metadata : dict
            ``version_id`` (as `list_versions` has it), ``hash``, ``n_rows``, ``registered_at``
            (ISO 8601, UTC).

        Raises
        ------
        DataValidationError
            There is no such version, or its file was changed (it is set aside with a warning).
        """
        entry = self._entry(version_id)
        content = self._read(entry)
        if content is None:
            raise DataValidationError(
                f"version '{version_id}' was changed on disk and set aside; register it again"
            )
        return self._with_outcomes(content.frame, entry.version_id), {
            "version_id": entry.version_id,
            "hash": entry.digest,
            "n_rows": entry.n_rows,
            "registered_at": content.registered_at,
        }

    def record_outcomes(self, version_id: str, outcomes: Mapping[str, np.ndarray]) -> None:
        """Keep labels that came later than their batch; a second call replaces them.

        Parameters
        ----------
        version_id : str
        outcomes : mapping of str to array, shape (n_rows,)
            Columns to add to the version; NaN is not known yet.
        """
        entry = self._entry(version_id)
        frame = pd.DataFrame({name: np.asarray(values) for name, values in outcomes.items()})
        if len(frame) != entry.n_rows:
            raise DataValidationError(
                f"{len(frame)} outcomes for the {entry.n_rows} rows of version '{version_id}'; "
                "give one a row"
            )
        before = self._outcome_entries(entry.version_id)
        sequence = 1 + max((found.sequence for found in before), default=0)
        digest = content_digest(frame, self.hash_algorithm)
        self._write(frame, sequence, digest, entry.version_id + _OUTCOMES)
        for found in before:
            found.path.unlink(missing_ok=True)

    def sequence(self, version_id: str) -> int:
        """Number of a version; a later one has a higher number."""
        return self._entry(version_id).sequence

    def window(self, n_rows: int, target: str, since: int = 0) -> Window:
        """The newest `n_rows` rows that have a target, oldest first; a version may be cut.

        Parameters
        ----------
        n_rows : int
        target : str
            Rows in which this column is missing are not labelled yet.
        since : int
            The lowest `sequence` that counts; versions before it belong to an older table.
        """
        frames: list[pd.DataFrame] = []
        origins: list[tuple[str, np.ndarray]] = []
        missing = n_rows
        for entry in reversed(self._entries()):
            if missing <= 0 or entry.sequence < since:
                break
            content = self._read(entry)
            if content is None:
                continue
            frame = self._with_outcomes(content.frame, entry.version_id)
            if target not in frame:
                continue
            known = np.flatnonzero(frame[target].notna())[-missing:]
            if known.size:
                frames.append(frame.iloc[known])
                origins.append((entry.version_id, content.positions[known]))
                missing -= known.size
        if not frames:
            return Window(pd.DataFrame(), np.empty(0, dtype=object), np.empty(0, dtype=np.int64))
        versions = [np.full(len(rows), name, dtype=object) for name, rows in origins[::-1]]
        return Window(
            pd.concat(frames[::-1], ignore_index=True),
            np.concatenate(versions),
            np.concatenate([rows for _, rows in origins[::-1]]),
            full=missing <= 0,
        )

    def has_lost(self, version_id: str, start: int, stop: int, target: str) -> bool:
        """Whether the rows ``[start, stop)`` of a version, or all of their labels, are gone.

        What a purge has removed is not lost.

        Parameters
        ----------
        version_id : str
        start, stop : int
            Positions when the version was registered.
        target : str
            Column of the labels.
        """
        entry = next((e for e in self._entries() if e.version_id == version_id), None)
        if entry is None:
            return not self._purged(version_id).exists()
        content = self._read(entry)
        if content is None:
            return True
        inside = (content.positions >= start) & (content.positions < stop)
        if not inside.any():
            return False
        frame = self._with_outcomes(content.frame, version_id)
        return target not in frame or not frame[target].notna().to_numpy()[inside].any()

    def purge(
        self,
        ids: Collection[Any] | None = None,
        before: str | None = None,
        id_column: str | None = None,
    ) -> dict[str, int]:
        """Remove patients' rows, or every version registered before a time.

        Parameters
        ----------
        ids : collection, optional
            Values of `id_column` whose rows go.
        before : str, optional
            ISO 8601 time; older versions go whole.
        id_column : str, optional
            Needed with `ids`.

        Returns
        -------
        dict of str to int
            Rows removed from each version. A version that keeps rows gets the same id and a new
            hash.

        Warns
        -----
        UserWarning
            A version without `id_column` cannot be searched; it is named.
        """
        if (ids is None) == (before is None):
            raise DataValidationError("purge takes either ids or before")
        if ids is not None and id_column is None:
            raise DataValidationError(
                "purge by ids needs id_column, the column that holds them; a model trained "
                "without id= has none, purge its history by before"
            )
        if isinstance(ids, str):
            raise DataValidationError("ids is one text; give a list of ids")
        limit = None if before is None else _utc(before)
        removed: dict[str, int] = {}
        # What killed writers left and what was set aside cannot be searched for patients.
        for leftover in (*self.base_dir.glob(".*.parquet.*"), *self.base_dir.glob(f"{_ASIDE}/*")):
            match = _FILE.fullmatch(leftover.name)
            if match:
                self._purged(match[4].removesuffix(_OUTCOMES)).touch()
            leftover.unlink(missing_ok=True)
        # Every file: also the copy of another one, which is not listed.
        copies = [e for e in self._files() if not e.version_id.endswith(_OUTCOMES)]
        for entry in sorted(copies, key=lambda e: (e.sequence, e.digest)):
            content = self._read(entry)
            if content is None:
                continue
            if limit is not None:
                registered_at = datetime.fromisoformat(content.registered_at)
                gone = np.full(entry.n_rows, registered_at < limit)
            elif id_column in content.frame:
                held = content.frame[id_column]
                numeric = pd.api.types.is_numeric_dtype(held)
                wanted = list(ids or ()) if numeric else list(map(str, ids or ()))
                gone = held.isin(wanted).to_numpy()
            else:
                warnings.warn(
                    f"version '{entry.version_id}' has no column '{id_column}': its "
                    f"{entry.n_rows} rows could not be searched; purge it by before",
                    stacklevel=2,
                )
                continue
            if gone.any():
                removed[entry.version_id] = max(int(gone.sum()), removed.get(entry.version_id, 0))
                self._keep(entry, content, ~gone)
        self._drop_aliases()
        return removed

    def take_over(self, other: DataVersioner, version_ids: Collection[str]) -> list[str]:
        """Copy versions of another folder, with their labels and numbers, into this empty one.

        Returns
        -------
        list of str
            Ids of those that were there; the folder is made whole or not at all.
        """
        wanted = [f for f in other._files() if f.version_id.removesuffix(_OUTCOMES) in version_ids]
        if not wanted:
            return []
        self.base_dir.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".taken-", dir=self.base_dir.parent))
        for entry in wanted:
            shutil.copy2(entry.path, partial / entry.path.name)
        try:
            partial.rename(self.base_dir)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
        return [i for i in self.list_versions() if i in version_ids]

    def _keep(self, entry: _Entry, content: _Content, kept: np.ndarray) -> None:
        """Rewrite a version with fewer rows (and its labels with it), or delete it."""
        outcomes = self._outcome_entries(entry.version_id)
        for found in [item for item in outcomes if item.n_rows == entry.n_rows][-1:]:
            labels = self._read(found)
            if labels is not None and kept.any():
                rest = labels.frame[kept].reset_index(drop=True)
                digest = content_digest(rest, self.hash_algorithm)
                self._write(rest, outcomes[-1].sequence + 1, digest, found.version_id)
        if kept.any():
            rest = content.frame[kept].reset_index(drop=True)
            digest = content_digest(rest, self.hash_algorithm)
            left = _Content(rest, content.registered_at, content.positions[kept])
            self._write(rest, entry.sequence, digest, entry.version_id, left)
        else:
            self._purged(entry.version_id).touch()
        n_kept = int(kept.sum())
        stale = [item for item in outcomes if not n_kept or item.n_rows != n_kept]
        for found in (*stale, entry):
            found.path.unlink(missing_ok=True)

    def _write(
        self,
        frame: pd.DataFrame,
        sequence: int,
        digest: str,
        name: str,
        left: _Content | None = None,
    ) -> None:
        self.base_dir.mkdir(parents=True, exist_ok=True)
        table = _arrow(frame)
        now = left.registered_at if left else datetime.now(UTC).isoformat(timespec="microseconds")
        metadata = (table.schema.metadata or {}) | {
            b"registered_at": now.encode(),
            b"hash_algorithm": self.hash_algorithm.encode(),
            b"seal": _seal(digest, now, self.hash_algorithm),
        }
        if left is not None:
            metadata[b"positions"] = left.positions.astype("<i8").tobytes()
        target = self.base_dir / f"{sequence:08d}.{len(frame)}.{digest}.{name}.parquet"
        with self._whole(target) as stream:
            pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), stream)

    @contextmanager
    def _whole(self, target: Path) -> Iterator[BinaryIO]:
        """A file that is there after the block, on the disk, or not at all."""
        partial = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}")
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
        folder = os.open(self.base_dir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write_alias(self, name: str, version_id: str) -> None:
        with self._whole(self.base_dir / f"{name}{_ALIAS}") as stream:
            stream.write(version_id.encode())

    def _aliases(self) -> dict[str, str]:
        """Further names and the version ids they stand for."""
        known: dict[str, str] = {}
        for path in self.base_dir.glob(f"[!.]*{_ALIAS}"):
            with contextlib.suppress(FileNotFoundError):  # a purge has just removed it
                known[path.name.removesuffix(_ALIAS)] = path.read_text()
        return known

    def _drop_aliases(self) -> None:
        """Forget the further names of versions that are gone."""
        listed = set(self.list_versions())
        for name, version_id in self._aliases().items():
            if version_id not in listed:
                (self.base_dir / f"{name}{_ALIAS}").unlink(missing_ok=True)

    def _files(self) -> Iterator[_Entry]:
        """Every whole file of the folder, batches and outcomes."""
        if not self.base_dir.is_dir():
            return
        with os.scandir(self.base_dir) as listing:
            items = list(listing)
        for item in items:
            match = _FILE.fullmatch(item.name)
            if match:
                sequence, n_rows, digest, name = match.groups()
                yield _Entry(Path(item.path), int(sequence), int(n_rows), digest, name)

    def _entries(self) -> list[_Entry]:
        """The versions, oldest first; content that two writers registered at once counts once."""
        found = (entry for entry in self._files() if not entry.version_id.endswith(_OUTCOMES))
        ordered = sorted(found, key=lambda entry: (entry.sequence, entry.digest))
        first: dict[str, _Entry] = {}
        for entry in ordered:
            first.setdefault(entry.digest, entry)
        # A purge that was killed leaves a version twice: the one with fewer rows counts.
        newest: dict[str, _Entry] = {}
        for entry in sorted(first.values(), key=lambda entry: entry.n_rows):
            newest.setdefault(entry.version_id, entry)
        return [entry for entry in first.values() if newest[entry.version_id] is entry]

    def _outcome_entries(self, version_id: str) -> list[_Entry]:
        name = version_id + _OUTCOMES
        found = [entry for entry in self._files() if entry.version_id == name]
        return sorted(found, key=lambda entry: entry.sequence)

    def _entry(self, version_id: str) -> _Entry:
        entries = {entry.version_id: entry for entry in self._entries()}
        if version_id not in entries:
            version_id = self._aliases().get(version_id, version_id)
        if version_id in entries:
            return entries[version_id]
        raise DataValidationError(f"there is no version '{version_id}'; see list_versions()")

    def _purged(self, version_id: str) -> Path:
        """The empty file that says that a version which is not there was purged, not lost."""
        return self.base_dir / f"{version_id}.purged"

    def _require_algorithm(self, kind: str) -> None:
        if kind != self.hash_algorithm:
            raise ConfigurationError(
                f"the versions of {self.base_dir} have hash_algorithm '{kind}', "
                f"not '{self.hash_algorithm}'; open them with it"
            )

    def _read(self, entry: _Entry) -> _Content | None:
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
                    return _Content(frame, registered_at, positions)
        except FileNotFoundError:
            raise  # another process has replaced it, which is no corruption
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            pass  # cut short or overwritten: the same as another content
        aside = self.base_dir / _ASIDE
        aside.mkdir(exist_ok=True)
        entry.path.replace(aside / entry.path.name)
        warnings.warn(
            f"{entry.path.name} was changed or cut short on disk; its {entry.n_rows} rows are set "
            f"aside in {aside} and not read",
            stacklevel=4,
        )
        return None

    def _with_outcomes(self, frame: pd.DataFrame, version_id: str) -> pd.DataFrame:
        while True:
            found = self._outcome_entries(version_id)
            try:
                for entry in [item for item in found if item.n_rows == len(frame)][-1:]:
                    outcomes = self._read(entry)
                    if outcomes is not None:
                        labels = outcomes.frame
                        frame = frame.assign(**{str(name): labels[name] for name in labels})
            except FileNotFoundError:
                continue  # newer labels have just replaced them
            return frame


def check_hash_algorithm(name: str) -> None:
    """Refuse a hash that `hashlib` does not have, or whose length is not its own.

    Raises
    ------
    ConfigurationError
    """
    try:
        length = hashlib.new(name).digest_size
    except (ValueError, TypeError):
        length = 0
    if not length:
        raise ConfigurationError(
            f"there is no hash_algorithm {str(name)!r} of fixed length; "
            "give one of hashlib, as sha256"
        )


def _algorithm(entry: _Entry) -> str | None:
    """The hash algorithm that a file was written with; None if it was changed or cut short."""
    try:
        known = pyarrow.parquet.read_schema(entry.path).metadata or {}
        kind = str(known[b"hash_algorithm"].decode())
        sealed = _seal(entry.digest, known[b"registered_at"].decode(), kind)
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    return kind if known[b"seal"] == sealed else None


def _checked_id(version_id: str) -> str:
    if not NAME_PATTERN.fullmatch(version_id) or version_id.endswith(_OUTCOMES):
        raise DataValidationError(
            f"version_id {version_id!r} cannot be used; give 1 to 64 characters of "
            f"{NAME_CHARACTERS}, and no {_OUTCOMES} at the end"
        )
    return version_id


def _utc(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataValidationError(
            "before is no ISO 8601 time; give one such as 2024-12-31T00:00:00+00:00"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


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
