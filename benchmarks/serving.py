"""The served model against the least that mlflow's server can do, and what a new version costs.

    python benchmarks/serving.py           # REST: 1 row and 10,000 rows as JSON
    python benchmarks/serving.py --load    # loads of a new version in fresh processes

The floor is a model that computes nothing: the same signature, as many output columns, on the same
server. Requests to both servers alternate. A load without kernels is that of the plain composition
of the libraries (`scoring.Plain`), logged as a model.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from scoring import Plain, rows_like

from tsclust_model.mlflow_integration.pyfunc import (
    PACKAGE,
    SegmentForecaster,
    requirements,
    seal_generation,
)
from tsclust_model.mlflow_integration.pyfunc import signature as signature_of

HERE = Path(__file__).parent


class Identity(mlflow.pyfunc.PythonModel):
    """Answers with columns it made before."""

    def __init__(self, answer: pd.DataFrame) -> None:
        self.answer = answer

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        return self.answer.iloc[: len(model_input)]


class PlainModel(mlflow.pyfunc.PythonModel):
    """The plain composition as a model."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        return self.plain.predict(model_input)


def save_models(folder: Path, n_train: int) -> pd.DataFrame:
    """Save the three models below `folder`; returns rows to score."""
    plain, data = Plain.fit(n_train)
    generation = plain.packed(data)
    rows = pd.DataFrame(rows_like(data, 10_000, 0.2), columns=data.schema.names)
    answer = generation.predict(rows)
    plain_columns = {
        name: answer[name].to_numpy(float) if name not in ("cluster_source", "status") else "ok"
        for name in answer
    }
    shared: dict[str, Any] = {
        "signature": signature_of(generation),
        "pip_requirements": requirements(),
    }
    ours = SegmentForecaster(seal_generation(generation))
    mlflow.pyfunc.save_model(
        folder / "ours", python_model=ours, code_paths=[str(PACKAGE)], **shared
    )
    mlflow.pyfunc.save_model(
        folder / "floor", python_model=Identity(pd.DataFrame(plain_columns)), **shared
    )
    code = [str(HERE / "scoring.py"), str(HERE / "training.py"), str(PACKAGE)]
    mlflow.pyfunc.save_model(
        folder / "plain", python_model=PlainModel(plain), code_paths=code, **shared
    )
    return rows


class Server:
    """`mlflow models serve` of a saved model."""

    def __init__(self, model: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        programs = str(Path(sys.executable).parent)
        command = ["mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            start_new_session=True,
        )
        self._wait()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def _wait(self) -> None:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5)
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return
        raise RuntimeError("the server did not start")

    def ask(self, body: bytes) -> float:
        """Seconds of one request over a connection that stays open."""
        start = time.perf_counter()
        self.connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        reply.read()
        assert reply.status == 200
        return time.perf_counter() - start

    def stop(self) -> None:
        self.connection.close()
        os.killpg(self.process.pid, 15)
        self.process.wait()


def rest(folder: Path, rows: pd.DataFrame, repeats: int) -> dict[str, Any]:
    servers = {name: Server(folder / name) for name in ("floor", "ours")}
    result: dict[str, Any] = {}
    try:
        for n, times in ((1, 20 * repeats), (10_000, repeats)):
            content = {"dataframe_split": rows.head(n).to_dict(orient="split", index=False)}
            body = json.dumps(content).encode()
            seconds: dict[str, list[float]] = {name: [] for name in servers}
            for i in range(times + 3):
                for name, server in servers.items():
                    taken = server.ask(body)
                    if i >= 3:
                        seconds[name].append(taken)
            p50 = {name: 1e3 * statistics.median(found) for name, found in seconds.items()}
            ratio = p50["ours"] / p50["floor"]
            print(
                f"{n:>6} rows as JSON: floor {p50['floor']:.2f} ms, ours {p50['ours']:.2f} ms, "
                f"{ratio:.2f} times the floor"
            )
            result[f"{n} rows"] = p50 | {"ratio": ratio}
    finally:
        for server in servers.values():
            server.stop()
    return result


_LOAD = """
import json, sys, time
import mlflow, pandas as pd
rows = pd.read_parquet(sys.argv[2])
start = time.perf_counter()
model = mlflow.pyfunc.load_model(sys.argv[1])
loaded = time.perf_counter()
model.predict(rows)
first = time.perf_counter()
model.predict(rows)
print(json.dumps([loaded - start, first - loaded, time.perf_counter() - first]))
"""


def loads(folder: Path, rows: pd.DataFrame, repeats: int) -> dict[str, Any]:
    """Fresh processes, each with another copy of the model; a cache folder of its own."""
    cache = folder / "cache"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    rows.head(1).to_parquet(folder / "row.parquet")

    def load(name: str, copy: int) -> list[float]:
        version = folder / f"{name}-{copy}"
        shutil.copytree(folder / name, version)
        before = sorted(version.rglob("*"))
        answer = subprocess.run(
            [sys.executable, "-B", "-c", _LOAD, str(version), str(folder / "row.parquet")],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert sorted(version.rglob("*")) == before, "the load wrote into the model"
        shutil.rmtree(version)
        return json.loads(answer.splitlines()[-1])

    result: dict[str, Any] = {"first": load("ours", 0)}
    runs = {"plain": [], "ours": []}
    for i in range(1, repeats + 1):
        for name, found in runs.items():
            found.append(load(name, i))
    for name, found in runs.items():
        result[name] = [statistics.median(values) for values in zip(*found, strict=True)]
    print(f"{'':<24}{'load s':>9}{'1st request ms':>16}{'2nd ms':>9}")
    for name, label in (
        ("first", "ours, nothing compiled"),
        ("ours", "ours, another version"),
        ("plain", "plain composition"),
    ):
        load_s, first_s, second_s = result[name]
        print(f"{label:<24}{load_s:>9.2f}{1e3 * first_s:>16.2f}{1e3 * second_s:>9.2f}")
    result["load_ratio"] = result["ours"][0] / result["plain"][0]
    result["request_ratio"] = result["ours"][1] / result["ours"][2]
    print(
        f"load {result['load_ratio']:.2f} times one without kernels, "
        f"first request {result['request_ratio']:.2f} times the second"
    )
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--repeats", type=int)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    with tempfile.TemporaryDirectory() as place:
        sample = save_models(Path(place), arguments.train)
        if arguments.load:
            answer = loads(Path(place), sample, arguments.repeats or 3)
        else:
            answer = rest(Path(place), sample, arguments.repeats or 15)
    print(json.dumps({"benchmark": "serving", "n_train": arguments.train} | answer))
