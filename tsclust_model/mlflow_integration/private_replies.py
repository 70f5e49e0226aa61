"""Keeps patients' rows out of the replies of mlflow's scoring server.

mlflow's server repeats the request in its error replies ("Failed to predict data '...'", the text
that is no number, the JSON that does not parse) and adds a stack trace to some. A model cannot
reach those replies from ``predict``, so loading a model inside that server wraps the one function
that makes them. The status code and the error code stay mlflow's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, ErrorCode

_SERVER = "mlflow.pyfunc.scoring_server"

# The parts of mlflow's messages that name columns, types or parameters, and nothing of a row.
_SAFE = (
    re.compile(r"Model is missing inputs \[[^\]]*\]"),
    re.compile(r"Failed to convert column .+? (?:to|from) type '?\w+'?"),
    re.compile(r"Incompatible input types for column .+?\. Can not safely convert \S+ to \S+?\."),
    re.compile(r"Failed to validate type and shape for '[^']*': \w+"),
)

_REMEDY = "compare it with the model's signature"


class RequestError(MlflowException):
    """A request this model refuses: 400, one line, whatever mlflow's server adds to it."""

    def __init__(self, text: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        self._text = text
        super().__init__(text, error_code=error_code)

    @property
    def message(self) -> str:
        return self._text

    @message.setter
    def message(self, value: str) -> None:
        """The server would put the request's rows in front of the text; they stay out."""


def keep_rows_out_of_replies() -> None:
    """Wrap the scoring server of this process, if this process is one; once."""
    server: Any = sys.modules.get(_SERVER)
    if server is not None and not hasattr(server.invocations, "answers_without_rows"):
        server.invocations = _without_rows(server.invocations)


def _without_rows(invocations: Callable[..., Any]) -> Callable[..., Any]:
    def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return invocations(*args, **kwargs)
        except RequestError:
            raise
        except MlflowException as error:
            raise RequestError(
                _public_text(error.message), ErrorCode.Value(error.error_code)
            ) from None

    answer.answers_without_rows = True  # type: ignore[attr-defined]
    return answer


def _public_text(message: str) -> str:
    for pattern in _SAFE:
        match = pattern.search(message)
        if match:
            return f"{match.group()}; {_REMEDY}"
    return f"the request could not be read or scored; {_REMEDY}"
