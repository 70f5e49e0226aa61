"""What a step of training tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Stage:
    """What a step of training tells whoever watches it; this one keeps it to itself."""

    def log(self, figures: Mapping[str, Any]) -> None:
        """Figures of the step, by name; None is undefined."""

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` pieces of work are finished."""


Stages = Callable[[str], AbstractContextManager[Stage]]


def silent(name: str) -> AbstractContextManager[Stage]:
    """The `Stages` of somebody who does not watch."""
    return nullcontext(Stage())
