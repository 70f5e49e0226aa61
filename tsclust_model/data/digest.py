"""The digest of a table, by which a version of data is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tsclust_model.data.columns import MIXED, is_nested


def content_digest(frame: pd.DataFrame, hash_algorithm: str = "sha256") -> str:
    """Hash of a table's names and values, in row order, whatever file it came from.

    Every row and type counts (mlflow's own digest reads the first 10,000 rows and skips dates).
    The order of the columns does not.
    """
    digest = hashlib.new(hash_algorithm)
    plain = frame[sorted(frame.columns)].apply(_one_type)
    table = pa.Table.from_pandas(plain, preserve_index=False)
    digest.update(f"{table.num_rows} {table.num_columns}".encode())
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = _canonical(field.type)
        try:
            values = column.cast(kind).combine_chunks()
        except pa.ArrowInvalid:  # a time beyond the years that nanoseconds reach
            values, kind = column.combine_chunks(), field.type
        name = field.name.encode()
        zone = getattr(frame[field.name].dtype, "tz", None)
        digest.update(f" {len(name)} ".encode() + name + f" {kind} {zone} ".encode())
        digest.update(np.packbits(values.is_valid().to_numpy(zero_copy_only=False)).data)
        for part in _value_bytes(values, kind):
            digest.update(part)
    return digest.hexdigest()


def _one_type(column: pd.Series) -> pd.Series:
    """The column as it is; numbers and texts mixed become texts that say which they were, and
    times of a zone become UTC (pyarrow 25 warns of them under pandas 3)."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None)
    if column.dtype != object or pd.api.types.infer_dtype(column, skipna=True) not in MIXED:
        return column
    if any(map(is_nested, column)):
        return column
    texts = [None if pd.isna(v) else f"{type(v).__name__} {v}" for v in column]
    return pd.Series(texts, index=column.index, dtype=object)


def _value_bytes(values: pa.Array, kind: pa.DataType) -> Iterator[Any]:
    """The values as bytes that depend on nothing else: not on slices, nor on what nulls hide."""
    if pa.types.is_large_string(kind):
        filled = values.fill_null("")
        yield pc.binary_length(filled).to_numpy(zero_copy_only=False).tobytes()
        offsets = np.frombuffer(filled.buffers()[1], np.int64)[filled.offset :]
        if len(filled) and offsets[len(filled)] > offsets[0]:
            yield memoryview(filled.buffers()[2])[offsets[0] : offsets[len(filled)]]
    elif pa.types.is_timestamp(kind):
        yield values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).tobytes()
    elif pa.types.is_boolean(kind):
        yield values.fill_null(False).to_numpy(zero_copy_only=False).tobytes()
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield values.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
    else:
        yield repr(values.to_pylist()).encode()


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
