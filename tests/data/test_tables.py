from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.batches import TABLE
from tsclust_model.data.tables import read_table, write_table
from tsclust_model.errors import DataValidationError

# Stands in bad files; no message may repeat it.
SECRET = "Jane Doe 4711"
CSV = TABLE.to_csv(index=False).encode()
RECORDS = TABLE.to_json(orient="records").encode()
LINES = TABLE.to_json(orient="records", lines=True).encode()


def parquet(table: pd.DataFrame | pa.Table) -> bytes:
    buffer = io.BytesIO()
    arrow = pa.Table.from_pandas(table) if isinstance(table, pd.DataFrame) else table
    pyarrow.parquet.write_table(arrow, buffer)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.csv", content)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def put_hdf5(path: Path, **members: pd.DataFrame | pd.Series) -> str:
    for key, member in members.items():
        member.to_hdf(path, key=key)
    return str(path)


def str_ids(value: object) -> str:
    """Names tests by file and format, not by content (which differs from run to run)."""
    return value if isinstance(value, str) else ""


def refusal(call: Callable[..., object], *args: object) -> str:
    """The one line in which a call refuses its data; it never repeats the data."""
    with pytest.raises(DataValidationError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    for word in SECRET.split():
        assert word not in message
    return message


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, check_names=False)


# Reading each format


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", CSV),
        ("T.CSV", CSV),
        ("t.v2.csv", CSV),
        ("t.csv.gz", gzip.compress(CSV)),
        ("t.csv.bz2", bz2.compress(CSV)),
        ("t.csv.xz", lzma.compress(CSV)),
        ("t.csv.zip", zipped(t=CSV)),
        ("t.parquet", parquet(TABLE)),
        ("t.pq", parquet(TABLE)),
        ("t.json", RECORDS),
        ("t.json.gz", gzip.compress(RECORDS)),
        ("t.jsonl", LINES),
        ("t.ndjson", LINES),
        ("t.jsonl.gz", gzip.compress(LINES)),
    ],
    ids=str_ids,
)
def test_a_file_is_read_by_its_suffix(name: str, content: bytes, tmp_path: Path):
    same(read_table(put(tmp_path / name, content)), TABLE)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".hdf"])
def test_hdf5_is_read_whatever_its_key(suffix: str, tmp_path: Path):
    path = put_hdf5(tmp_path / f"t{suffix}", anything=TABLE)
    same(read_table(path), TABLE)


def test_json_may_be_a_mapping_of_columns(tmp_path: Path):
    path = put(tmp_path / "t.json", b'{"a": [1, 2], "b": ["x", null]}')
    same(read_table(path), pd.DataFrame({"a": [1, 2], "b": ["x", None]}))


def test_json_lines_may_have_blank_lines_and_miss_a_key(tmp_path: Path):
    path = put(tmp_path / "t.jsonl", b'{"a": 1, "b": 2}\n\n{"a": 3}\n')
    same(read_table(path), pd.DataFrame({"a": [1, 3], "b": [2.0, np.nan]}))


def test_a_file_is_read_from_an_fsspec_url():
    with fsspec.open("memory://urls/t.csv", "wb") as stream:
        stream.write(CSV)
    same(read_table("memory://urls/t.csv"), TABLE)


def test_hdf5_is_read_from_an_fsspec_url(tmp_path: Path):
    put_hdf5(tmp_path / "t.h5", t=TABLE)
    with fsspec.open("memory://urls/t.h5", "wb") as stream:
        stream.write((tmp_path / "t.h5").read_bytes())
    same(read_table("memory://urls/t.h5"), TABLE)


@pytest.mark.parametrize("file_format", ["parquet", "hdf5"])
def test_an_index_with_a_name_is_a_column(file_format: str, tmp_path: Path):
    frame = TABLE.set_index("name")
    if file_format == "parquet":
        path = put(tmp_path / "t.parquet", parquet(frame))
    else:
        path = put_hdf5(tmp_path / "t.h5", t=frame)
    assert set(read_table(path).columns) == set(TABLE.columns)


def test_every_format_gives_the_same_plain_columns(tmp_path: Path):
    for name, content in (("t.csv", CSV), ("t.parquet", parquet(TABLE)), ("t.json", RECORDS)):
        pd.testing.assert_index_equal(
            read_table(put(tmp_path / name, content)).columns, TABLE.columns, check_names=True
        )


