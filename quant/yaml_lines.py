"""Reads YAML safely, remembers the line of every key, and turns validation errors into `file:line: key = value; why`.

The dialect is YAML 1.2's core schema, because YAML 1.1 surprises: `1e-3` would be a string, `no` a boolean and
`1:30` a number. Duplicate keys, aliases and custom tags are refused.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bitwright.quant.errors import InputError, suggestion

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Locations:
    """Where each value of a document was written.

    Attributes:
        file: as the user named it.
        lines: the line (from 1) of each key, by its path.
        elsewhere: paths whose value did not come from the file, with the place in words (`command line`).
    """

    file: str
    lines: Mapping[KeyPath, int]
    elsewhere: Mapping[KeyPath, str] = field(default_factory=lambda: MappingProxyType({}))

    def line(self, path: KeyPath) -> int:
        """The line of a key; of the nearest enclosing key when it was not written at all."""
        return next(self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines)

    def where(self, path: KeyPath) -> str:
        """`file:line` of a key, or the other place it came from."""
        for n in range(len(path), 0, -1):
            if path[:n] in self.elsewhere:
                return self.elsewhere[path[:n]]
            if path[:n] in self.lines:
                return f"{self.file}:{self.lines[path[:n]]}"
            below = (place for key, place in self.elsewhere.items() if key[:n] == path[:n])
            if place := next(below, None):
                return place
        return f"{self.file}:{self.line(path)}"


class _Loader(yaml.SafeLoader):
    """Safe construction with YAML 1.2's idea of which plain scalars are not strings."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML keeps its resolvers on the class)


_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "null", "bool", "int", "float")}

