"""Batches as they came in: content-addressed versions of a growing table in one folder."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import NAME_CHARACTERS, NAME_PATTERN
from tsclust_model.data.digest import content_digest
from tsclust_model.data.frames import as_pandas
from tsclust_model.data.version_files import OUTCOMES, Content, Entry, VersionFiles
from tsclust_model.data.window import Window
from tsclust_model.errors import DataValidationError

_ID_LENGTH = 16


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
        self._files = VersionFiles(self.base_dir, hash_algorithm)

    def register(self, df: pd.DataFrame, version_id: str | None = None) -> str:
        """Store a batch; content that is already stored keeps its version.

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
        df = as_pandas(df)
        if df.empty:
            raise DataValidationError("an empty batch cannot be registered; give rows")
        digest = content_digest(df, self.hash_algorithm)
        entries = self._files.versions()
        holder = next((entry.version_id for entry in entries if entry.digest == digest), None)
        if holder is not None and version_id in (None, holder):
            return holder, False
        ids = {entry.version_id for entry in entries}
        aliases = {name: held for name, held in self._files.aliases().items() if held in ids}
        taken = ids | set(aliases)
        free = (digest[:n] for n in (_ID_LENGTH, 2 * _ID_LENGTH) if digest[:n] not in taken)
        name = next(free, digest) if version_id is None else _checked_id(version_id)
        if name in taken and (holder is None or aliases.get(name) != holder):
            raise DataValidationError(
                f"version '{name}' holds other content; choose another version_id"
            )
        if holder is not None:
            self._files.write_alias(name, holder)
            return holder, False
        sequence = 1 + max((entry.sequence for entry in entries), default=0)
        self._files.write(df, sequence, name, digest=digest)
        return name, True

    def list_versions(self) -> list[str]:
        """Ids of all versions, newest first."""
        return [entry.version_id for entry in reversed(self._files.versions())]

    def get_latest_version(self) -> str | None:
        """Id of the newest version, or None."""
        return next(iter(self.list_versions()), None)

    def load(self, version_id: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """A version's rows with the labels that arrived later, and its metadata.

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
        entry = self._files.entry_of(version_id)
        content = self._files.read(entry)
        if content is None:
            raise DataValidationError(
                f"version '{version_id}' was changed on disk and set aside; register it again"
            )
        return self._files.with_outcomes(content.frame, entry.version_id), {
            "version_id": entry.version_id,
            "hash": entry.digest,
            "n_rows": entry.n_rows,
            "registered_at": content.registered_at,
        }

    def record_outcomes(self, version_id: str, outcomes: Mapping[str, np.ndarray]) -> None:
        """Store labels that arrived after their batch; a second call replaces them.

        Parameters
        ----------
        version_id : str
        outcomes : mapping of str to array, shape (n_rows,)
            Columns to add to the version; NaN is not known yet.
        """
        entry = self._files.entry_of(version_id)
        frame = pd.DataFrame({name: np.asarray(values) for name, values in outcomes.items()})
        if len(frame) != entry.n_rows:
            raise DataValidationError(
                f"{len(frame)} outcomes for the {entry.n_rows} rows of version '{version_id}'; "
                "give one a row"
            )
        before = self._files.outcomes(entry.version_id)
        sequence = 1 + max((older.sequence for older in before), default=0)
        self._files.write(frame, sequence, entry.version_id + OUTCOMES)
        for older in before:
            older.path.unlink(missing_ok=True)

    def sequence(self, version_id: str) -> int:
        """Number of a version; a later one has a higher number."""
        return self._files.entry_of(version_id).sequence

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
        for entry in reversed(self._files.versions()):
            if missing <= 0 or entry.sequence < since:
                break
            content = self._files.read(entry)
            if content is None:
                continue
            frame = self._files.with_outcomes(content.frame, entry.version_id)
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
        entry = next((e for e in self._files.versions() if e.version_id == version_id), None)
        if entry is None:
            return not self._files.purged(version_id).exists()
        content = self._files.read(entry)
        if content is None:
            return True
        inside = (content.positions >= start) & (content.positions < stop)
        if not inside.any():
            return False
        frame = self._files.with_outcomes(content.frame, version_id)
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
        _check_purge(ids, before, id_column)
        limit = None if before is None else _utc(before)
        removed: dict[str, int] = {}
        self._files.drop_leftovers()  # they cannot be searched for patients
        for entry in self._files.batches():
            content = self._files.read(entry)
            if content is None:
                continue
            if limit is not None:
                registered_at = datetime.fromisoformat(content.registered_at)
                gone = np.full(entry.n_rows, registered_at < limit)
            elif id_column in content.frame:
                gone = _holds(content.frame[id_column], ids or ())
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
        self._files.drop_aliases()
        return removed

    def take_over(self, other: DataVersioner, version_ids: Collection[str]) -> list[str]:
        """Copy versions of another folder, with their labels and numbers, into this empty one.

        Returns
        -------
        list of str
            Ids of those that were there; the folder is made whole or not at all.
        """
        wanted = [
            entry
            for entry in other._files.all()
            if entry.version_id.removesuffix(OUTCOMES) in version_ids
        ]
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

    def _keep(self, entry: Entry, content: Content, kept: np.ndarray) -> None:
        """Rewrite a version with fewer rows (and its labels with it), or delete it."""
        files, outcomes, n_kept = self._files, self._files.outcomes(entry.version_id), kept.sum()
        fitting = [item for item in outcomes if item.n_rows == entry.n_rows]
        labels = files.read(fitting[-1]) if fitting else None
        if labels is not None and n_kept:
            rest = labels.frame[kept].reset_index(drop=True)
            files.write(rest, outcomes[-1].sequence + 1, fitting[-1].version_id)
        if n_kept:
            rest = content.frame[kept].reset_index(drop=True)
            left = Content(rest, content.registered_at, content.positions[kept])
            files.write(rest, entry.sequence, entry.version_id, left=left)
        else:
            files.purged(entry.version_id).touch()
        stale = [item for item in outcomes if not n_kept or item.n_rows != n_kept]
        for item in (*stale, entry):
            item.path.unlink(missing_ok=True)


def _check_purge(ids: Any, before: str | None, id_column: str | None) -> None:
    if (ids is None) == (before is None):
        raise DataValidationError("purge takes either ids or before")
    if ids is not None and id_column is None:
        raise DataValidationError(
            "purge by ids needs id_column, the column that holds them; a model trained "
            "without id= has none, purge its history by before"
        )
    if isinstance(ids, str):
        raise DataValidationError("ids is one text; give a list of ids")


def _holds(column: pd.Series, ids: Collection[Any]) -> np.ndarray:
    """Mask of the rows that have one of the ids, shape (n,)."""
    are_numbers = pd.api.types.is_numeric_dtype(column)
    return column.isin(list(ids) if are_numbers else list(map(str, ids))).to_numpy()


def _checked_id(version_id: str) -> str:
    if not NAME_PATTERN.fullmatch(version_id) or version_id.endswith(OUTCOMES):
        raise DataValidationError(
            f"version_id {version_id!r} cannot be used; give 1 to 64 characters of "
            f"{NAME_CHARACTERS}, and no {OUTCOMES} at the end"
        )
    return version_id


def _utc(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataValidationError(
            "before is no ISO 8601 time; give one such as 2024-12-31T00:00:00+00:00"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
