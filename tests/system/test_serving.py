"""The served model: a real `mlflow models serve`, asked over HTTP."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import scoring_server

from tests.support import PROJECT
from tsclust_model.mlflow_integration.private_replies import _public_text
from tsclust_model.series.schema import series_rows

SECRET = "Mrs-Secret-4711"


@pytest.fixture(scope="session")
def servers(
    registered, registered_wards, registered_classes, store_folder: Path
) -> Iterator[dict[str, str]]:
    """URLs of a server of each model; they come up at once. Their logs stand beside the store."""
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{store_folder}/mlflow.db",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    processes, urls = [], {}
    for training in (registered, registered_wards, registered_classes):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = f"mlflow models serve -m {training.model_uri} --env-manager local -p {port}"
        with (store_folder / f"serve-{training.model_name}.log").open("wb") as log:
            process = subprocess.Popen(
                command.split(),
                stdout=log,
                stderr=log,
                env=environment,
                cwd=store_folder,
                start_new_session=True,
            )
        processes.append(process)
        urls[training.model_name] = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    for process, (name, url) in zip(processes, urls.items(), strict=True):
        while not answers(f"{url}/ping"):
            log_text = (store_folder / f"serve-{name}.log").read_text()
            assert process.poll() is None, log_text[-3000:]
            assert time.monotonic() < deadline, "the server did not come up"
    yield urls
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def server(servers) -> str:
    """URL of a server of hospital@champion."""
    return servers["hospital"]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def ask(server: str, body: str | bytes, kind: str = "application/json") -> tuple[int, str]:
    data = body if isinstance(body, bytes) else body.encode()
    request = urllib.request.Request(
        f"{server}/invocations", data=data, headers={"Content-Type": kind}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def strict(text: str) -> dict:
    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def rows(hospital: pd.DataFrame, registered) -> pd.DataFrame:
    """Rows as a client has them: numbers as they are, the boolean as text."""
    frame = hospital[registered.generation.schema.names].tail(60).reset_index(drop=True)
    return frame.assign(emergency=frame["emergency"].astype(str))


def as_json(rows: pd.DataFrame) -> tuple[str, str]:
    return json.dumps({"dataframe_split": rows.to_dict(orient="split")}), "application/json"


def as_records(rows: pd.DataFrame) -> tuple[str, str]:
    return json.dumps({"dataframe_records": rows.to_dict(orient="records")}), "application/json"


def as_csv(rows: pd.DataFrame) -> tuple[str, str]:
    return rows.to_csv(index=False), "text/csv"


def as_parquet(rows: pd.DataFrame) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    rows.to_parquet(buffer)
    return buffer.getvalue(), "application/vnd.apache.parquet"


@pytest.mark.parametrize("form", [as_json, as_records, as_csv, as_parquet])
def test_every_request_form_gives_the_bits_of_python(server, rows, registered, form):
    status, text = ask(server, *form(rows))
    assert status == 200
    found = pd.DataFrame(strict(text)["predictions"])
    expected = registered.generation.predict(rows)
    assert list(found.columns) == list(expected.columns)
    for name in expected:
        assert found[name].tolist() == expected[name].tolist(), name


def test_columns_in_another_order_and_more_of_them_change_nothing(server, rows):
    other = rows[rows.columns[::-1]].assign(patient=SECRET)
    assert ask(server, *as_json(other)) == ask(server, *as_json(rows))


def test_splitting_a_request_changes_no_row(server, rows):
    whole = strict(ask(server, *as_json(rows))[1])["predictions"]
    parts = [rows.iloc[:1], rows.iloc[1:7], rows.iloc[7:]]
    split = [strict(ask(server, *as_json(part))[1])["predictions"] for part in parts]
    assert [row for part in split for row in part] == whole


def test_rows_that_cannot_be_scored_are_null_with_a_status_and_others_untouched(server, rows):
    whole = strict(ask(server, *as_records(rows.head(4)))[1])["predictions"]
    records = rows.head(4).to_dict(orient="records")
    records[0]["age"] = None
    records[1] |= {"heart_rate": float("inf"), "ward": None}
    records[3]["creatinine"] = 1e300
    body = json.dumps({"dataframe_records": records})
    status, text = ask(server, body)
    assert status == 200
    found = strict(text)["predictions"]
    assert [row["status"] for row in found] == [
        "missing: age",
        "missing: ward; infinite: heart_rate",
        "ok",
        "out of range: creatinine",
    ]
    assert found[2] == whole[2]
    for number in (0, 1, 3):
        values = {key: value for key, value in found[number].items() if key != "status"}
        assert set(values.values()) == {None}


def test_an_empty_batch_gives_an_empty_answer(server, rows):
    assert ask(server, *as_json(rows.head(0))) == (200, '{"predictions": []}')


def test_a_boolean_may_come_as_json_true_or_as_text(server, rows):
    records = [rows.iloc[0].to_dict() | {"emergency": value} for value in (True, "true", "True")]
    status, text = ask(server, json.dumps({"dataframe_records": records}))
    assert status == 200
    first, *others = strict(text)["predictions"]
    assert others == [first, first]


def test_the_coverage_is_a_parameter_of_the_request(server, rows):
    def width(coverage: float) -> float:
        body = {
            "dataframe_records": rows.head(1).to_dict(orient="records"),
            "params": {"coverage": coverage},
        }
        (row,) = strict(ask(server, json.dumps(body))[1])["predictions"]
        return row["prediction_upper"] - row["prediction_lower"]

    assert width(0.5) < width(0.8) < width(0.95)


def test_quantiles_are_a_parameter_of_the_request(server, rows, registered):
    body = {"dataframe_records": rows.head(3).to_dict(orient="records")}
    params = {"quantiles": [0.1, 0.5, 0.9], "coverage": 0.8}
    found = strict(ask(server, json.dumps(body | {"params": params}))[1])["predictions"]
    expected = registered.generation.predict(rows.head(3), 0.8, (0.1, 0.5, 0.9))
    assert found == expected.astype(object).to_dict(orient="records")
    for row in found:
        wanted = [row["prediction_lower"], row["prediction"], row["prediction_upper"]]
        assert [row["q0.1"], row["q0.5"], row["q0.9"]] == wanted


def broken(rows: pd.DataFrame) -> dict[str, tuple[str | bytes, str]]:
    good = rows.head(1).assign(ward=SECRET)
    record = good.to_dict(orient="records")[0]
    without = {key: value for key, value in record.items() if key != "age"}

    def records(*found, **more) -> tuple[str, str]:
        return json.dumps({"dataframe_records": list(found)} | more), "application/json"

    return {
        "a missing column": records(without),
        "text in a number column": records(record | {"age": SECRET}),
        "a list in a number column": records(record | {"age": [SECRET]}),
        "bad json": (json.dumps({"dataframe_records": [record]})[:-3], "application/json"),
        "an unknown form": (json.dumps({SECRET: [record]}), "application/json"),
        "a wrong parameter type": records(record, params={"coverage": SECRET}),
        "an impossible coverage": records(record, params={"coverage": 7.5}),
        "quantiles that fall": records(record, params={"quantiles": [0.9, 0.1]}),
        "bad csv": (f"age,ward\n{SECRET},{SECRET}\n", "text/csv"),
        "ragged csv": (f"age,ward\n1,2,3,{SECRET}\n1,2\n", "text/csv"),
        "bad parquet": (SECRET.encode(), "application/vnd.apache.parquet"),
        "not utf-8": (b"\xff\xfe" + SECRET.encode(), "application/json"),
    }


EXPECTED = {
    "a missing column": "Model is missing inputs ['age']; compare it with the model's signature",
    "text in a number column": "Failed to convert column age to type 'float64'; "
    "compare it with the model's signature",
    "an impossible coverage": "coverage must be above 0 and below 1",
    "quantiles that fall": "quantiles must be up to 99 numbers above 0 and below 1 that rise, such "
    "as 0.1, 0.5, 0.9",
}


@pytest.mark.parametrize("case", list(broken(pd.DataFrame({"age": [1.0]}))))
def test_a_broken_request_is_a_400_of_one_line_without_rows_or_stack(server, rows, case):
    status, text = ask(server, *broken(rows)[case])
    reply = strict(text)
    assert status == 400
    assert SECRET not in text
    assert "Traceback" not in text
    assert "stack_trace" not in reply
    assert "\n" not in reply["message"]
    if case in EXPECTED:
        assert reply["message"] == EXPECTED[case]


def test_no_row_reaches_the_servers_log(server, rows, store_folder):
    for body, kind in broken(rows).values():
        ask(server, body, kind)
    ask(server, *as_json(rows.assign(ward=SECRET)))
    assert SECRET not in (store_folder / "serve-hospital.log").read_text()


def test_unknown_messages_of_mlflow_are_replaced_whole():
    assert SECRET not in _public_text(f"Something new about {SECRET}")
    assert _public_text("Model is missing inputs ['a', 'b']. Note").startswith(
        "Model is missing inputs ['a', 'b'];"
    )


def test_floats_survive_the_journey_exactly(server, rows, registered):
    rng = np.random.default_rng(0)
    noisy = rows.head(20).assign(age=rows["age"].head(20) + rng.normal(size=20) / 3)
    status, text = ask(server, *as_json(noisy))
    assert status == 200
    expected = registered.generation.predict(noisy)
    found = [row["cluster_strength"] for row in strict(text)["predictions"]]
    assert found == expected["cluster_strength"].tolist()


def test_classes_are_served_as_python_gives_them_in_strict_json(servers, registered_classes, stays):
    generation = registered_classes.generation
    rows = stays[generation.schema.names].tail(40).reset_index(drop=True)
    rows.loc[1, "ward"] = "new ward"
    rows.loc[2, "age"] = None  # missing values are imputed: it is scored
    records = rows.astype(object).where(rows.notna(), None).to_dict(orient="records")
    infinite = records[3] | {"age": float("inf")}
    url = servers["stays"]
    status, text = ask(url, json.dumps({"dataframe_records": [*records, infinite]}))
    single = ask(url, json.dumps({"dataframe_records": records[:1]}))
    refused = ask(url, json.dumps({"dataframe_records": [{"age": SECRET}]}))
    assert status == 200
    *found, unscored = strict(text)["predictions"]
    expected = generation.predict(rows)
    assert list(found[0]) == list(expected.columns) == generation.output_columns
    assert set(expected["prediction"]) == set(stays["stay"])
    for name in expected:
        assert [row[name] for row in found] == expected[name].tolist(), name
    assert unscored.pop("status") == "infinite: age"
    assert set(unscored.values()) == {None}
    assert strict(single[1])["predictions"] == found[:1]
    assert refused[0] == 400
    assert SECRET not in refused[1]


@pytest.fixture(scope="session")
def ward_server(servers) -> str:
    """URL of a server of known-wards@champion."""
    return servers["known-wards"]


@pytest.fixture
def ward_rows(wards) -> pd.DataFrame:
    return series_rows(wards, "ward_id", "month", "beds", ["nursing_hours"], ["temperature"])


def with_time_texts(rows: pd.DataFrame) -> pd.DataFrame:
    """JSON has no times."""
    return rows.assign(last_timestamp=rows["last_timestamp"].dt.strftime("%Y-%m-%d"))


@pytest.mark.parametrize("form", [as_json, as_records, as_parquet])
def test_series_get_the_bits_of_python_in_every_form_that_carries_arrays(
    ward_server, ward_rows, registered_wards, form
):
    rows = ward_rows if form is as_parquet else with_time_texts(ward_rows)
    status, text = ask(ward_server, *form(rows))
    assert status == 200, text
    found = pd.DataFrame(strict(text)["predictions"])
    expected = registered_wards.generation.predict(ward_rows)
    assert list(found.columns) == list(expected.columns)
    for name in expected:
        want = [v.tolist() if isinstance(v, np.ndarray) else v for v in expected[name]]
        assert found[name].tolist() == want, name


def test_a_series_that_cannot_be_scored_is_null_and_the_reply_strict(ward_server, ward_rows):
    rows = with_time_texts(ward_rows.head(3))
    rows.at[1, "y"] = [None] * len(rows.at[1, "y"])
    status, text = ask(ward_server, *as_records(rows))
    assert status == 200, text
    found = strict(text)["predictions"]
    assert [row["status"] for row in found] == ["ok", "missing: y", "ok"]
    assert {v for k, v in found[1].items() if k != "status"} == {None}


def test_a_list_of_whole_numbers_is_refused_and_a_null_before_it_is_the_remedy(
    ward_server, ward_rows
):
    """What JavaScript sends; mlflow reads such a list as int64 and converts none to double."""
    rows = with_time_texts(ward_rows.head(1)).assign(y=[[int(v) for v in ward_rows["y"].iloc[0]]])
    status, text = ask(ward_server, *as_records(rows))
    assert status == 400
    assert "\n" not in strict(text)["message"]
    padded = rows.copy()
    for name in ("y", "nursing_hours", "temperature"):
        padded[name] = [[None, *rows[name].iloc[0]]]
    status, text = ask(ward_server, *as_records(padded))
    assert status == 200, text
    _, plain = ask(ward_server, *as_records(with_time_texts(ward_rows.head(1))))
    assert strict(text) == strict(plain)


@pytest.mark.parametrize(
    "change",
    [
        {"y": SECRET},
        {"y": [SECRET]},
        {"y": None},
        {"last_timestamp": SECRET},
        {"series_id": 4711},
    ],
    ids=["a text", "texts", "no list", "no time", "a number as id"],
)
def test_a_broken_series_request_is_one_line_without_its_values(ward_server, ward_rows, change):
    record = with_time_texts(ward_rows.head(1)).to_dict("records")[0] | change
    status, text = ask(ward_server, json.dumps({"dataframe_records": [record]}))
    assert SECRET not in text
    assert "stack_trace" not in strict(text)
    if "series_id" not in change:
        assert status == 400
        assert "\n" not in strict(text)["message"]


# -- plans: mlflow's scoring app in this process, with a saved model ----------------------


@pytest.fixture(scope="module")
def with_plans() -> Iterator[tuple[mlflow.pyfunc.PyFuncModel, pd.DataFrame]]:
    """A model with plans, types of wards and holidays, and rows that it can score."""
    folder = PROJECT / "tests/saved_models/plans"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring_server, "invocations", scoring_server.invocations)
        rows = pd.read_parquet(folder / "inputs.parquet").tail(4).reset_index(drop=True)
        yield mlflow.pyfunc.load_model(str(folder / "code")), rows


def posted(model: mlflow.pyfunc.PyFuncModel, rows: pd.DataFrame, **params: object) -> list[dict]:
    body = json.dumps(
        {"dataframe_records": rows.to_dict("records"), "params": params}, default=list
    )
    schema = model.metadata.get_input_schema()
    answer = scoring_server.invocations(body, "application/json", model, schema)
    assert (answer.status, answer.mimetype) == (200, "application/json")
    return strict(answer.response)["predictions"]


def test_plans_and_quantiles_over_rest_give_the_bits_of_python(with_plans):
    model, rows = with_plans
    params = {"quantiles": [0.1, 0.5, 0.9], "coverage": 0.8}
    found = pd.DataFrame(posted(model, with_time_texts(rows), **params))
    expected = model.predict(rows, params)
    assert list(found.columns) == list(expected.columns)
    for name in expected:
        want = [v.tolist() if isinstance(v, np.ndarray) else v for v in expected[name]]
        assert found[name].tolist() == want, name
    assert found["q0.1"].tolist() == found["prediction_lower"].tolist()
    assert found["q0.9"].tolist() == found["prediction_upper"].tolist()


def test_what_is_planned_changes_the_forecast_of_its_step_alone(with_plans):
    model, rows = with_plans
    idle, busy = (with_time_texts(rows.head(1)) for _ in range(2))
    known = list(rows["planned"][0][:-4])
    idle["planned"], busy["planned"] = (
        [[*known, 0.0, 0.0, 0.0, 0.0]],
        [[*known, 0.0, 0.0, 1.0, 0.0]],
    )
    one, other = (posted(model, asked)[0]["prediction"] for asked in (idle, busy))
    assert other[2] > one[2] + 4
    assert [other[k] for k in (0, 1, 3)] == [one[k] for k in (0, 1, 3)]


def test_a_plan_that_ends_too_early_or_is_absent_is_told(with_plans):
    model, rows = with_plans
    short = with_time_texts(rows).assign(
        planned=[list(p[: len(p) - 4 * (i == 1)]) for i, p in enumerate(rows["planned"])]
    )
    found = posted(model, short)
    told = [row["status"] for row in found]
    assert told[0] == told[2] == told[3] == "ok"
    assert "planned" in told[1]
    assert {value for name, value in found[1].items() if name != "status"} == {None}
    with pytest.raises(mlflow.MlflowException) as refused:
        posted(model, with_time_texts(rows).drop(columns="planned"))
    assert refused.value.message == (
        "Model is missing inputs ['planned']; compare it with the model's signature"
    )
