from __future__ import annotations

import sys
from pathlib import Path

import deltalake
import pandas as pd
import pytest

from tsclust_model.data.delta import pinned
from tsclust_model.data.tables import read_table
from tsclust_model.errors import DataValidationError

FIRST = pd.DataFrame({"ward": ["A", "B"], "beds": [3.5, 4.5]})
SECOND = pd.DataFrame({"ward": ["C"], "beds": [7.0]})
BOTH = pd.concat([FIRST, SECOND], ignore_index=True)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two versions, 0 and 1."""
    folder = str(tmp_path / "stays")
    deltalake.write_deltalake(folder, FIRST)
    deltalake.write_deltalake(folder, SECOND, mode="append")
    return folder


def rows(source: str) -> pd.DataFrame:
    return read_table(source).sort_values("ward", ignore_index=True)


def test_a_folder_of_delta_is_read_at_its_newest_version(table: str):
    pd.testing.assert_frame_equal(rows(table), BOTH)
    pd.testing.assert_frame_equal(rows(f"{table}/"), BOTH)


def test_a_version_is_read_by_its_number(table: str):
    pd.testing.assert_frame_equal(rows(f"{table}@v0"), FIRST)
    pd.testing.assert_frame_equal(rows(f"{table}@v1"), BOTH)


def test_what_is_pinned_stays_when_rows_are_added(table: str):
    source = pinned(table)
    assert source == f"{table}@v1"
    deltalake.write_deltalake(table, SECOND, mode="append")
    pd.testing.assert_frame_equal(rows(source), BOTH)
    assert pinned(source) == source
    assert pinned(table) == f"{table}@v2"


@pytest.mark.parametrize("source", ["data/*.csv", "nowhere.parquet", "", "s4://bucket/key", "a@v1"])
def test_other_sources_are_left_as_they_are(source: str):
    assert pinned(source) == source


def test_a_version_that_is_not_there_is_refused_with_the_newest(table: str):
    with pytest.raises(DataValidationError, match=r"has no version 7; the newest is 1$"):
        read_table(f"{table}@v7")


def test_a_broken_log_is_one_line(table: str):
    (log,) = Path(table, "_delta_log").glob("*1.json")
    log.write_text("Jane Doe")
    with pytest.raises(DataValidationError, match="cannot be opened as a Delta table") as caught:
        read_table(table)
    assert "\n" not in str(caught.value)
    assert "Jane" not in str(caught.value)


def test_a_file_that_is_gone_is_one_line(table: str):
    for file in Path(table).glob("*.parquet"):
        file.unlink()
    with pytest.raises(DataValidationError, match="a file that its log names is missing") as caught:
        read_table(table)
    assert "\n" not in str(caught.value)


def test_a_table_without_rows_is_refused(table: str):
    deltalake.DeltaTable(table).delete()
    with pytest.raises(DataValidationError, match="has no rows"):
        read_table(table)


def test_without_the_package_it_is_said_what_to_install(
    table: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(DataValidationError, match=r"pip install 'tsclust-model\[delta\]'"):
        read_table(table)
