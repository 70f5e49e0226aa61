"""One MLflow model: a generation behind `mlflow.pyfunc`, and how it is logged.

The logged object holds sealed plain data only (see `models.state`); scikit-learn, hdbscan
and LightGBM objects are built from it when it is loaded.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.pyfunc import PyFuncModel, PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec
from mlflow.types import Schema as MlflowSchema
from mlflow.types.schema import Array
from packaging.version import Version

import tsclust_model
from tsclust_model import __version__
from tsclust_model.clustering.engine import Scaler
from tsclust_model.clustering.fallback import KNNFallback
from tsclust_model.clustering.hdbscan_tree import DensityTree
from tsclust_model.errors import DataValidationError, MLflowIntegrationError, PredictionError
from tsclust_model.mlflow_integration.kinds import generation_of_parts
from tsclust_model.mlflow_integration.private_replies import RequestError, keep_rows_out_of_replies
from tsclust_model.models.base import FittedModel, FittedPipeline
from tsclust_model.models.state import Parts, digest, open_sealed, seal

Boosters = lgb.Booster | tuple[lgb.Booster, ...]

PACKAGE = Path(tsclust_model.__file__).parent

_REQUIRED = ("mlflow", "numpy", "pandas", "scikit-learn", "hdbscan", "lightgbm", "numba")

_TYPES: dict[str, Any] = {
    "double": DataType.double,
    "string": DataType.string,
    "long": DataType.long,
    "datetime": DataType.datetime,
    "array": Array(DataType.double),
}

_REQUIRED_TOO = ("cloudpickle", "scipy", "pyarrow", "pyyaml", "fsspec")


class SegmentForecaster(PythonModel):
    """The served model.

    Parameters
    ----------
    parts : dict of str to bytes, optional
        The sealed state of a `Generation`; without it the state is read from the artifact
        ``state`` when the model is loaded (models-from-code).

    Attributes
    ----------
    generation : FittedModel
        After `load_context`.
    """

    generation: FittedModel

    __module__ = "tsclust_model.pyfunc"  # pickles of every version name one place

    def __init__(self, parts: Parts | None = None) -> None:
        self.parts = parts

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def load_context(self, context: Any) -> None:
        """Check the state and build the generation; called by mlflow once a load."""
        if self.parts is None:
            self.parts = read_parts(Path(context.artifacts["state"]))
        self.generation = open_generation(self.parts)
        self.generation.predict(self.generation.example())  # parses the models: no cold request
        keep_rows_out_of_replies()

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score a table, row by row; see `Generation.predict`.

        Parameters
        ----------
        context : object
            mlflow's; unused.
        model_input : DataFrame
            The columns of the signature.
        params : dict, optional
            ``coverage``: of the intervals, above 0 and below 1. ``quantiles``: a list of rising
            probabilities, each of which adds a column (``q0.1``).

        Raises
        ------
        RequestError
            A column or parameter does not fit; never quotes a row.
        """
        try:
            given = params or {}
            coverage, quantiles = given.get("coverage"), given.get("quantiles")
            asked = () if quantiles is None else quantiles
            return self.generation.predict(model_input, coverage, asked)
        except (DataValidationError, PredictionError) as error:
            raise RequestError(str(error)) from error

    @property
    def _segments(self) -> FittedPipeline:
        """The model, which is no baseline."""
        return cast(FittedPipeline, self.generation)

    @property
    def scaler(self) -> Scaler:
        return self._segments.segmentation.scaler

    @property
    def clustering(self) -> DensityTree:
        return self._segments.segmentation.density

    @property
    def fallback(self) -> KNNFallback | None:
        return self._segments.segmentation.fallback

    @property
    def timeseries_models(self) -> dict[int, Boosters]:
        """The target's models by cluster; of series, one for each base they correct."""
        return dict(self._segments.target.cluster_boosters)

    @property
    def resource_models(self) -> dict[str, dict[int, Boosters]]:
        """Each resource's models by cluster."""
        return {name: dict(m.cluster_boosters) for name, m in self._segments.resources.items()}

    @property
    def global_models(self) -> dict[str, Boosters]:
        """The global model of the target and of each resource."""
        named = {"target": self._segments.target} | self._segments.resources
        return {name: model.global_booster for name, model in named.items()}

    @property
    def state_digest(self) -> str:
        """sha256 of the whole state; the registered version carries it as a tag."""
        if self.parts is None:
            raise MLflowIntegrationError("the model has no state yet; load it through mlflow")
        return digest(self.parts)


def seal_generation(generation: FittedModel) -> Parts:
    """The generation's state with checksums and the code it belongs to."""
    return seal(generation.to_parts(), __version__, code_digest())


