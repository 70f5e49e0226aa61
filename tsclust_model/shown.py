"""How an object shows itself at a prompt, in a log or a traceback: one line, and never a row."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

_LONGEST_TEXT = 60
_LONGEST_LINE = 300

Class = TypeVar("Class", bound=type)


def one_line(cls: Class) -> Class:
    """Class decorator of dataclasses whose fields hold rows, models or other large things.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @one_line
    ... @dataclass
    ... class Batch:
    ...     name: str
    ...     X: np.ndarray
    >>> Batch("monday", np.zeros((3, 2)))
    Batch(name='monday', X=array(3, 2))
    """
    cls.__repr__ = _line  # type: ignore[method-assign, assignment]
    return cls


def _line(self: Any) -> str:
    shown = ", ".join(
        f"{item.name}={_brief(getattr(self, item.name, None))}" for item in fields(self)
    )
    line = f"{type(self).__name__}({shown})"
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 4]}...)"


def _brief(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float, np.number)):
        return str(value)
    if isinstance(value, (str, date, Path)):
        text = str(value)
        return repr(text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}...")
    if hasattr(value, "shape"):
        kind = "array" if isinstance(value, np.ndarray) else type(value).__name__
        return f"{kind}({', '.join(map(str, value.shape))})"
    if isinstance(value, (Mapping, tuple, list, set, frozenset)) and isinstance(value, Sized):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
