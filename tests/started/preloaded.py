"""``python preloaded.py SOCKET``: import what is heavy once, and fork for each program of a test.

A program runs in a process of its own, with its own arguments, folder, environment and streams, and
imports this project itself. Only the libraries are there already, which take four seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import types
from pathlib import Path

LIBRARIES = (
    *("mlflow", "mlflow.projects", "mlflow.pyfunc", "mlflow.cli", "mlflow.store.db_migrations"),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"),
    *("lightgbm", "hdbscan", "numba", "matplotlib.backends.backend_agg", "matplotlib.figure"),
    *("sklearn.ensemble", "sklearn.linear_model", "sklearn.neighbors", "sklearn.manifold"),
    *("pyarrow.parquet", "pyarrow.dataset", "alembic.command", "pydantic", "jinja2"),
    *("uvicorn", "fastapi", "flask", "graphene"),
    *("scipy.spatial", "scipy.cluster.hierarchy", "tqdm", "yaml", "click"),
)


def main(address: str) -> None:
    """Serve programs until the input of this process ends."""
    sys.path.pop(0)
    gc.disable()
    for name in LIBRARIES:
        importlib.import_module(name)
    importlib.import_module("numba").njit(abs_of)(1.0)  # its tables
    # What mlflow.pyfunc.load_model looks up among all installed packages, once a process.
    importlib.import_module("mlflow.utils.requirements_utils")._init_packages_to_modules_map()
    gc.freeze()
    ended, end = os.pipe()
    os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(end)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        callers: dict[int, socket.socket] = {}
        while True:
            ready = select.select([sys.stdin, server, ended, *callers.values()], [], [])[0]
            if sys.stdin in ready:
                break
            if server in ready:
                caller, _ = server.accept()
                callers[start(caller)] = caller
            if ended in ready:
                os.read(ended, 100)
            for program, caller in list(callers.items()):
                if caller in ready:  # it is gone
                    with contextlib.suppress(ProcessLookupError):  # no group yet: look again
                        os.killpg(program, signal.SIGKILL)
                found, status = os.waitpid(program, os.WNOHANG)
                if found:
                    with callers.pop(program), contextlib.suppress(BrokenPipeError):
                        caller.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        for program in callers:
            os.killpg(program, signal.SIGKILL)
            os.waitpid(program, 0)


def abs_of(x: float) -> float:
    return abs(x)


def start(caller: socket.socket) -> int:
    """The id of a new process that runs what the caller asks for."""
    size, streams, _, _ = socket.recv_fds(caller, 4, 3)
    with caller.makefile("rb") as stream:
        words, folder, environment = json.loads(stream.read(int.from_bytes(size, "big")))
    program = os.fork()
    if program == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        caller.close()
        os.setsid()  # it ends with what it starts
        sys.executable = str(Path(sys.argv[1]).with_name("python"))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        code = exit_code(words)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # an interpreter that takes itself to pieces writes on every page
    for number in streams:
        os.close(number)
    return program


def exit_code(words: list[str]) -> int:
    """What an interpreter answers; it waits for threads, and calls what wants to be called."""
    try:
        run(words)
    except SystemExit as found:
        code = found.code
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    return int(code is not None) if isinstance(code, str | None) else code


def run(words: list[str]) -> None:
    """``python -m module ...``, ``python -c code ...`` or ``python file ...``, in this process."""
    kind, what, arguments = words[0], words[0], words[1:]
    if kind in ("-m", "-c"):
        what, arguments = words[1], words[2:]
    first = {"-m": os.getcwd(), "-c": ""}.get(kind, os.path.dirname(os.path.abspath(what)))
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [first, *(path for path in named if path)]
    sys.argv[:] = [what if kind not in ("-m", "-c") else kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
