"""Which rows a model was fitted on, as salted hashes: an evaluation must know them.

A row counts as fitted on if a fitted row has its features and target (to the seven digits of a
float32, so that a csv, a parquet file and whole numbers agree) and, where both have an id or a
time, that too. Without them a new row that equals a fitted one cannot be told from it and counts as
fitted on, which never flatters. Of series the last fitted period of each is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.shown import one_line

MOST_ROWS = 5_000_000
"""Of more rows no hashes are kept: they take 8 bytes a row, and 16 with an id or a time."""

_SALT_BYTES = 16

_NO_KEY = b"\0"

_WHOLE = re.compile(r"0*(\d+)(\.0+)?")


@one_line
@dataclass(frozen=True)
class FittedRows:
    """Hashes of the rows a model was fitted on.

    `contents` (uint64, sorted) are of the `columns` (features and target, sorted), `keyed` of these
    and of the `keys` (id and time, where the table has them). The `salt` is the model's own: equal
    rows of two models have other hashes.
    """

    salt: bytes
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    contents: np.ndarray
    keyed: np.ndarray

    @classmethod
    def of(
        cls, rows: pd.DataFrame, columns: Iterable[str], keys: Iterable[str | None], seed: bytes
    ) -> FittedRows:
        """The hashes of a table as `canonical_rows` makes it; it may lack a key.

        `columns` are features and target, `keys` id and time; the salt is drawn from `seed`, so
        that the same data and seed give the same model.
        """
        salt = hashlib.blake2b(seed, digest_size=_SALT_BYTES).digest()
        columns = tuple(sorted(columns))
        known = tuple(name for name in keys if name is not None and name in rows)
        contents = _hashes(_records(rows, columns), salt)
        keyed = np.empty(0, dtype=np.uint64)
        if known:
            keyed = _hashes(_with_keys(contents, _key_records(rows, known)), salt)
        return cls(salt, columns, known, np.unique(contents), np.unique(keyed))

    def contains(self, rows: pd.DataFrame) -> np.ndarray:
        """Whether the model was fitted on each of some canonical rows, shape (n,).

        A row whose id or time is missing is compared by its features and target alone.
        """
        contents = _hashes(_records(rows, self.columns), self.salt)
        fitted = np.isin(contents, self.contents)
        if self.keys and all(name in rows for name in self.keys):
            complete = rows[list(self.keys)].notna().all(axis=1).to_numpy()
            asked = np.flatnonzero(fitted & complete)
            records = _key_records(rows.iloc[asked], self.keys)
            keyed = _hashes(_with_keys(contents[asked], records), self.salt)
            fitted[asked] = np.isin(keyed, self.keyed)
        return fitted

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {
            "salt": np.frombuffer(self.salt, dtype=np.uint8),
            "columns": np.array(self.columns, dtype=str),
            "keys": np.array(self.keys, dtype=str),
            "contents": self.contents,
            "keyed": self.keyed,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> FittedRows:
        return cls(
            arrays["salt"].tobytes(),
            tuple(arrays["columns"].tolist()),
            tuple(arrays["keys"].tolist()),
            arrays["contents"],
            arrays["keyed"],
        )


@one_line
@dataclass(frozen=True)
class FittedPeriods:
    """The last period of each series that a model was fitted on.

    `ids` (uint64, sorted) are hashes of the ids, `last` (int64) the number of the last fitted
    period of each (see `Frequency.ordinals`).
    """

    salt: bytes
    ids: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[Any], last: np.ndarray, seed: bytes) -> FittedPeriods:
        """Of series and their last periods, shape (n,); see `FittedRows.of` for the seed."""
        salt = hashlib.blake2b(seed, digest_size=_SALT_BYTES).digest()
        hashes = _hashes([str(name).encode() for name in ids], salt)
        order = np.argsort(hashes)
        return cls(salt, hashes[order], np.asarray(last, dtype=np.int64)[order])

    def last_of(self, ids: Sequence[Any]) -> np.ndarray:
        """The last fitted period of each series, shape (n,); of an unknown one the lowest int64."""
        hashes = _hashes([str(name).encode() for name in ids], self.salt)
        never = np.full(len(hashes), np.iinfo(np.int64).min)
        if not len(self.ids):
            return never
        places = np.minimum(np.searchsorted(self.ids, hashes), len(self.ids) - 1)
        return np.where(self.ids[places] == hashes, self.last[places], never)

    def to_arrays(self) -> dict[str, np.ndarray]:
        salt = np.frombuffer(self.salt, dtype=np.uint8)
        return {"salt": salt, "ids": self.ids, "last": self.last}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> FittedPeriods:
        return cls(arrays["salt"].tobytes(), arrays["ids"], arrays["last"])


def _hashes(records: Iterable[bytes], salt: bytes) -> np.ndarray:
    """Eight bytes of each record under the salt, shape (n,) of uint64."""
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(record, digest_size=8, key=salt).digest() for record in records])
    return np.frombuffer(digests, dtype=np.uint64)


def _records(rows: pd.DataFrame, columns: Sequence[str]) -> list[bytes]:
    """The content of each row as bytes of one width."""
    if not columns or rows.empty:
        return [b""] * len(rows)
    parts = [
        _number_bytes(rows[name].to_numpy(np.float64))
        if pd.api.types.is_numeric_dtype(rows[name])
        else _text_bytes(rows[name])
        for name in columns
    ]
    table = np.concatenate([part.view(np.uint8).reshape(len(rows), -1) for part in parts], axis=1)
    return list(map(bytes, table))


def _key_records(rows: pd.DataFrame, keys: Sequence[str]) -> list[bytes]:
    """Id and time of each row as bytes: whole numbers are the same as texts, times in ms."""
    columns = []
    for name in keys:
        column = rows[name]
        if pd.api.types.is_datetime64_any_dtype(column):
            column = column.astype("datetime64[ms]").astype(np.int64)
        columns.append([_key_bytes(value) for value in column.tolist()])
    return [b"\1".join(values) for values in zip(*columns, strict=True)]


def _key_bytes(value: Any) -> bytes:
    if value is None or value != value:
        return _NO_KEY
    text = str(value)
    whole = _WHOLE.fullmatch(text)
    return (whole.group(1) if whole else text).encode()


def _with_keys(contents: np.ndarray, keys: Iterable[bytes]) -> list[bytes]:
    return [own.tobytes() + key for own, key in zip(contents, keys, strict=True)]


def _number_bytes(values: np.ndarray) -> np.ndarray:
    """Every missing number has the same bits, and so has zero with either sign."""
    with np.errstate(over="ignore"):  # what no float32 holds is infinite on both sides
        single = values.astype(np.float32)
    return np.where(np.isnan(single), np.float32(np.nan), single + np.float32(0.0))


def _text_bytes(column: pd.Series) -> np.ndarray:
    codes, texts = pd.factorize(column, use_na_sentinel=True)
    hashes = [hashlib.blake2b(str(text).encode(), digest_size=8).digest() for text in texts]
    table = np.frombuffer(b"".join([*hashes, b"\0" * 8]), dtype=np.uint64)
    return np.ascontiguousarray(table[codes])