# What a csv means


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_a_float_comes_back_from_csv_to_the_last_bit(values: list[float]):
    frame = pd.DataFrame({"x": np.array(values)})
    write_table(frame, "memory://floats/t.csv")
    found = read_table("memory://floats/t.csv")["x"].to_numpy(np.float64)
    assert found.tobytes() == frame["x"].to_numpy().tobytes()


def test_text_columns_are_not_read_as_numbers(tmp_path: Path):
    path = put(tmp_path / "t.csv", b"code,n\n007,1\n,2\n1.50,3\n")
    frame = read_table(path, text_columns=["code", "not in this file"])
    same(frame, pd.DataFrame({"code": ["007", None, "1.50"], "n": [1, 2, 3]}))
    assert read_table(path)["code"].tolist()[::2] == [7.0, 1.5]


def test_missing_markers_of_a_csv_make_a_text_column_numeric(tmp_path: Path):
    path = put(tmp_path / "t.csv", b"x,y\n1,a\n?,?\n,b\n3,c\n")
    frame = read_table(path, missing_markers=["?", ""])
    same(frame, pd.DataFrame({"x": [1, np.nan, np.nan, 3], "y": ["a", None, "b", "c"]}))


@pytest.mark.parametrize("text", ["NA", "nan", "null", "None", "N/A", "?", "-"])
def test_only_the_given_markers_mean_missing(text: str, tmp_path: Path):
    path = put(tmp_path / "t.csv", f"x,n\n{text},1\nb,2\n".encode())
    assert read_table(path)["x"].tolist() == [text, "b"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path):
    path = put(tmp_path / "t.csv", b"\xef\xbb\xbfa,b\n1,2\n")
    assert read_table(path).columns.tolist() == ["a", "b"]


def test_rows_of_a_csv_that_are_too_short_are_missing_at_the_end(tmp_path: Path):
    path = put(tmp_path / "t.csv", b"a,b,c\n1,2\n3,4,5\n")
    assert read_table(path).isna().to_numpy().tolist() == [[False, False, True], [False] * 3]


@pytest.mark.parametrize(
    "rows",
    [
        "1,2,{}\n3,4\n",
        "1,2\n3,4,{}\n",
        "1,2,{}\n",
        "1,2,{0}\n2,4,{0}\n3,6,{0}\n",
        "0,2,{0}\n1,4,{0}\n2,6,{0}\n",
        "0,2,{0}\n",
        "1,2,{0}\n7,4,{0}\n3,6,{0}\n",
        "a,2,{0}\nb,4,{0}\n",
        "1,2,{0},{0}\n2,3,{0},{0}\n",
    ],
    ids=[
        "only the first",
        "only a later one",
        "the only one",
        "numbered rows",
        "rows numbered from 0",
        "row 0 only",
        "numbers in no order",
        "texts",
        "by two",
    ],
)
def test_rows_of_a_csv_that_are_longer_than_its_header_are_refused(rows: str, tmp_path: Path):
    path = put(tmp_path / "t.csv", f"a,b\n{rows.format(SECRET)}".encode())
    assert "t.csv cannot be read as csv" in refusal(read_table, path)


def test_a_comma_at_the_end_of_every_row_moves_no_value_into_another_column(tmp_path: Path):
    path = put(tmp_path / "t.csv", b"a,b\n1,2,\n2,3,\n")
    same(read_table(path), pd.DataFrame({"a": [1, 2], "b": [2, 3]}))


# Several files


def test_files_of_a_glob_are_read_in_the_order_of_their_names(tmp_path: Path):
    for name, value in (("b", 2), ("c", 3), ("a", 1)):
        put(tmp_path / f"{name}.csv", f"x,y\n{value},{value}\n".encode())
    put(tmp_path / "other.json", b"[]")
    frame = read_table(f"{tmp_path}/*.csv")
    same(frame, pd.DataFrame({"x": [1, 2, 3], "y": [1, 2, 3]}))


def test_files_of_a_glob_are_joined_by_the_names_of_their_columns():
    for name, text in (("1", "x,y\n1,2\n"), ("2", "y,x\n4,3\n")):
        with fsspec.open(f"memory://glob/{name}.csv", "w") as stream:
            stream.write(text)
    frame = read_table("memory://glob/*.csv")
    same(frame, pd.DataFrame({"x": [1, 3], "y": [2, 4]}))


def test_files_with_other_columns_are_refused_and_the_columns_named(tmp_path: Path):
    put(tmp_path / "1.csv", b"x,y\n1,2\n")
    put(tmp_path / "2.csv", f"x,z\n1,{SECRET}\n".encode())
    message = refusal(read_table, f"{tmp_path}/*.csv")
    assert "2.csv has other columns than the first file" in message
    assert message.endswith("y, z; read files of one shape at a time")


