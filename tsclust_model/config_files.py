"""Settings that somebody wrote: YAML, the rules of its values, and one line for what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic import create_model as model_of
from pydantic.fields import FieldInfo

from tsclust_model.errors import ConfigurationError, suggestion
from tsclust_model.shown import one_line

_LARGEST = 1_000_000

_MOST_VALUES = 10_000

Share = Annotated[float, Field(ge=0, le=1)]

Positive = Annotated[float, Field(gt=0)]

NonNegative = Annotated[float, Field(ge=0)]

Count = Annotated[int, Field(ge=1)]

WholeNumber = Annotated[int, Field(ge=0)]

Text = Annotated[str, Field(min_length=1)]

Names = Annotated[list[str], Field(description="a list of texts")]

Flag = Annotated[bool, Field(description="true or false")]

Switch = Annotated[
    bool,
    BeforeValidator(lambda value: bool(value) if value in (0, 1) else value),
    Field(description="one of True, False"),
]

Fraction = Annotated[float, Field(gt=0, le=1)]

SampleSize = Annotated[int, Field(ge=10)]

Coverage = Annotated[float, Field(gt=0, lt=1)]

Columns = Annotated[list[str], Field(min_length=1, description="a list of columns")]

Folder = Annotated[str, Field(min_length=1, description="the path of a folder")]

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Settings(BaseModel):
    """Values by name: none that is unknown, none that changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Strict(Settings, strict=True):
    """Values of their own types: no string is a number."""


@one_line
@dataclass(frozen=True)
class Problem:
    """The first thing that pydantic refuses: where, its kind, its words and the value.

    `known` are the names that stand where it is, `hint` the one that was perhaps meant.
    """

    place: str
    kind: str
    text: str
    value: Any
    known: list[str]
    hint: str


def first_problem(error: ValidationError, model: type[BaseModel]) -> Problem:
    """What is wrong first, of what a model was made of."""
    problem = error.errors(include_url=False, include_context=False)[0]
    inside = (*problem["loc"], "") if problem["type"] == "model_type" else problem["loc"]
    owner: Any = model
    for name in inside[:-1]:
        fields = getattr(owner, "model_fields", {})
        owner = fields[name].annotation if name in fields else (None, *get_args(owner))[-1]
    known = list(getattr(owner, "model_fields", {}))
    return Problem(
        ".".join(map(str, problem["loc"])),
        problem["type"],
        problem["msg"].removeprefix("Value error, ").removesuffix("."),
        problem["input"],
        known,
        suggestion(str(inside[-1]), known),
    )


def expected(rule: Any) -> str:
    """What a value of an annotated type must be, in words."""
    kind, *details = get_args(rule) if get_origin(rule) is Annotated else (rule,)
    fields = [item for item in details if isinstance(item, FieldInfo)]
    told = [item.description for item in fields if item.description]
    if told:
        return str(told[0])
    if get_origin(kind) in (Union, UnionType):
        return f"{expected(get_args(kind)[0])}, or null"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    limits = {
        name: getattr(bound, name)
        for item in fields
        for bound in item.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(bound, name)
    }
    if kind is int:
        most = f", at most {limits['le']}" if "le" in limits else ""
        return f"a whole number of at least {limits['ge']}{most}"
    if {"ge", "le"} <= limits.keys():
        return f"a number from {limits['ge']} to {limits['le']}"
    words = {"ge": "of at least {}", "gt": "above {}", "le": ", at most {}", "lt": " and below {}"}
    return "a number " + "".join(words[name].format(limit) for name, limit in limits.items())


@one_line
@dataclass(frozen=True)
class Rules:
    """The type of each value by name; values are checked and stay what they are."""

    types: Mapping[str, Any]

    @cached_property
    def _model(self) -> type[Strict]:
        fields: dict[str, Any] = {name: (kind, None) for name, kind in self.types.items()}
        return model_of("_Values", __base__=Strict, **fields)

    @cached_property
    def _texts(self) -> dict[str, str]:
        return {name: expected(kind) for name, kind in self.types.items() if kind is not Any}

    def check(self, values: Mapping[str, Any], prefix: str = "") -> None:
        """Refuse the first value that is none of its type (ConfigurationError)."""
        try:
            self._model.model_validate(values)
        except ValidationError as error:
            key = first_problem(error, self._model).place.partition(".")[0]
            raise ConfigurationError(
                f"{prefix}{key} is {values[key]!r}; it must be {self._texts[key]}"
            ) from None


def one_of(*names: str) -> Any:
    """What a string may be, where its type stays a string."""
    text = "one of " + ", ".join(map(repr, names))
    return Field(pattern=f"^(?:{'|'.join(names)})$", description=text)


def told(kind: Any, text: str, *details: Any) -> Any:
    """A type with what to say of a value that is none."""
    return Annotated[(kind, *details, Field(description=text))]


def always(value: bool, why: str) -> Any:
    return told(bool, f"{str(value).lower()}: {why}", must(lambda given: given is value))


def must(test: Callable[[Any], Any]) -> AfterValidator:
    """A condition on a value of the right type."""

    def checked(value: Any) -> Any:
        if not test(value):
            raise ValueError
        return value

    return AfterValidator(checked)


def plain(value: Any) -> Any:
    """A copy without numpy: its numbers become Python's, its arrays lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


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
    counted = known.get(id(node))
    if counted is not None:
        if counted == 0:  # we are inside it
            raise ConfigurationError(
                f"{path} refers to itself at line {node.start_mark.line + 1}; remove that alias"
            )
        return counted
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
