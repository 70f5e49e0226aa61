"""Batch scoring in Spark through `mlflow.pyfunc.spark_udf`."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.support import planned_wards
from tsclust_model.mlflow_integration.pyfunc import log_generation
from tsclust_model.series.schema import series_rows

pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark'")

pytestmark = pytest.mark.filterwarnings("ignore")  # pyspark's and pandas' of one another


@pytest.fixture
def rows(hospital: pd.DataFrame, registered) -> pd.DataFrame:
    frame = hospital[registered.generation.schema.names].tail(300).reset_index(drop=True)
    return frame.assign(emergency=frame["emergency"].astype(str), row=range(300))


@pytest.mark.parametrize("partitions", [1, 5])
def test_spark_gives_the_bits_of_python_however_the_rows_are_split(
    spark, store, registered, rows, partitions
):
    rows.loc[7, "age"] = None
    score = mlflow.pyfunc.spark_udf(spark, registered.model_uri, env_manager="local")
    table = spark.createDataFrame(rows.astype({"ward": object, "emergency": object}))
    table = table.repartition(partitions).withColumn("out", score())
    found = pd.DataFrame(
        [row["out"].asDict() | {"row": row["row"]} for row in table.select("row", "out").collect()]
    ).set_index("row")
    expected = registered.generation.predict(rows)
    assert found.loc[7, "status"] == "missing: age"
    for name in expected:
        got = found.sort_index()[name].astype(object)
        want = expected[name].astype(object)
        assert got.where(got.notna(), None).tolist() == want.where(want.notna(), None).tolist()


def test_spark_gives_quantiles_where_the_result_type_names_them(
    spark, store, registered, registered_wards, rows, wards
):
    asked = {"params": {"quantiles": [0.1, 0.9]}, "env_manager": "local"}
    series = series_rows(wards, "ward_id", "month", "beds", ["nursing_hours"], ["temperature"])
    lists = dict.fromkeys(series.columns[2:], "array<double>")
    kinds = {"series_id": "string", "last_timestamp": "timestamp"} | lists
    schema = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    for kind, training, table, given in (
        ("double", registered, spark.createDataFrame(rows.astype({"ward": object})), rows),
        ("array<double>", registered_wards, spark.createDataFrame(series, schema), series),
    ):
        result = f"struct<prediction: {kind}, `q0.1`: {kind}, `q0.9`: {kind}, status: string>"
        score = mlflow.pyfunc.spark_udf(spark, training.model_uri, result_type=result, **asked)
        found = table.coalesce(1).select(score().alias("out")).collect()
        expected = training.generation.predict(given, quantiles=(0.1, 0.9))
        for name in ("prediction", "q0.1", "q0.9", "status"):
            wanted = [w.tolist() if isinstance(w, np.ndarray) else w for w in expected[name]]
            assert [row["out"][name] for row in found] == wanted, name


def test_spark_gives_the_classes_of_python(spark, store, registered_classes, stays):
    generation = registered_classes.generation
    rows = stays[generation.schema.names].tail(100).reset_index(drop=True).assign(row=range(100))
    rows.loc[3, "age"] = float("inf")
    score = mlflow.pyfunc.spark_udf(spark, registered_classes.model_uri, env_manager="local")
    table = spark.createDataFrame(rows.astype({"ward": object})).repartition(3)
    table = table.withColumn("out", score())
    assert table.schema["out"].dataType.names == generation.output_columns
    found = {row["row"]: row["out"].asDict() for row in table.select("row", "out").collect()}
    expected = generation.predict(rows).astype(object)
    assert [found[i] for i in range(100)] == expected.where(expected.notna(), None).to_dict(
        orient="records"
    )


@pytest.mark.parametrize("partitions", [1, 5])
def test_series_get_the_bits_of_python_too(spark, store, registered_wards, wards, partitions):
    rows = series_rows(wards, "ward_id", "month", "beds", ["nursing_hours"], ["temperature"])
    rows.at[7, "y"] = [None] * 48
    forecast = mlflow.pyfunc.spark_udf(spark, registered_wards.model_uri, env_manager="local")
    lists = pyspark.sql.types.ArrayType(pyspark.sql.types.DoubleType())
    schema = pyspark.sql.types.StructType(
        [
            pyspark.sql.types.StructField("series_id", pyspark.sql.types.StringType()),
            pyspark.sql.types.StructField("last_timestamp", pyspark.sql.types.TimestampType()),
            *(pyspark.sql.types.StructField(name, lists) for name in rows.columns[2:]),
        ]
    )
    table = spark.createDataFrame(rows, schema).repartition(partitions)
    answer = table.withColumn("out", forecast()).select("series_id", "out").collect()
    found = {row["series_id"]: row["out"].asDict() for row in answer}
    expected = registered_wards.generation.predict(rows)
    assert found[rows.at[7, "series_id"]]["status"] == "missing: y"
    for series, (_, want) in zip(rows["series_id"], expected.iterrows(), strict=True):
        for name, value in want.items():
            got = found[series][name]
            if isinstance(value, np.ndarray):
                assert got == value.tolist(), name
            else:
                assert got == (None if pd.isna(value) else value), name


def test_series_with_plans_get_the_bits_of_python(spark, store, plan_model):
    rows = series_rows(planned_wards(), model=plan_model)
    rows.at[3, "planned"] = [*rows["planned"][3][:-1], None]
    with mlflow.start_run():
        uri = log_generation(plan_model).model_uri
    forecast = mlflow.pyfunc.spark_udf(spark, uri, env_manager="local")
    kinds = {"array": "array<double>", "datetime": "timestamp"}
    types = {name: kinds.get(kind, kind) for name, kind in plan_model.input_columns.items()}
    schema = ", ".join(f"{name} {types[name]}" for name in rows)
    table = spark.createDataFrame(rows, schema).coalesce(1)
    found = [row["out"] for row in table.select(forecast().alias("out")).collect()]
    expected = plan_model.predict(rows)
    assert [row["status"] for row in found] == expected["status"].tolist()
    assert found[3]["status"] == "missing: planned"
    for row, cell in zip(found, expected["prediction"], strict=True):
        assert row["prediction"] == (None if cell is None else cell.tolist())