def test_an_empty_file_among_others_is_refused(tmp_path: Path):
    put(tmp_path / "1.csv", b"x,y\n1,2\n")
    put(tmp_path / "2.csv", b"")
    assert "2.csv is empty" in refusal(read_table, f"{tmp_path}/*.csv")


@pytest.mark.parametrize("name", ["ward[1].csv", "really?.csv", "a*b.csv"])
def test_a_file_whose_name_looks_like_a_glob_is_read(name: str, tmp_path: Path):
    put(tmp_path / "aXb.csv", b"x\n9\n")
    assert read_table(put(tmp_path / name, b"x\n1\n2\n"))["x"].tolist() == [1, 2]


# Wrong sources


def test_a_wrong_path_is_refused(tmp_path: Path):
    path = f"{tmp_path}/nowhere.csv"
    assert refusal(read_table, path) == f"{path}: no such file; check the path"


def test_a_glob_without_a_file_is_refused(tmp_path: Path):
    assert "no such file" in refusal(read_table, f"{tmp_path}/*.csv")


def test_a_folder_is_refused_with_what_to_type(tmp_path: Path):
    assert refusal(read_table, str(tmp_path)).endswith(
        f"is a folder; name its files, as in {tmp_path}/*.parquet"
    )


def test_no_source_is_refused():
    assert refusal(read_table, "") == "no data was named; give a path, a glob or a URL"


@pytest.mark.parametrize("name", ["t.xls", "t", "t.gz", "csv", ".csv"])
def test_an_unknown_format_is_refused_with_the_known_ones(name: str, tmp_path: Path):
    message = refusal(read_table, put(tmp_path / name, SECRET.encode()))
    assert "told by the suffix" in message
    assert ".csv" in message
    assert ".parquet" in message


def test_an_unknown_kind_of_url_is_refused():
    assert "cannot be read" in refusal(read_table, "nosuchprotocol://bucket/t.csv")


# Broken files


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.json", "t.jsonl", "t.h5", "t.csv.gz"])
def test_a_file_without_a_byte_is_refused(name: str, tmp_path: Path):
    message = refusal(read_table, put(tmp_path / name, b""))
    assert message.endswith(f"{name} is empty; give a file with a header and rows")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"a,b\n"),
        ("t.json", b"[]"),
        ("t.json", b'{"a": []}'),
        ("t.jsonl", b"\n\n"),
        ("t.parquet", parquet(TABLE.iloc[:0])),
    ],
    ids=str_ids,
)
def test_a_table_without_rows_is_refused(name: str, content: bytes, tmp_path: Path):
    message = refusal(read_table, put(tmp_path / name, content))
    assert message.endswith(f"{name} has no rows; give a table with rows")


def test_an_hdf5_table_without_rows_is_refused(tmp_path: Path):
    path = put_hdf5(tmp_path / "t.h5", t=pd.DataFrame({"a": np.empty(0)}))
    assert "has no rows" in refusal(read_table, path)


WORDS = SECRET.encode()
LARGE = f"a,b\n{SECRET},1\n".encode() + b"x,2\n" * 5000


def flipped(content: bytes, position: int = 40) -> bytes:
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


@pytest.mark.parametrize(
    ("name", "content", "file_format"),
    [
        ("t.csv", b"\n\n", "csv"),
        ("t.csv", b'a,b\n"' + WORDS + b",1\n2,3\n", "csv"),
        ("t.csv", b"a,b\n\xff\xfe" + WORDS + b",1\n", "csv"),
        ("t.parquet", b"PAR1" + WORDS + b"PAR1", "parquet"),
        ("t.parquet", WORDS * 100, "parquet"),
        ("t.parquet", parquet(TABLE)[:-20], "parquet"),
        ("t.json", b'[{"a": "' + WORDS + b'"}', "json"),
        ("t.json", b'{"a": "' + WORDS + b'"}', "json"),
        ("t.json", b'"' + WORDS + b'"', "json"),
        ("t.json", b"4711", "json"),
        ("t.json", b'{"a": [4711, 2], "b": [4711]}', "json"),
        ("t.json", b'[{"a": "' + WORDS + b'"}, 4711]', "json"),
        ("t.json", b"\xff\xfe\xff", "json"),
        ("t.jsonl", b'{"a": 1}\n{"a": "' + WORDS + b"\n", "jsonl"),
        ("t.jsonl", b'{"a": 1}\n4711\n', "jsonl"),
        ("t.jsonl", b'{"a": 1}\nnull\n', "jsonl"),
        ("t.h5", WORDS * 100, "hdf5"),
        ("t.csv.gz", LARGE, "csv"),
        ("t.csv.gz", gzip.compress(LARGE)[:-20], "csv"),
        ("t.csv.gz", flipped(gzip.compress(LARGE)), "csv"),
        ("t.csv.bz2", LARGE, "csv"),
        ("t.csv.bz2", flipped(bz2.compress(LARGE)), "csv"),
        ("t.csv.xz", LARGE, "csv"),
        ("t.csv.xz", flipped(lzma.compress(LARGE)), "csv"),
        ("t.csv.zip", LARGE, "csv"),
    ],
    ids=str_ids,
)
def test_a_broken_file_is_refused_by_its_name_alone(
    name: str, content: bytes, file_format: str, tmp_path: Path
):
    message = refusal(read_table, put(tmp_path / name, content))
    assert f"{name} cannot be read as {file_format} (" in message


