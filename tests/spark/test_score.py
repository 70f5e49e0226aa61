"""``tsclust score --engine spark``: the answers of `predict`, all of them or nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.spark.cluster import executors
from tsclust_model.errors import DataValidationError, PipelineError, PredictionError
from tsclust_model.mlflow_integration.pyfunc import seal_generation
from tsclust_model.spark.executors import example_digest, readiness

pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark'")

from tsclust_model.spark.score import Scored, score_table  # noqa: E402
from tsclust_model.spark.session import settings, translated  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # pyspark's and pandas' of one another

KEYS = ["patient_id", "admission_time"]


@pytest.fixture
def rows(hospital: pd.DataFrame, registered) -> pd.DataFrame:
    """300 admissions of three months, with what a served table has."""
    frame = hospital[[*KEYS, *registered.generation.schema.names]].tail(300)
    return frame.assign(month=np.repeat(["01", "02", "03/a b"], 100)).reset_index(drop=True)


@pytest.fixture
def folder(rows: pd.DataFrame, tmp_path: Path) -> Path:
    rows.to_parquet(tmp_path / "new", partition_cols=["month"])
    return tmp_path / "new"


def written(output: Path) -> pd.DataFrame:
    """What was scored, in the order of the keys."""
    table = pd.read_parquet(output)
    return table.sort_values(KEYS).reset_index(drop=True)


def assert_same(found: pd.DataFrame, generation, rows: pd.DataFrame) -> None:
    """The answers of a scored folder are those of `predict`, to the bit."""
    ordered = rows.sort_values(KEYS).reset_index(drop=True)
    expected = generation.predict(ordered)
    assert found["patient_id"].tolist() == ordered["patient_id"].tolist()
    assert found["admission_time"].tolist() == ordered["admission_time"].tolist()
    for name in expected:
        got, want = (column.astype(object) for column in (found[name], expected[name]))
        assert got.where(got.notna(), None).tolist() == want.where(want.notna(), None).tolist()


def test_a_folder_is_scored_with_its_partitions_version_and_time(
    spark, store, registered, rows, folder, tmp_path, tsclust
):
    rows.loc[5, ["age", "heart_rate"]] = None
    shutil.rmtree(folder)
    rows.to_parquet(folder, partition_cols=["month"])
    output, before = tmp_path / "scored", datetime.now(UTC)
    options = {"data": folder, "model_uri": registered.model_uri, "output": output}
    result = tsclust("score", engine="spark", **options)
    assert result.exit_code == 0, result.output
    assert f"{output}: 300 rows, 1 not scored (column 'status' says why)" in result.output
    found = written(output)
    assert_same(found, registered.generation, rows)
    assert (found["status"] == "missing: age, heart_rate").sum() == 1
    months = {path.name for path in output.iterdir() if path.is_dir()}
    assert months == {"month=01", "month=02", "month=03%2Fa b"}
    assert set(found["model_version"]) == {f"models:/hospital/{registered.version}"}
    assert found["scored_at"].between(before, datetime.now(UTC)).all()
    assert (output / "_SUCCESS").exists()
    assert not (tmp_path / "scored.partial").exists()


def test_only_partitions_that_are_missing_are_scored(
    spark, store, registered, rows, folder, tmp_path, tsclust
):
    output = tmp_path / "scored"
    options = {"data": folder, "model_uri": registered.model_uri, "output": output}
    options |= {"engine": "spark", "quantiles": "0.1,0.9"}
    assert tsclust("score", **options).exit_code == 0
    first = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    assert "every partition is there already" in tsclust("score", **options).output
    shutil.rmtree(output / "month=02")
    assert f"{output}: 100 rows, 0 not scored" in tsclust("score", **options).output
    again = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    assert {path for path in first if "month=02" not in str(path)} < set(again)
    assert all(again[path] == first[path] for path in set(first) & set(again))
    found = written(output)
    assert_same(found, registered.generation, rows)
    expected = registered.generation.predict(rows, quantiles=(0.1, 0.9))
    assert sorted(found["q0.9"]) == sorted(expected["q0.9"])
    other = tsclust("score", **(options | {"quantiles": ""}))
    assert "exists and is not an output of this model and these options" in other.output


def test_files_may_differ_in_columns_types_and_order(spark, store, registered, rows, tmp_path):
    """Also: no rows, one row, null in every column, nanoseconds, and text among numbers."""
    folder, generation = tmp_path / "new", registered.generation
    folder.mkdir()
    rows = rows.drop(columns="month")
    rows["emergency"] = rows["emergency"].astype(str)
    empty, one, texts, absent, rest = np.split(rows.index, [0, 1, 4, 9])
    empty, one, texts, absent, rest = (rows.loc[i] for i in (empty, one, texts, absent, rest))
    texts = texts.assign(age=["forty", "n/a", "?"])  # not a number in the whole file
    nothing = texts.tail(1).assign(**dict.fromkeys(generation.schema.names))
    nothing["patient_id"] = "nobody"
    empty.to_parquet(folder / "a.parquet")
    one[one.columns[::-1]].assign(more=1).to_parquet(folder / "b.parquet")
    texts.to_parquet(folder / "c.parquet")
    absent.drop(columns="ward").to_parquet(folder / "d.parquet")
    late = pa.Table.from_pandas(rest.astype({"age": "int64"}), preserve_index=False)
    place = late.schema.get_field_index("admission_time")
    late = late.set_column(place, "admission_time", late["admission_time"].cast("timestamp[ns]"))
    pq.write_table(late, folder / "e.parquet")
    nothing.to_parquet(folder / "f.parquet")
    asked = (spark, registered.model_uri, str(folder), str(tmp_path / "scored"))
    counts = score_table(*asked).batch.rows
    # The category that a file lacks is missing in its rows, as are all values of the last file.
    assert counts["rows"] == 301
    assert counts["refused"] == 3 + 5 + 1
    given = pd.concat([one, texts, absent.assign(ward=None), rest.astype({"age": int}), nothing])
    found = written(tmp_path / "scored")
    assert_same(found, generation, given)
    statuses = found.set_index("patient_id")["status"]
    assert statuses["nobody"] == f"missing: {', '.join(generation.schema.names)}"
    assert set(found["status"][found["status"].str.startswith("not")]) == {"not a number: age"}


def test_a_table_of_the_catalog_is_scored(spark, store, registered, rows, tmp_path):
    frame = rows.astype({"ward": object, "emergency": object, "month": object})
    table = spark.createDataFrame(frame.drop(columns=KEYS[1]))
    table.write.partitionBy("month").saveAsTable("admissions")
    try:
        asked = (spark, registered.model_uri, "admissions", str(tmp_path / "scored"))
        assert score_table(*asked).batch.rows["rows"] == 300
        shutil.rmtree(tmp_path / "scored" / "month=01")
        assert score_table(*asked).batch.rows["rows"] == 100
        assert score_table(*asked).batch is None
    finally:
        spark.sql("DROP TABLE admissions")
    scored = pd.read_parquet(tmp_path / "scored").sort_values("patient_id")
    expected = registered.generation.predict(rows.sort_values("patient_id"))
    assert sorted(scored["prediction"]) == sorted(expected["prediction"])


def test_drift_of_a_batch_is_that_of_its_rows_though_none_reaches_the_driver(
    spark, store, registered, rows, tmp_path, tsclust
):
    generation, features = registered.generation, registered.generation.reference.features
    rows["heart_rate"] += 40
    rows.loc[3, "age"] = None
    rows.to_parquet(tmp_path / "new", partition_cols=["month"])
    options = {"data": tmp_path / "new", "model_uri": registered.model_uri, "engine": "spark"}
    result = tsclust("score", output=tmp_path / "scored", **options)
    encoded = generation.schema.encode(rows)
    X = encoded.X[encoded.scorable]
    window = generation.assign(X)
    (heart,) = [reason for reason in features.shifted(X) if reason.startswith("heart_rate")]
    assert f"drifted: {heart}" in result.output
    (entry,) = json.loads((tmp_path / "scored" / "_tsclust_history.json").read_text())
    assert heart in entry["drift"]
    assert entry["rows"] == 300
    assert entry["refused"] == 1
    assert entry["noise_ratio"] == window.is_noise.mean()
    clusters, sizes = np.unique(window.labels, return_counts=True)
    assert entry["clusters"] == {str(c): n for c, n in zip(clusters, sizes, strict=True)}


def test_without_keys_the_rows_keep_their_columns(spark, store, registered, rows, tmp_path):
    plain = rows.drop(columns=[*KEYS, "month"])
    plain.to_parquet(tmp_path / "new.parquet")
    score_table(spark, registered.model_uri, str(tmp_path / "new.parquet"), str(tmp_path / "out"))
    found = pd.read_parquet(tmp_path / "out")
    expected = registered.generation.predict(found[plain.columns])
    assert len(found) == 300
    assert found["prediction"].tolist() == expected["prediction"].tolist()


def test_a_failed_job_leaves_nothing_and_the_next_call_goes_on(
    spark, store, registered, rows, folder, tmp_path
):
    (broken,) = (folder / "month=02").glob("*.parquet")
    whole = broken.read_bytes()
    # The footer is well, the pages are not: only a worker sees it.
    broken.write_bytes(whole[:4] + bytes(200) + whole[204:])
    asked = (spark, registered.model_uri, str(folder), str(tmp_path / "scored"))
    with pytest.raises(PredictionError, match="Spark cannot score: ") as failure:
        score_table(*asked)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "scored").exists()
    assert len(list((tmp_path / "scored.partial").glob("job-*"))) == 1  # the month before
    broken.write_bytes(whole)
    assert score_table(*asked).batch.rows["rows"] == 300
    assert_same(written(tmp_path / "scored"), registered.generation, rows)


def test_a_killed_executor_costs_nothing_but_time(
    cluster, spark, store, registered, rows, tmp_path
):
    many = pd.concat([rows.drop(columns="month")] * 200, ignore_index=True)
    many["patient_id"] = [f"{i:06d}" for i in range(len(many))]
    (tmp_path / "new").mkdir()
    for i, part in enumerate(np.array_split(np.arange(len(many)), 8)):
        many.iloc[part].to_parquet(tmp_path / "new" / f"{i}.parquet")
    asked = (spark, registered.model_uri, str(tmp_path / "new"), str(tmp_path / "scored"))
    scored: list[Scored] = []
    job = threading.Thread(target=lambda: scored.append(score_table(*asked)))
    job.start()
    while not list(tmp_path.glob("scored.partial/job-0/_temporary/**/*.parquet")):
        job.join(0.05)
        assert job.is_alive(), "it was done before an executor could be killed"
    os.kill(executors()[0], signal.SIGKILL)
    job.join(120)
    assert scored[0].batch.rows["rows"] == len(many)
    assert_same(written(tmp_path / "scored"), registered.generation, many)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"data": "nothing"}, "nothing: no such folder, and Spark knows no table of this name"),
        ({"data": "no/such"}, "no/such: no such folder; check the path"),
        ({"output": "scored.csv"}, "scored.csv: Spark writes a folder of parquet"),
        ({"output": "taken"}, "taken exists and is not an output of this model"),
        ({"output": "new/scored"}, "lie in one another; name an output outside of the data"),
        ({"model_uri": "models:/nobody@champion"}, "models:/nobody@champion cannot be loaded"),
        ({"model_uri": "models:/known-wards@champion"}, "forecasts series; engine spark scores"),
        ({"engine": "flink"}, "'flink' is not one of 'local', 'spark'"),
    ],
)
def test_a_mistake_is_one_line(
    spark, store, registered, registered_wards, folder, monkeypatch, tsclust, change, expected
):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "taken").mkdir()
    options = {"data": "new", "model_uri": registered.model_uri, "output": "scored"}
    result = tsclust("score", **(options | {"engine": "spark"} | change))
    assert result.exit_code != 0
    assert expected in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert not Path("scored").exists()


def test_without_pyspark_the_extra_is_named(monkeypatch, tsclust):
    for name in ("tsclust_model.spark.score", "tsclust_model.spark.session"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    result = tsclust("score", data="x", model_uri="y", output="z", engine="spark")
    expected = "engine spark needs one more package: pip install 'tsclust-model[spark]'"
    assert expected in result.stderr


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"age": None}, "the data has no column 'age'"),
        ({"age": pd.Timestamp("2026-01-01")}, "'age' holds something that is not a number"),
        ({"age": [[1.0]] * 300}, "column(s) age hold lists or mappings"),
        ({"model_version": 1, "patient_id": None, "admission_time": None}, None),
    ],
)
def test_columns_are_checked_before_any_work(
    spark, store, registered, rows, tmp_path, columns, expected
):
    drop = [name for name, value in columns.items() if value is None]
    new = {name: value for name, value in columns.items() if value is not None}
    rows.drop(columns=[*drop, "month"]).assign(**new).to_parquet(tmp_path / "new.parquet")
    asked = (spark, registered.model_uri, str(tmp_path / "new.parquet"), str(tmp_path / "out"))
    if expected is None:
        assert score_table(*asked).batch.rows["rows"] == 300
    else:
        with pytest.raises(DataValidationError, match=re.escape(expected)):
            score_table(*asked)
        assert not list(tmp_path.glob("out*"))


def test_executors_that_cannot_score_say_so_before_the_job(registered, tmp_path):
    generation = registered.generation
    parts, expected = seal_generation(generation), example_digest(generation)
    batch = pa.RecordBatch.from_pydict({"id": [1]})

    def problem(*given) -> str:
        (answer,) = readiness(*given)(iter([batch]))
        return answer.to_pydict()["problem"][0]

    assert problem(parts, expected, [str(tmp_path)]) == ""
    assert "use a folder that all machines share" in problem(parts, expected, ["/no/such"])
    assert "answer the model's example differently" in problem(parts, "other", [])


def test_a_module_that_executors_lack_is_named(spark):
    def lacking(batches):
        import no_such_module  # noqa: F401

        yield from batches

    with (
        settings(spark),
        pytest.raises(PipelineError, match="executors has no module 'no_such_module'; install"),
        translated("the executors cannot score", PipelineError),
    ):
        spark.range(1).mapInArrow(lacking, "id long").collect()
