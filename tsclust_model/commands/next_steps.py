"""What to type next: commands that work where they are printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tsclust_model.commands.running import typed_in
from tsclust_model.mlflow_integration.registry import store_address
from tsclust_model.mlflow_integration.runs import project_of
from tsclust_model.mlflow_integration.stores import embedded_file

_PROJECT = Path(__file__).resolve().parents[2]


class NextSteps:
    """Commands for the shell that started a run, be it with ``tsclust`` or ``mlflow run``.

    Parameters
    ----------
    run_id : str
        The run; one of ``mlflow run`` knows its project and its environment.
    """

    def __init__(self, run_id: str) -> None:
        self._project, self._environment = project_of(run_id)

    def once(self) -> str | None:
        """What to type before the others, if anything: the folder and the environment."""
        words = []
        if self._project is None and typed_in() != Path.cwd():
            words.append(shlex.join(["cd", str(Path.cwd())]))
        if self._environment == "local" and _needs_activation():
            place = os.path.relpath(Path(sys.prefix) / "bin" / "activate")
            words.append(shlex.join([".", place]))
        return " && ".join(words) or None

    def command(self, name: str, **options: str) -> str:
        """``tsclust <name>`` with options; ``mlflow run`` where `tsclust` is not installed."""
        program = _program() if self._environment == "local" else None
        if program is not None:
            words = [program, name]
            for key, value in options.items():
                words += [f"--{key.replace('_', '-')}", value]
            return shlex.join(words)
        words = ["mlflow", "run", self._project or str(_PROJECT), "-e", name]
        words += ["--env-manager", self._environment]
        for key, value in options.items():
            words += ["-P", f"{key}={value}"]
        return shlex.join(words)

    def serve(self, uri: str) -> str:
        words = ["mlflow", "models", "serve", "-m", uri, "--env-manager", self._environment]
        return shlex.join(words)

    def look(self) -> str:
        """Where runs and models are seen: a server's address, or what starts one."""
        store = store_address()
        if store.startswith("http"):
            return store
        # `mlflow ui` by itself takes the store of the folder, and never MLFLOW_TRACKING_URI.
        is_default = embedded_file(store) == Path.cwd() / "mlflow.db"
        if is_default or "MLFLOW_TRACKING_URI" not in os.environ:
            return "mlflow ui"
        return 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'


def _needs_activation() -> bool:
    in_venv = sys.prefix != sys.base_prefix
    return in_venv and os.environ.get("VIRTUAL_ENV") != sys.prefix


def _program() -> str | None:
    """How the shell calls ``tsclust``; None where the package is not installed."""
    on_path, beside = shutil.which("tsclust"), Path(sys.executable).with_name("tsclust")
    if on_path or (beside.exists() and _needs_activation()):
        return "tsclust"
    return str(beside) if beside.exists() else None
