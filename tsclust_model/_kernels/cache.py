"""Compiles a kernel once per machine, wherever the package lies.

numba keeps compiled code beside the source file, or in a folder named after the source's folder.
A logged model carries its own copy of this package (mlflow's ``code_paths``), so either way every
model version would compile again, and some would write into their artifact. Here the folder is
named after the *text* of the source file: every copy of the same kernels finds the same code, in
the user's cache folder and never in the package.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, _CacheLocator

_config: Any = numba.config


@functools.cache
def _digest(source: str) -> str:
    # With this file: numba does not look at the options a function was compiled with.
    texts = [Path(path).read_bytes() for path in (source, __file__)]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def cache_folder(source: str) -> Path:
    """Where the compiled functions of a source file are kept.

    ``NUMBA_CACHE_DIR``, or the user's cache folder (``XDG_CACHE_HOME``, or ``~/.cache``); below it
    a folder for each text of the file and version of numba.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = _config.CACHE_DIR or home
    return Path(base) / "tsclust_model" / f"{_digest(source)[:16]}-numba-{numba.__version__}"


class SourceTextLocator(_CacheLocator):
    """Tells numba to look a function up by the text of its file."""

    def __init__(self, source: str) -> None:
        self._source = source

    def get_cache_path(self) -> str:
        return str(cache_folder(self._source))

    def get_source_stamp(self) -> str:
        return _digest(self._source)

    def get_disambiguator(self) -> str:
        return "kernel"

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> SourceTextLocator:
        return cls(py_file)


def _writable(source: str) -> bool:
    try:
        SourceTextLocator(source).ensure_cache_path()
    except (OSError, RuntimeError):  # the latter where there is no home folder
        return False
    return True


class _Cache(FunctionCache):
    """One that is damaged or cannot be filled is as good as none."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever pickle and LLVM say of files that are cut short
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function on its first call, and keep the result for every later process.

    It runs without the interpreter's lock. Where no cache folder can be written, each process
    compiles for itself.
    """
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    source = function.__code__.co_filename
    if _writable(source):
        others = _config.CACHE_LOCATOR_CLASSES
        _config.CACHE_LOCATOR_CLASSES = f"{__name__}.{SourceTextLocator.__name__}"
        try:
            compiled._cache = _Cache(function)
        finally:
            _config.CACHE_LOCATOR_CLASSES = others
    return compiled


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a helper that kernels of the same file call; it is kept inside of them."""
    return numba.njit(nogil=True, error_model="numpy")(function)


def inlined_bound(function: Callable[..., Any]) -> Any:
    """`inlined` for a bound, whose sums may be taken in any order; its rows are finite."""
    return numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nnan", "nsz"})(
        function
    )
