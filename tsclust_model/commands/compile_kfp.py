"""``tsclust compile-kfp``: the operations loop as a pipeline of Kubeflow (KFP v2)."""

# No `from __future__ import annotations`: kfp reads the types of parameters.

import json
from pathlib import Path, PurePosixPath
from typing import Any

import click

from tsclust_model.commands.kubeflow_steps import advance, ingest
from tsclust_model.config_files import read_yaml
from tsclust_model.errors import ConfigurationError
from tsclust_model.mlflow_integration.storage import ROOT_VARIABLE
from tsclust_model.operations.settings import LoopSettings, load_settings

# Steps that share a container: to start one costs more than most of them.
TASKS = {
    "check": ["check_quality", "check_monitor"],
    "train": ["train"],
    "evaluate": ["evaluate", "record"],
}
_SECRETS = ("password", "token")


def run(config: str, output: str, image: str, claim: str, mount: str) -> None:
    """Compile the loop that a YAML file describes into a file that Kubeflow Pipelines takes."""
    settings = load_settings(config)
    content = read_yaml(config)
    _refuse_secrets(content)
    _require_shared(settings, mount)
    # One line: kfp repeats it in a comment at the top of its file.
    pipeline = loop_pipeline(json.dumps(content, default=str), image, claim, mount)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    _kfp().compiler.Compiler().compile(pipeline, output)
    click.echo(f"{output}: ingest, {', '.join(TASKS)}, in image {image}; run one at a time")
    data = settings.data.path
    if "://" not in data and not PurePosixPath(data).is_absolute():
        click.echo(
            f"data.path is '{data}', which a step looks for in the image's working folder; give "
            f"one below {mount}, or a URL"
        )


def loop_pipeline(config: str, image: str, claim: str, mount: str) -> Any:
    """The loop as a pipeline of kfp.

    Parameters
    ----------
    config : str
        Text of the settings: the default of the pipeline's parameter of that name.
    image : str
        Of every step; it must hold this package and kfp.
    claim, mount : str
        PersistentVolumeClaim that the steps share, and where it is mounted.
    """
    dsl = _kfp().dsl
    given = {"base_image": image, "install_kfp_package": False}  # the image has it
    read, take = dsl.component(ingest, **given), dsl.component(advance, **given)
    text = config

    def placed(task: Any, name: str) -> Any:
        """New data comes under an old path: a step is never answered from the cache."""
        task.set_display_name(name).set_caching_options(False)
        task.set_env_variable(ROOT_VARIABLE, f"{mount}/storage")
        task.platform_config["kubernetes"] = {
            "pvcMount": [
                {
                    "mountPath": mount,
                    "constant": claim,
                    "pvcNameParameter": {"runtimeValue": {"constant": claim}},
                }
            ]
        }
        return task

    @dsl.pipeline(name="tsclust-loop", description="The operations loop of tsclust-model")
    def loop(config: str = text) -> None:
        versions = placed(read(config=config), "ingest")
        # One version after the other: each may be what the next is compared with.
        with dsl.ParallelFor(versions.output, parallelism=1) as version:
            outcome: Any = "{}"
            for name, steps in TASKS.items():
                task = take(steps=steps, config=config, data_version=version, outcome=outcome)
                outcome = placed(task, name).output

    return loop


def _kfp() -> Any:
    try:
        import kfp
        import kfp.compiler
        import kfp.dsl
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "compile_kfp needs one more package: pip install 'tsclust-model[kubeflow]'"
        ) from error
    return kfp


def _refuse_secrets(content: dict[str, Any]) -> None:
    given = content.get("mlflow") or {}
    for name in _SECRETS:
        if "${" not in str(given.get(name) or "${"):
            raise ConfigurationError(
                f"mlflow.{name} is written out and would be compiled into the pipeline; "
                f"write ${{MLFLOW_{name.upper()}}} and give the steps that variable"
            )


def _require_shared(settings: LoopSettings, mount: str) -> None:
    """Every step runs in a container of its own: what they keep must be on the volume.

    It is by default (``TSCLUST_STORAGE`` is set for each step).
    """
    folders = {
        "data.versions_dir": settings.data.versions_dir,
        "monitoring.dir": settings.monitoring.dir,
        "model.history_dir": settings.pipeline.history_dir,
    }
    for name, folder in folders.items():
        if folder is not None and not PurePosixPath(folder).is_relative_to(mount):
            raise ConfigurationError(
                f"{name} is '{folder}', which the steps do not share; name a folder below {mount}, "
                "or another --mount"
            )
