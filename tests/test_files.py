"""Files that are whole or not there."""

from __future__ import annotations

import pytest

from tsclust_model.files import read_state, whole_file, write_state, write_whole


@pytest.mark.parametrize("content", ["Größe\n", b"\x00\xff"])
def test_a_file_and_its_folder_are_made_and_replaced(tmp_path, content):
    path = tmp_path / "new" / "file"
    write_whole(path, "old")
    write_whole(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, before):
    path = tmp_path / "file"
    if before is not None:
        write_whole(path, before)
    with pytest.raises(TypeError, match="bytes"), whole_file(path) as stream:
        stream.writelines([b"half", "a string"])
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == (
        {} if before is None else {"file": before}
    )


def test_nobody_sees_a_file_before_it_is_whole(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")
    with whole_file(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_state_comes_back(tmp_path):
    path = tmp_path / "state.json"
    assert read_state(path) == {}
    write_state(path, {"a": [1, None]})
    assert read_state(path) == {"a": [1, None]}


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_no_json_object_is_no_state(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    assert read_state(path) == {}