def test_an_archive_of_two_files_is_not_read_by_half(tmp_path: Path):
    path = put(tmp_path / "t.csv.zip", zipped(a=b"x\n1\n", b=b"x\n2\n"))
    refusal(read_table, path)


def test_an_hdf5_file_of_two_tables_is_refused(tmp_path: Path):
    path = put_hdf5(tmp_path / "t.h5", a=TABLE, b=TABLE)
    assert refusal(read_table, path).endswith("it must hold exactly one pandas table")


def test_an_hdf5_file_of_a_series_is_refused(tmp_path: Path):
    path = put_hdf5(tmp_path / "t.h5", a=TABLE["count"])
    assert refusal(read_table, path).endswith("holds a series; store a DataFrame")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", f"b,a,b\n{SECRET},2,3\n".encode()),
        ("t.parquet", parquet(pa.table([[SECRET], [2], [3]], names=["b", "a", "b"]))),
    ],
    ids=str_ids,
)
def test_duplicated_column_names_are_refused_and_named(name: str, content: bytes, tmp_path: Path):
    message = refusal(read_table, put(tmp_path / name, content))
    assert message.endswith(f"{name} has duplicated column names: b; rename them")


def test_names_that_pandas_would_make_are_told_from_real_ones(tmp_path: Path):
    path = put(tmp_path / "t.csv", b"a,a.1\n1,2\n")
    assert read_table(path).columns.tolist() == ["a", "a.1"]


def test_a_column_without_a_name_is_refused(tmp_path: Path):
    path = put(tmp_path / "t.csv", TABLE.to_csv().encode())  # the index came along
    assert "without a name" in refusal(read_table, path)


# Writing


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.pq", "new/deep/t.csv", "t.csv.gz"])
def test_a_written_table_is_read_back(name: str, tmp_path: Path):
    target = f"{tmp_path}/{name}"
    assert write_table(TABLE, target) == target
    same(read_table(target), TABLE)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_is_written_to_an_fsspec_url(name: str):
    target = f"memory://written/{name}"
    write_table(TABLE, target)
    same(read_table(target), TABLE)


