from __future__ import annotations

import hashlib
import io
import json
import pickle
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.models.state import (
    FORMAT,
    MANIFEST,
    digest,
    open_sealed,
    pack_arrays,
    pack_json,
    seal,
    unpack_arrays,
    unpack_json,
)

PARTS = {"a.json": pack_json({"age": 1}), "b.npz": pack_arrays({"x": np.arange(3)}), "c": b""}
SEALED = seal(PARTS, "1.2.3", "c0de")


def with_manifest(**changes: Any) -> dict[str, bytes]:
    manifest = json.loads(SEALED[MANIFEST]) | changes
    return SEALED | {MANIFEST: json.dumps(manifest).encode()}


def test_the_manifest_holds_the_checksum_of_every_part():
    assert open_sealed(SEALED) == {
        "format": FORMAT,
        "package_version": "1.2.3",
        "code_digest": "c0de",
        "sha256": {name: hashlib.sha256(part).hexdigest() for name, part in PARTS.items()},
    }


def test_sealing_keeps_the_parts_and_changes_nothing_given():
    parts = dict(PARTS)
    assert {name: SEALED[name] for name in SEALED if name != MANIFEST} == PARTS
    seal(parts, "1.2.3", "c0de")
    assert parts == PARTS


def test_the_digest_is_that_of_the_manifest_and_the_order_of_parts_means_nothing():
    backwards = seal(dict(reversed(PARTS.items())), "1.2.3", "c0de")
    assert digest(backwards) == digest(SEALED) == hashlib.sha256(SEALED[MANIFEST]).hexdigest()


@given(st.sampled_from(["a.json", "b.npz"]), st.integers(0), st.integers(1, 255))
def test_a_part_with_any_byte_changed_is_refused(name: str, position: int, change: int):
    part = bytearray(SEALED[name])
    part[position % len(part)] ^= change
    with pytest.raises(MLflowIntegrationError, match=rf"\(part '{name}'\); log the model again"):
        open_sealed(SEALED | {name: bytes(part)})


@given(st.integers(0), st.integers(1, 255))
def test_a_manifest_with_any_byte_changed_has_another_digest(position: int, change: int):
    manifest = bytearray(SEALED[MANIFEST])
    manifest[position % len(manifest)] ^= change
    assert digest(SEALED | {MANIFEST: bytes(manifest)}) != digest(SEALED)


def test_parts_and_checksums_rewritten_together_have_another_digest():
    forged = seal(PARTS | {"a.json": pack_json({"age": 2})}, "1.2.3", "c0de")
    open_sealed(forged)
    assert digest(forged) != digest(SEALED)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({k: v for k, v in SEALED.items() if k != "b.npz"}, "b.npz"),
        (SEALED | {"extra": b"1"}, "extra"),
        (SEALED | {"a.json": SEALED["b.npz"], "b.npz": SEALED["a.json"]}, "a.json"),
        (SEALED | {"a.json": b""}, "a.json"),
    ],
    ids=["missing", "extra", "swapped", "emptied"],
)
def test_a_state_whose_parts_are_not_those_of_its_manifest_is_refused(
    parts: dict[str, bytes], name: str
):
    with pytest.raises(MLflowIntegrationError, match=f"changed after it was written .*'{name}'"):
        open_sealed(parts)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"{}", b'{"format": 1}', b'{"sha256": {}}'],
)
def test_a_state_without_a_readable_manifest_is_refused(manifest: bytes):
    with pytest.raises(MLflowIntegrationError, match="no readable manifest; log the model again"):
        open_sealed(SEALED | {MANIFEST: manifest})


@pytest.mark.parametrize(
    "changes", [{"format": None}, {"format": "new"}, {"sha256": None}, {"sha256": "abc"}]
)
def test_a_manifest_with_impossible_entries_is_refused(changes: dict[str, Any]):
    with pytest.raises(MLflowIntegrationError, match="no readable manifest"):
        open_sealed(with_manifest(**changes))


def test_a_state_without_a_manifest_is_refused():
    with pytest.raises(MLflowIntegrationError, match="no readable manifest"):
        open_sealed(PARTS)


def test_a_newer_layout_is_refused_with_the_version_that_reads_it():
    newer = with_manifest(format=FORMAT + 1, package_version="9.9.9")
    message = (
        f"has format {FORMAT + 1}, this tsclust_model reads up to {FORMAT}; "
        "use tsclust_model 9.9.9 or newer"
    )
    with pytest.raises(MLflowIntegrationError, match=message):
        open_sealed(newer)


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.1, -0.0, np.nan, np.inf, 5e-324]),
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.array(["Größe", ""]),
        np.empty((0, 4)),
        np.array(3.5),
    ],
    ids=["floats", "matrix", "fortran", "bools", "texts", "empty", "scalar"],
)
def test_arrays_come_back_to_the_last_bit(array: np.ndarray):
    found = unpack_arrays(pack_arrays({"x": array, "-1": array}))
    assert list(found) == ["x", "-1"]
    for again in found.values():
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.tobytes() == array.tobytes()


def test_equal_arrays_make_equal_bytes():
    first, second = (pack_arrays({"x": np.arange(100.0), "y": np.zeros(3)}) for _ in range(2))
    assert first == second


def test_arrays_that_need_pickle_are_not_packed():
    with pytest.raises(ValueError, match="allow_pickle=False"):
        pack_arrays({"x": np.array([{"a": 1}], dtype=object)})


def test_arrays_that_need_pickle_are_not_unpacked():
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        unpack_arrays(zlib.compress(buffer.getvalue()))
    with pytest.raises(ValueError, match="pickle"):
        unpack_arrays(zlib.compress(pickle.dumps({"x": 1})))


@pytest.mark.parametrize(
    "content", [{}, [], None, {"Größe": [1, 2.5, None, True, "ß"]}, 0.1 + 0.2, "tree\n" * 1000]
)
def test_json_comes_back_as_it_was(content: Any):
    assert unpack_json(pack_json(content)) == content


def test_the_order_of_keys_means_nothing():
    assert pack_json({"a": 1, "b": 2}) == pack_json({"b": 2, "a": 1})
