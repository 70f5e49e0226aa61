"""``tsclust``: the commands, their options and examples.

A command calls `run` of the module of its name. It is imported only then, so that ``--help`` does
not wait for pandas, MLflow and scikit-learn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from tsclust_model import __version__
from tsclust_model.commands.running import work

Declaration = Callable[..., Any]

# --model_uri as well as --model-uri: parameters of an MLproject have underscores.
_SETTINGS = {
    "show_default": True,
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "max_content_width": 100,
}
_DATA = "path, glob or URL of a csv, tsv, parquet, json, xlsx or hdf5 file"
_SETTINGS_FILE = "YAML file of settings (the fields of PipelineConfig)"


@click.group(
    context_settings=_SETTINGS,
    epilog="tsclust COMMAND --help shows the options of a command and an example.",
)
@click.version_option(__version__, prog_name="tsclust")
def tsclust() -> None:
    """Find segments, forecast each of them, and serve both as one MLflow model."""


def command(example: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a declaration a command of `tsclust`, which runs the `run` of its module."""

    def declare(declaration: Callable[..., None]) -> click.Command:
        name = declaration.__name__

        @functools.wraps(declaration)
        def call(working_dir: str, **options: Any) -> None:
            work(name, working_dir, options)

        made = tsclust.command(
            name.replace("_", "-"),
            context_settings=_SETTINGS,
            epilog=f"\b\nExample:\n  {example}",
        )(call)
        made.params.append(_working_dir())
        return made

    return declare


def _working_dir() -> click.Option:
    """The user's folder, which only a parameter of type path tells under ``mlflow run``."""
    return click.Option(
        ["--working-dir"],
        default=".",
        show_default="the current folder",
        type=click.Path(exists=True, file_okay=False),
        help="folder from which relative paths and mlflow.db are looked up",
    )


def _optional(name: str, help: str, default: str) -> Callable[[Declaration], Declaration]:
    """An option whose empty string, which is how ``mlflow run`` passes "not given", is None."""
    return click.option(
        name, default="", show_default=default, callback=lambda *given: given[2] or None, help=help
    )


def _names(name: str, help: str, default: str) -> Callable[[Declaration], Declaration]:
    """An option of names: ``a, b`` is ('a', 'b')."""
    return click.option(name, default="", show_default=default, callback=_split, help=help)