def test_a_table_is_written_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_table(TABLE, "t.csv")
    assert os.listdir(tmp_path) == ["t.csv"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_writing_replaces_the_file_and_leaves_nothing_beside_it(name: str, tmp_path: Path):
    write_table(TABLE, f"{tmp_path}/{name}")
    write_table(TABLE.iloc[:1], f"{tmp_path}/{name}")
    assert len(read_table(f"{tmp_path}/{name}")) == 1
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_the_index_is_not_written(name: str, tmp_path: Path):
    write_table(TABLE.set_index("count", drop=False).rename_axis("i"), f"{tmp_path}/{name}")
    assert read_table(f"{tmp_path}/{name}").columns.tolist() == TABLE.columns.tolist()


@pytest.mark.parametrize("name", ["t.json", "t.h5", "t.xlsx", "t"])
def test_only_csv_and_parquet_are_written(name: str, tmp_path: Path):
    refusal(write_table, TABLE, f"{tmp_path}/{name}")
    assert os.listdir(tmp_path) == []


def test_a_table_that_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    target = f"{tmp_path}/t.parquet"
    write_table(TABLE, target)
    refusal(write_table, pd.DataFrame({"a": [1, SECRET]}), target)
    same(read_table(target), TABLE)
    assert os.listdir(tmp_path) == ["t.parquet"]


def test_a_target_that_cannot_be_made_is_refused(tmp_path: Path):
    put(tmp_path / "file", b"")
    assert "file/t.csv" in refusal(write_table, TABLE, f"{tmp_path}/file/t.csv")


# The digest

# -- what spreadsheets write -------------------------------------------------------------------

EUROPEAN = pd.DataFrame({"ward": ["a, b", "c", "d"], "beds": [12, 7, 9], "days": [1.5, 2.25, 30.0]})


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_says_what_separates_columns(tmp_path, name, delimiter):
    path = put(tmp_path / name, EUROPEAN.to_csv(index=False, sep=delimiter).encode())
    pd.testing.assert_frame_equal(read_table(path), EUROPEAN)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_decimal_commas_are_read(tmp_path, delimiter):
    text = EUROPEAN.to_csv(index=False, sep=delimiter, decimal=",")
    read = read_table(put(tmp_path / "t.csv", text.encode()))
    pd.testing.assert_frame_equal(read, EUROPEAN)


def test_decimal_commas_of_a_string_column_stay(tmp_path):
    path = put(tmp_path / "t.csv", b"code;x\n1,5;2,5\n2,5;3\n")
    read = read_table(path, text_columns=["code"])
    assert read["code"].tolist() == ["1,5", "2,5"]
    assert read["x"].tolist() == [2.5, 3.0]


def test_a_missing_decimal_is_a_gap(tmp_path):
    read = read_table(put(tmp_path / "t.csv", b"x;y\n1,5;1\n;2\n-2,5e3;3\n"))
    assert read["x"].isna().tolist() == [False, True, False]
    assert read["x"].tolist()[::2] == [1.5, -2500.0]


def test_three_decimals_between_semicolons_are_decimals(tmp_path):
    read = read_table(put(tmp_path / "t.csv", b"x;y\n1,234;1\n2,500;2\n"))
    assert read["x"].tolist() == [1.234, 2.5]


def test_three_decimals_after_a_zero_are_decimals(tmp_path):
    read = read_table(put(tmp_path / "t.csv", b'x,y\n"0,512",1\n"1,250",2\n'))
    assert read["x"].tolist() == [0.512, 1.25]


@pytest.mark.parametrize(
    "content",
    [
        b'x,y\n"1,234",1\n"12,345",2\n',
        b"x;y\n1.234,5;1\n2,5;2\n",
        b'x,y\n"1,234.5",1\n"2,000",2\n',
        b'x,y\n"148,238.00",1\n99.50,2\n',
    ],
    ids=["unclear", "points", "commas", "beside plain numbers"],
)
def test_separated_thousands_are_refused_by_name(tmp_path, content):
    path = put(tmp_path / "t.csv", content)
    with pytest.raises(DataValidationError, match=r"^numbers with separated thousands in: x; "):
        read_table(path)


def test_strings_with_commas_stay_strings(tmp_path):
    read = read_table(put(tmp_path / "t.csv", b"x;y\n1,5;1\nnone, yet;2\n"))
    assert read["x"].tolist() == ["1,5", "none, yet"]


def workbook(path: Path, **sheets: pd.DataFrame) -> str:
    with pd.ExcelWriter(path, engine="openpyxl") as writer:
        for name, frame in sheets.items():
            frame.to_excel(writer, sheet_name=name, index=False)
    return str(path)


def test_a_workbook_of_one_table_is_read(tmp_path):
    path = workbook(tmp_path / "t.xlsx", beds=EUROPEAN, empty=pd.DataFrame())
    read = read_table(path)
    pd.testing.assert_frame_equal(read.astype({"days": float}), EUROPEAN)
    assert read_table(path, text_columns=["beds"])["beds"].tolist() == ["12", "7", "9"]


def test_a_workbook_of_two_tables_is_refused(tmp_path):
    path = workbook(tmp_path / "t.xlsx", a=EUROPEAN, b=EUROPEAN)
    with pytest.raises(DataValidationError, match=r"t\.xlsx has 2 sheets with rows; keep"):
        read_table(path)


def test_what_is_no_workbook_is_refused(tmp_path):
    path = put(tmp_path / "t.xlsx", CSV)
    with pytest.raises(DataValidationError, match="cannot be read as xlsx"):
        read_table(path)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataValidationError, match=r"^t\.csv: no such file; check") as caught:
        read_table("t.csv")
    assert str(caught.value).endswith(f"(looked for {tmp_path / 't.csv'})")


def test_a_tsv_is_written_with_tabs(tmp_path):
    path = write_table(EUROPEAN, str(tmp_path / "t.tsv"))
    assert Path(path).read_text().splitlines()[0] == "ward\tbeds\tdays"
    pd.testing.assert_frame_equal(read_table(path), EUROPEAN)
