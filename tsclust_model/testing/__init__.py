"""The contract of a fitted model as small named checks, for any test suite.

As scikit-learn's ``check_estimator`` and ``parametrize_with_checks``: `check_model` runs them all,
`model_checks` gives them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd

from tsclust_model.errors import ConfigurationError, PipelineError, listed
from tsclust_model.testing import answers, forecasts, models  # noqa: F401  (they register their checks)
from tsclust_model.testing.checking import CHECKS
from tsclust_model.testing.subjects import Subject, subject_of


class ModelCheckError(AssertionError):
    """A model breaks its contract.

    Parameters
    ----------
    failures : mapping of str to str
        What is wrong, by the name of the check.
    n_checks : int
        How many were run.

    Attributes
    ----------
    failures : dict of str to str
    """

    def __init__(self, failures: Mapping[str, str], n_checks: int) -> None:
        self.failures = dict(failures)
        told = "; ".join(f"{name} ({problem})" for name, problem in failures.items())
        super().__init__(f"{len(failures)} of {n_checks} checks failed: {told}")


def check_model(
    model: Any,
    frame: pd.DataFrame | None = None,
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    """Check that a fitted model keeps the contract that servers, Spark and the loop rely on.

    Parameters
    ----------
    model : str or object
        URI of a logged or registered model (``models:/hospital@champion``), what
        ``mlflow.pyfunc.load_model`` gave, a `Generation` or a `SeriesGeneration`.
    frame : DataFrame, optional
        Rows as for training, of which the first 200 (of series the first 200 series) are looked at.
        Cases without the target are labelled with the model's own predictions. Default: made of
        ``model.example()``, labelled in the same way; it holds neither gaps nor rare categories.
    expected_failures : mapping of str to str, optional
        Names of checks that must fail, and why. It is strict: one that passes is a failure.

    Raises
    ------
    ModelCheckError
        An `AssertionError` that names every check that failed; no value of a row is in it.
    ConfigurationError
        `expected_failures` names a check that does not apply to the model.
    MLflowIntegrationError
        There is no such model.

    Examples
    --------
    >>> from tsclust_model import generate_synthetic_data, train_model
    >>> data = generate_synthetic_data(200, 5, 0)
    >>> model = train_model(data.drop(columns="target"), data["target"])
    >>> check_model(model)
    """
    failures, n_checks = {}, 0
    for name, run in model_checks(model, frame, expected_failures=expected_failures):
        n_checks += 1
        try:
            run()
        except (AssertionError, PipelineError) as error:
            failures[name] = str(error)
        except Exception as error:  # a bug of the model; its text may quote a row
            failures[name] = type(error).__name__
    if failures:
        raise ModelCheckError(failures, n_checks)


def model_checks(
    model: Any,
    frame: pd.DataFrame | None = None,
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks that apply to a model, to parametrise tests with.

    Parameters
    ----------
    model, frame, expected_failures
        As of `check_model`.

    Yields
    ------
    name : str
    run : callable
        Without arguments; raises what the check finds wrong.

    Raises
    ------
    ConfigurationError, MLflowIntegrationError
        As of `check_model`.

    Examples
    --------
    ::

        CHECKS = dict(model_checks("models:/hospital@champion"))

        @pytest.mark.parametrize("name", CHECKS)
        def test_the_champion_keeps_its_contract(name):
            CHECKS[name]()
    """
    subject, expected = subject_of(model, frame), dict(expected_failures or {})
    names = [name for name, check in CHECKS.items() if check.needs <= subject.traits]
    unknown = [name for name in expected if name not in names]
    if unknown:
        raise ConfigurationError(
            f"expected_failures: no check of this model is named {listed(unknown)}; see the names "
            "of model_checks"
        )
    for name in names:
        run = _must_fail if name in expected else _run
        yield name, partial(run, subject, name, expected.get(name, ""))


def _run(subject: Subject, name: str, _: str) -> None:
    CHECKS[name].run(subject)


def _must_fail(subject: Subject, name: str, reason: str) -> None:
    try:
        CHECKS[name].run(subject)
    except Exception:  # whatever it is: it is known
        return
    raise AssertionError(f"it passes, although it is expected to fail: {reason}")
