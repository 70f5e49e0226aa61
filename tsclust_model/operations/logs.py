"""Standard logging for the loop: lines for people on a terminal, JSON lines in a rotating file.

The loop sets this up and writes a record for each step; nothing else in the package logs. A record
is one line, whatever its text holds, and carries the id of the MLflow run.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tsclust_model.errors import ConfigurationError
from tsclust_model.mlflow_integration.runs import active_run_id
from tsclust_model.operations.settings import LoggingSettings

LOGGER = logging.getLogger("tsclust_model")

_NO_RUN = "-"


@contextmanager
def logging_to(settings: LoggingSettings, closing_line: bool = True) -> Iterator[logging.Logger]:
    """The logger of the loop with the handlers that are asked for, which are closed at the end.

    Parameters
    ----------
    settings : LoggingSettings
    closing_line : bool
        Whether the lines for people have the records that are marked ``closing``, too; False
        where the caller prints what they say.
    """
    handlers = list(_handlers(settings, closing_line))
    before, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(settings.level)
    LOGGER.propagate = False  # or somebody's root handler writes every record again
    for handler in handlers:
        handler.addFilter(_with_run_id)
        LOGGER.addHandler(handler)
    try:
        yield LOGGER
    finally:
        LOGGER.setLevel(before)
        LOGGER.propagate = propagate
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, run_id, step, message and details."""

    def format(self, record: logging.LogRecord) -> str:
        content = {
            "time": _time(record),
            "level": record.levelname,
            "run_id": getattr(record, "run_id", _NO_RUN),
            "step": getattr(record, "step", None),
            "message": record.getMessage(),
            "details": getattr(record, "details", {}),
        }
        if record.exc_info:
            content["error"] = getattr(record.exc_info[0], "__name__", "")
        return json.dumps(content, default=str)


class HumanLines(logging.Formatter):
    """A record as one line of text; what could break the line or the terminal is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        step = getattr(record, "step", None)
        text = f"{step}: {record.getMessage()}" if step else record.getMessage()
        run = str(getattr(record, "run_id", _NO_RUN))[:8]
        return f"{_time(record)} {record.levelname:<7} {run} {_printable(text)}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _handlers(settings: LoggingSettings, closing_line: bool) -> Iterator[logging.Handler]:
    if settings.console != "off":
        console = logging.StreamHandler(sys.stderr)
        console.setFormatter(HumanLines() if settings.console == "human" else JsonLines())
        if settings.console == "human" and not closing_line:
            console.addFilter(_no_closing)
        yield console
    else:
        yield logging.NullHandler()  # or logging itself writes errors to the terminal
    if settings.file is not None:
        try:
            Path(settings.file).parent.mkdir(parents=True, exist_ok=True)
            file = RotatingFileHandler(
                settings.file,
                maxBytes=settings.max_bytes,
                backupCount=settings.backups,
                encoding="utf-8",
            )
        except OSError as error:
            raise ConfigurationError(
                f"logging.file {settings.file} cannot be written: {error.strerror}"
            ) from error
        file.setFormatter(JsonLines())
        yield file


def _no_closing(record: logging.LogRecord) -> bool:
    return not getattr(record, "closing", False)


def _with_run_id(record: logging.LogRecord) -> bool:
    if not hasattr(record, "run_id"):
        record.run_id = active_run_id() or _NO_RUN
    return True