def open_generation(parts: Parts) -> FittedModel:
    """The model of a sealed state, after every check.

    One process runs one build of this package, whichever was imported first (mlflow issue 12395).
    A newer build reads the states of older ones; any other build refuses, because it might
    answer differently from the code the model was logged with.
    """
    manifest = open_sealed(parts)
    logged = str(manifest["package_version"])
    if manifest["code_digest"] != code_digest() and Version(__version__) <= Version(logged):
        raise MLflowIntegrationError(
            f"the model was logged by tsclust_model {logged}, and this process has already "
            f"imported another build ({__version__}); load the model in a process of its own"
        )
    return generation_of_parts(parts)


@functools.cache
def code_digest() -> str:
    """sha256 of this package's source files."""
    return source_digest(PACKAGE)


def source_digest(package: Path) -> str:
    """sha256 of the source files of a folder and those below, by relative name."""
    content = hashlib.sha256()
    names = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    for name, path in sorted(names.items()):
        content.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


def signature(generation: FittedModel) -> ModelSignature:
    """Input columns by name (numbers as double, categories as string), outputs and parameters.

    A model of series takes and gives arrays of double, one row per series. The columns of
    `quantiles` are no outputs: an output must always be there.
    """
    inputs = [ColSpec(_TYPES[kind], name) for name, kind in generation.input_columns.items()]
    outputs = [
        ColSpec(_TYPES[kind], name, required=False)
        for name, kind in generation.output_types.items()
    ]
    params = [ParamSpec("quantiles", DataType.double, [], (-1,))]
    if "prediction_lower" in generation.output_types:
        coverage = np.float64(generation.config.coverage)
        params.insert(0, ParamSpec("coverage", DataType.double, coverage))
    return ModelSignature(
        MlflowSchema(inputs),  # type: ignore[arg-type]
        MlflowSchema(outputs),  # type: ignore[arg-type]
        ParamSchema(params),
    )


def requirements(*more: str) -> list[str]:
    """What the model needs, pinned to what it was made with."""
    return [_pinned(name) for name in (*_REQUIRED, *_REQUIRED_TOO, *more)]


@functools.cache
def _pinned(name: str) -> str:
    return f"{name}=={version(name)}"  # which parses the metadata of the installed package


def model_arguments(generation: FittedModel) -> tuple[Parts, dict[str, Any]]:
    """The sealed state, and what mlflow's ``save_model`` and ``log_model`` take beside it."""
    parts = seal_generation(generation)
    return parts, {
        "signature": signature(generation),
        "input_example": generation.example(),
        "code_paths": [str(PACKAGE)],
        "pip_requirements": requirements(*generation.libraries),
        "metadata": {"state_sha256": digest(parts), "tsclust_model": __version__},
    }


def log_generation(generation: FittedModel, serialization: str = "cloudpickle") -> ModelInfo:
    """Log the model as one MLflow model under the active run.

    `serialization` is 'cloudpickle', a pickled instance, or 'code', models-from-code beside the
    same state as files.
    """
    return _kept(
        generation, serialization, functools.partial(mlflow.pyfunc.log_model, name="model")
    )


def save_generation(
    generation: FittedModel, path: Path, serialization: str = "cloudpickle"
) -> None:
    """Save the generation as one MLflow model in a new folder; see `log_generation`."""
    _kept(generation, serialization, functools.partial(mlflow.pyfunc.save_model, path))


def reloaded(generation: FittedModel, serialization: str) -> PyFuncModel:
    """The generation as mlflow serves it, after it was saved to a folder and loaded from there."""
    with tempfile.TemporaryDirectory() as folder:
        save_generation(generation, Path(folder) / "model", serialization)
        return mlflow.pyfunc.load_model(str(Path(folder) / "model"))


def _kept(generation: FittedModel, serialization: str, keep: Callable[..., Any]) -> Any:
    parts, shared = model_arguments(generation)
    if serialization == "cloudpickle":
        with without_pickle_warning():
            return keep(python_model=SegmentForecaster(parts), **shared)
    with tempfile.TemporaryDirectory() as folder:
        write_parts(parts, Path(folder))
        code = str(PACKAGE / "mlflow_integration" / "models_from_code.py")
        return keep(python_model=code, artifacts={"state": folder}, **shared)


@contextmanager
def without_pickle_warning() -> Iterator[None]:
    """Leave mlflow's advice against pickles out: ``serialization: code`` is the choice it means."""
    logger = logging.getLogger("mlflow.pyfunc")
    logger.addFilter(_is_no_pickle_warning)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_pickle_warning)


def _is_no_pickle_warning(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Passing a Python object as `python_model`")


def write_parts(parts: Parts, folder: Path) -> None:
    for name, part in parts.items():
        (folder / name).write_bytes(part)


def read_parts(folder: Path) -> Parts:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


# Pickles name the class by `tsclust_model.pyfunc`, which must be there when one is written.
import tsclust_model.pyfunc  # noqa: E402
