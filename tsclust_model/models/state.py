"""A model's state as named parts of plain bytes, each checked before anything parses it.

LightGBM's parser crashes, hangs or lies when a byte of its text has changed, and pickle runs code;
so a part is compressed text, JSON or npz (never pickle), and nothing is parsed before its sha256
has been compared. The digest of the manifest names the whole state.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from tsclust_model.errors import MLflowIntegrationError

FORMAT = 2
"""Version of the layout; this code reads this one and the ones before it."""

MANIFEST = "manifest.json"

Parts = dict[str, bytes]


def seal(parts: Mapping[str, bytes], package_version: str, code_digest: str) -> Parts:
    """The parts with a manifest of their checksums beside them."""
    manifest = {
        "format": FORMAT,
        "package_version": package_version,
        "code_digest": code_digest,
        "sha256": {name: hashlib.sha256(part).hexdigest() for name, part in sorted(parts.items())},
    }
    return {MANIFEST: _json_bytes(manifest)} | dict(parts)


def digest(parts: Mapping[str, bytes]) -> str:
    """sha256 of the manifest, and through it of every part."""
    return hashlib.sha256(parts[MANIFEST]).hexdigest()


def open_sealed(parts: Mapping[str, bytes]) -> dict[str, Any]:
    """Check every part against the manifest, and return the manifest.

    Raises
    ------
    MLflowIntegrationError
        A part is missing, extra or changed, or the layout is newer than this code.
    """
    try:
        manifest = json.loads(parts[MANIFEST])
        expected = dict(manifest["sha256"])
        layout = int(manifest["format"])
    except (KeyError, ValueError, TypeError) as error:
        raise MLflowIntegrationError(
            "the model's state has no readable manifest; log the model again"
        ) from error
    if layout > FORMAT:
        raise MLflowIntegrationError(
            f"the model's state has format {layout}, this tsclust_model reads up to {FORMAT}; "
            f"use tsclust_model {manifest.get('package_version')} or newer"
        )
    actual = {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}
    del actual[MANIFEST]
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise MLflowIntegrationError(
                f"the model's state was changed after it was written (part '{name}'); "
                "log the model again"
            )
    return dict(manifest)


class StoredTexts(Mapping[int, str]):
    """Texts by number, parsed from their part when the first one is read.

    Parameters
    ----------
    numbers : iterable of int
        The keys, known beforehand.
    part : bytes
        Of `pack_json`, with the numbers as texts.
    """

    def __init__(self, numbers: Iterable[int], part: bytes) -> None:
        self._numbers = tuple(numbers)
        self._part = part

    @cached_property
    def _texts(self) -> dict[str, str]:
        return dict(unpack_json(self._part))

    def __getitem__(self, number: int) -> str:
        return self._texts[str(number)]

    def __contains__(self, number: object) -> bool:
        return number in self._numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return zlib.compress(buffer.getvalue(), 1)


def unpack_arrays(part: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(zlib.decompress(part)), allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def pack_json(content: Any) -> bytes:
    return zlib.compress(_json_bytes(content), 1)


def unpack_json(part: bytes) -> Any:
    return json.loads(zlib.decompress(part))


def _json_bytes(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