def _split(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _only_local(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value != "local":
        raise click.UsageError(
            f"engine '{value}' is not there yet; use 'local' (score has engine spark)"
        )
    return value


_engine = click.option(
    "--engine",
    default="local",
    type=click.Choice(["local", "spark"]),
    callback=_only_local,
    expose_value=False,
    help="what runs the command; spark is reserved for a later version",
)
_model_uri = click.option(
    "--model-uri", required=True, help="the model, such as models:/stays@champion"
)
_model_name = _optional(
    "--model-name", "name of the registered model", "from the settings, else timeseries-clustering"
)


@command("tsclust demo")
@click.option("--folder", default="demo", help="where the synthetic tables are written")
def demo() -> None:
    """Train on a synthetic hospital and register the model.

    Writes a table of admissions, its holdout and a table of new patients, and prints what to do
    next.
    """


@command(
    "tsclust train --data stays.csv --target days --time admitted --id patient \\\n"
    "    --holdout 0.2 --model-name stays"
)
@click.option("--data", required=True, help=_DATA)
@click.option("--target", required=True, help="column to predict")
@_names(
    "--features",
    "input columns, separated by commas",
    "all columns without another role; for series none",
)
@_names("--resources", "further columns to predict, separated by commas", "none")
@_optional("--time", "column that orders the rows", "the order in the file")
@_optional("--id", "column that says whose row it is, such as a patient", "none")
@click.option(
    "--horizon", default=0, help="number of periods of each series to forecast; 0 for no series"
)
@_optional(
    "--frequency",
    "length of a period of series: MS, W, D, h, period/12 ...",
    "the most common step",
)
@_names(
    "--future",
    "covariates of series that are known for the horizon as well, such as plans",
    "none",
)
@_names("--static", "covariates with one value for each series, such as the kind of ward", "none")
@_optional("--holidays", "country whose holidays are a covariate of series: AU, AU-NSW ...", "none")
@click.option(
    "--holdout", default=0.0, help="newest share of the rows, only evaluated on and never fitted"
)
@_names(
    "--drop-columns",
    "columns not to use, in addition to those of the settings, separated by commas",
    "none",
)
@click.option(
    "--task",
    default="",
    show_default="from the settings, else auto",
    type=click.Choice(["", "auto", "regression", "classification"]),
    metavar="[auto|regression|classification]",
    help="whether the target is a number or a class",
)
@_optional("--config", _SETTINGS_FILE, "the defaults of PipelineConfig")
@_model_name
@_engine
def train() -> None:
    """Train a model on a table and register it.

    Finds segments, fits a global model and one model per segment, and registers all of it as one
    MLflow model. The new version becomes @champion.
    """


@command("tsclust retrain --data newest.csv --model-name stays --if-due true")
@_optional("--data", f"new rows: {_DATA}", "none; uses the rows that are stored")
@_model_name
@click.option("--reason", default="Manual request", help="reason to record with the new version")
@click.option(
    "--if-due",
    default=False,
    type=bool,
    help="retrain only if the data has drifted or accuracy fell",
)
@click.option("--promote", default=True, type=bool, help="promote the challenger if it is better")
@_optional("--config", _SETTINGS_FILE, "the champion's")
@_engine
def retrain() -> None:
    """Add new rows to a model's history and retrain it.

    Trains a challenger, compares it with the champion, and promotes it if it is better. A scheduler
    may call this at any time: rows that were added before count once.
    """


@command("tsclust evaluate --data newest.csv --model-uri models:/stays@champion")
@click.option("--data", required=True, help=_DATA)
@_model_uri
@_optional("--baseline-uri", "second model to evaluate on the same rows", "none")
@click.option(
    "--fail-on-regression",
    default=False,
    type=bool,
    help="exit with 1 if the error is above the baseline's or, without a baseline, more than 1% "
    "above that of the model's own global model",
)
@_optional(
    "--config",
    "YAML file of `tsclust pipeline`: exit with 1 if one of its monitoring.thresholds is missed",
    "none",
)
def evaluate() -> None:
    """Compare forecasts with outcomes.

    Only rows that the model was not trained on count.
    """


@command("tsclust score --data new.csv --model-uri models:/stays@champion --output scored.csv")
@click.option("--data", required=True, help=_DATA)
@_model_uri
@click.option("--output", required=True, help="path or URL of the .parquet or .csv file to write")
@_names("--quantiles", "quantiles to write beside the forecast, such as 0.1,0.5,0.9", "none")
@click.option(
    "--engine",
    default="local",
    type=click.Choice(["local", "spark"]),
    help="what scores; spark: data is a folder of parquet or a table, output a folder",
)
def score() -> None:
    """Write a forecast for each row of a table.

    The id and time columns are written too, if the table has them.
    """


@command("tsclust analyze --request request.json --output analysis --promote-to-config train.yaml")
@click.option(
    "--request", required=True, help="JSON file with the question; docs/analysis.md has the fields"
)
@click.option(
    "--output",
    required=True,
    help="folder for result.json and the plots, or a file that ends in .json",
)
@_optional(
    "--promote-to-config",
    "YAML file to write: settings that train on the recommended clustering",
    "none",
)
def analyze() -> None:
    """Find out which clustering suits a table.

    Runs one clustering, or with algorithm "auto" many, and writes figures, plots and a
    recommendation.
    """


@command("tsclust pipeline --config pipeline.yaml")
@click.option(
    "--config", required=True, help="YAML file; docs/configuration_guide.md explains the keys"
)
@click.option("--json", default=False, type=bool, help="print the result as JSON, and nothing else")
def pipeline() -> None:
    """Run the whole operations loop.

    Ingests and checks the data, retrains if that is due, evaluates and records. Exits with 1 if
    something needs attention. A scheduler may call this at any time.
    """


@command("tsclust compile-kfp pipeline.yaml -o pipeline.kfp.yaml")
@click.argument("config")
@click.option("-o", "--output", default="pipeline.kfp.yaml", help="compiled pipeline to write")
@click.option(
    "--image", default=f"tsclust-model:{__version__}", help="image of every step; it must have kfp"
)
@click.option("--claim", default="tsclust-data", help="PersistentVolumeClaim that the steps share")
@click.option(
    "--mount", default="/var/lib/tsclust", help="where the claim is mounted in every step"
)
def compile_kfp() -> None:
    """Compile the operations loop for Kubeflow Pipelines.

    CONFIG is the YAML file of `tsclust pipeline`.
    """


if __name__ == "__main__":
    tsclust()
