"""The messages that the code can raise, read from its source."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

GAP = "…"
# Python's own kinds are bugs, not messages to a user.
_BUGS = {"AttributeError", "TypeError", "KeyError", "AssertionError", "StopIteration"}
_MOST = 24
_DEEPEST = 4
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def messages(path: Path, package: Sequence[Path] = ()) -> list[tuple[int, str]]:
    """Line and text of what a module raises, warns of or blocks for, with `GAP` for what varies.

    Followed are f-strings, sums, conditions, constants of the module, names assigned in the same
    function, the arguments that a helper is called with in this module and in those of `package`
    that import it, and the texts it returns.
    """
    modules = [_parsed(other) for other in dict.fromkeys([path, *package])]
    module = modules[0]
    for each in modules:
        each.others = modules
    found = {}
    for function in module.functions:
        for line, argument in _raised(function):
            for text in module.texts(argument, function):
                found[" ".join(text.split())] = line
    return [(line, text) for text, line in found.items()]


@functools.cache
def _parsed(path: Path) -> _Module:
    return _Module(ast.parse(path.read_text()))


def _raised(function: _Function) -> Iterator[tuple[int, ast.expr]]:
    for node in _own(function):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = ast.unparse(call.func)
        if name in ("warnings.warn", "caution") or (
            isinstance(node, ast.Raise) and name not in _BUGS
        ):
            yield node.lineno, call.args[0]
        elif name.endswith(".problem"):  # of the quality of data: check, column, message
            yield node.lineno, call.args[2]


def _own(function: _Function) -> Iterator[ast.AST]:
    """The nodes of a function, without those of the functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, _Function):
            yield node
            waiting += ast.iter_child_nodes(node)


class _Module:
    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.functions = [node for node in ast.walk(tree) if isinstance(node, _Function)]
        self.imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        self.others: list[_Module] = [self]

    def _home(self, function: _Function) -> _Module:
        return next(module for module in self.others if function in module.functions)

    def _callers(self, scope: _Function) -> list[_Function]:
        """Functions of this module, and of those that import this one."""
        others = [m for m in self.others if m is not self and scope.name in m.imported]
        return [function for module in (self, *others) for function in module.functions]

    def texts(self, node: ast.expr, scope: _Function, depth: int = 0) -> list[str]:
        """Each text an expression can be."""
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else [GAP]
        if isinstance(node, ast.FormattedValue):
            return self.texts(node.value, scope, depth)
        if isinstance(node, ast.JoinedStr):
            return self._joined(node.values, scope, depth)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._joined([node.left, node.right], scope, depth)
        if depth == _DEEPEST:
            return [GAP]
        possible = list(self._possible(node, scope))
        for deeper in (depth + 1, _DEEPEST):  # with less of what varies, where that is too much
            found = [
                text
                for value, place in possible
                for text in self._home(place).texts(value, place, deeper)
            ]
            if len(found) <= _MOST:
                break
        return list(dict.fromkeys(found)) or [GAP]

    def _joined(self, parts: list[ast.expr], scope: _Function, depth: int) -> list[str]:
        choices = [self.texts(part, scope, depth) for part in parts]
        alone = sum(len(choice) > 1 for choice in choices) == 1
        while not alone and math.prod(map(len, choices)) > _MOST:
            choices[max(range(len(choices)), key=lambda i: len(choices[i]))] = [GAP]
        return ["".join(texts) for texts in product(*choices)]

    def _possible(self, node: ast.expr, scope: _Function) -> Iterator[tuple[ast.expr, _Function]]:
        if isinstance(node, ast.IfExp):
            yield node.body, scope
            yield node.orelse, scope
        elif isinstance(node, ast.Name):
            yield from self._values(node.id, scope)
        elif (chosen := _looked_up(node)) is not None:
            yield from ((value, scope) for value in chosen)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).removeprefix("self.")
            for function in self.functions:
                if function.name == name:
                    for item in ast.walk(function):
                        if isinstance(item, ast.Return) and item.value is not None:
                            yield item.value, function

    def _values(self, name: str, scope: _Function) -> Iterator[tuple[ast.expr, _Function]]:
        """What a name may hold: assigned here, given by a caller, or a constant of the module."""
        parameters = [argument.arg for argument in scope.args.args]
        if name in parameters:
            position = parameters.index(name) - (parameters[0] == "self")
            defaults = dict(zip(reversed(parameters), reversed(scope.args.defaults), strict=False))
            if name in defaults:
                yield defaults[name], scope
            for caller in self._callers(scope):
                if caller is scope:
                    continue
                for call in ast.walk(caller):
                    if isinstance(call, ast.Call) and _called(call) == scope.name:
                        given = {word.arg: word.value for word in call.keywords}
                        if name in given:
                            yield given[name], caller
                        elif position < len(call.args):
                            yield call.args[position], caller
        inside = list(ast.walk(scope))
        if any(isinstance(item, ast.For) and name in _names(item.target) for item in inside):
            return
        for item in [*inside, *self.tree.body]:
            assigned = isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == name
            if assigned and name not in _names(item.value):
                yield item.value, scope


def _looked_up(node: ast.expr) -> list[ast.expr] | None:
    """The values of a list, a dict that is asked for a key, and a ``" ".join``."""
    if isinstance(node, ast.List):
        return node.elts
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Dict):
        return node.value.values
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    owner, method = node.func.value, node.func.attr
    if isinstance(owner, ast.Dict) and method == "get":
        return [*owner.values, *node.args[1:]]
    return node.args if isinstance(owner, ast.Constant) and method == "join" else None


def _names(node: ast.AST) -> set[str]:
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).removeprefix("self.")


def fixed_part(message: str) -> str:
    """The longest run of a message that never varies: what somebody types into a search."""
    parts = [part.strip(" :;,.()'") for part in message.split(GAP)]
    return max(parts, key=lambda part: (part.count(" "), len(part)))