for _tag, _pattern, _first in (
    ("null", r"(?:~|null|)", "~n\0"),
    ("bool", r"(?:true|false)", "tf"),
    ("int", r"(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9_]*\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+\.?[eE][-+]?[0-9]+|[0-9]+\.|\.inf|\.nan)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"{_pattern}$"), ["", *_first])


def load(path: Path) -> tuple[dict[str, Any], Locations]:
    """Reads a YAML file whose top level is a mapping.

    Raises:
        InputError: there is no such file, or it is empty, binary, no YAML, no mapping, or repeats a key.
    """
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not a text file (byte {error.start} is not UTF-8); expected YAML") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from None
    return parse(text, name)


def parse(text: str, name: str) -> tuple[dict[str, Any], Locations]:
    """As `load`, for text that is already here; `name` stands for the file in messages."""
    lines: dict[KeyPath, int] = {(): 1}
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{name}: the file is empty; expected a mapping of keys")
        document = _Builder(loader, name, lines).build(node, ())
    except yaml.reader.ReaderError as error:
        raise InputError(f"{name}: not a text file (character {error.position}); expected YAML") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"{name}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(document, dict):
        raise InputError(f"{name}:1: holds {_kind(document)}; expected a mapping of keys")
    return document, Locations(name, lines)


def value_of(text: str) -> Any:
    """One value as YAML writes it (`3`, `1e-3`, `[1, 2]`, `{a: b}`): the right side of `key=value`.

    Raises:
        InputError: it is no YAML.
    """
    return parse(f"value: {text}", "command line")[0]["value"]


@dataclass
class _Builder:
    """Walks the parsed nodes into dicts, lists and scalars, and notes their lines."""

    loader: _Loader
    name: str
    lines: dict[KeyPath, int]
    _seen: set[int] = field(default_factory=set)

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._seen:  # an alias: a few of them nested can stand for gigabytes
            raise InputError(f"{self.name}:{self.lines[path]}: aliases (*name) are not allowed; write the value out")
        self._seen.add(id(node))
        if node.tag not in _TAGS:
            raise InputError(f"{self.name}:{self.lines[path]}: the tag {node.tag!r} is not allowed; write plain values")
        if isinstance(node, yaml.MappingNode):
            return {key: self.build(value, (*path, key)) for key, value in self._entries(node, path)}
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.loader.construct_object(node)

    def _entries(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str | int, yaml.Node]]:
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            key = self.loader.construct_object(key_node, deep=True)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise InputError(f"{self.name}:{line}: key {key!r} is {_kind(key)}; keys are plain words")
            if (*path, key) in self.lines:
                first = self.lines[(*path, key)]
                raise InputError(f"{self.name}:{line}: duplicate key {dotted((*path, key))!r} (first on line {first})")
            self.lines[(*path, key)] = line
            yield key, value


def validate_model(model: type[Model], path: Path) -> Model:
    """Reads a YAML file into a pydantic model.

    Raises:
        InputError: every problem on its own line as `file:line: a.b.c = value; what is allowed`.
    """
    data, locations = load(path)
    return validate(model, data, locations)


def validate(model: type[Model], data: Mapping[str, Any], locations: Locations, *, at: KeyPath = ()) -> Model:
    """Checks a loaded document, or the part of it at the path `at`, against a pydantic model.

    Raises:
        InputError: as `validate_model`.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_explain(each, model, data, locations, at) for each in error.errors(include_url=False)]
        raise InputError("\n".join(dict.fromkeys(problems))) from None


def _explain(error: ErrorDetails, model: type[BaseModel], data: Any, locations: Locations, at: KeyPath) -> str:
    missing = error["type"] == "missing"
    path = _path_in(data, error["loc"], missing=missing)
    value = data
    for key in path[: -1 if missing else None]:
        value = value[key]
    if error["type"] == "union_tag_invalid":
        path = (*path, error["ctx"]["discriminator"].strip("'"))
        value = value[path[-1]]
    where = f"{locations.where((*at, *path))}: {dotted((*at, *path)) or 'the document'}"
    if missing:
        return f"{where} is missing"
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key{_allowed_keys(model, error['loc'])}"
    return f"{where} = {shown(value)}; {_allowed(error, value)}"


def _allowed(error: ErrorDetails, value: Any) -> str:
    context = error.get("ctx", {})
    if error["type"] in ("literal_error", "enum", "union_tag_invalid"):
        listed = str(context.get("expected") or context.get("expected_tags"))
        choices = re.findall(r"'([^']*)'", listed)
        return f"accepts {', '.join(choices) or listed}{suggestion(str(value), choices)}"
    if error["type"] == "too_short":
        return f"give at least {context['min_length']}"
    if error["type"] == "union_tag_not_found":
        return f"needs the key {context['discriminator']}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should be", "expected").replace("or object to extract fields from", "")
    return message.replace(" dictionary", " mapping of keys").strip()


def _allowed_keys(model: type[BaseModel], location: KeyPath) -> str:
    classes = _classes_at(model, location[:-1])
    keys = list(dict.fromkeys(f.alias or n for each in classes for n, f in each.model_fields.items()))
    return f"{suggestion(str(location[-1]), keys)}; allowed: {', '.join(keys)}"


def _classes_at(model: type[BaseModel], location: KeyPath) -> list[type[BaseModel]]:
    """The models that may stand at an error's location, which also holds the tags of discriminated unions."""
    classes = [model]
    for step in location:
        fields = [each.model_fields[str(step)] for each in classes if step in each.model_fields]
        if fields:
            classes = [found for each in fields for found in _models_in(each.annotation)]
        elif isinstance(step, str):
            classes = [each for each in classes if _has_tag(each, step)] or classes
    return classes


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _has_tag(model: type[BaseModel], tag: str) -> bool:
    literals = (each.annotation for each in model.model_fields.values())
    return model.__name__ == tag or any(tag in typing.get_args(each) for each in literals)


def _path_in(data: Any, location: KeyPath, *, missing: bool) -> KeyPath:
    """The error's location without the tags of unions, which stand in no document."""
    path: list[str | int] = []
    for position, step in enumerate(location):
        inside = isinstance(data, Mapping) and step in data
        if inside or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            path.append(step)
            data = data[step]
        elif missing and position == len(location) - 1:
            path.append(step)
    return tuple(path)


def dotted(path: KeyPath) -> str:
    """`a.b[0].c`: how a key is named in messages and on the command line."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def shown(value: Any) -> str:
    """A value for a message, cut to one line; a URL's passwords, before the host or among options, are not shown."""
    text = re.sub(r"(://[^/@:]*:).*@", r"\1***@", repr(value))
    text = re.sub(r"([?&]\w*password=)[^&']*", r"\1***", text)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _kind(value: Any) -> str:
    names = {list: "a list", dict: "a mapping", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "nothing" if value is None else f"a {type(value).__name__}")
