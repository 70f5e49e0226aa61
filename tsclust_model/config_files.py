"""YAML from a file that somebody wrote: one line for whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tsclust_model.errors import ConfigurationError

_LARGEST = 1_000_000

_MOST_VALUES = 10_000


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds, as plain Python values; None if it is empty.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ConfigurationError
        The file is not YAML (the line is named), has a key twice, refers to itself, or holds more
        than 10,000 values once its aliases are written out.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise ConfigurationError(f"{path} has {len(content)} bytes; settings have 1 MB at most")
    loader = None
    try:
        loader = yaml.SafeLoader(content)
        root = loader.get_single_node()
        if root is None:
            return None
        _count(root, {}, str(path))
        return loader.construct_document(root)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML{_where(error)}") from error
    except (ValueError, RecursionError) as error:  # a date such as 2026-99-99; a thousand brackets
        raise ConfigurationError(
            f"{path} is not valid YAML: a value that is impossible or nested too deeply"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ""
    tab = "; indent by spaces, not by tabs" if "\\t" in str(getattr(error, "problem", "")) else ""
    return f" at line {mark.line + 1}{tab}"


def _count(node: yaml.Node, known: dict[int, int], path: str) -> int:
    """How many values a node is when its aliases are written out.

    Aliases share one node: they cost nothing to read and, ten levels of ten, everything to copy.
    """
    found = known.get(id(node))
    if found is not None:
        if found == 0:  # we are inside it
            raise ConfigurationError(
                f"{path} refers to itself at line {node.start_mark.line + 1}; remove that alias"
            )
        return found
    known[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        _refuse_repeated(node, path)
        children = [child for pair in node.value for child in pair]
    total = 1 + sum(_count(child, known, path) for child in children)
    if total > _MOST_VALUES:
        raise ConfigurationError(
            f"{path} holds more than {_MOST_VALUES} values once its aliases are written out; "
            "write the settings plainly"
        )
    known[id(node)] = total
    return total


def _refuse_repeated(node: yaml.MappingNode, path: str) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                raise ConfigurationError(
                    f"{path} has the key '{key.value}' twice, again at line "
                    f"{key.start_mark.line + 1}; keep one"
                )
            seen.add(key.value)
