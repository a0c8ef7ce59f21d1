"""Configurations as data: to JSON and back, digests, differences, and `--set path=value` overrides.

Every configuration is a frozen dataclass. Pydantic reads it back from JSON and checks the types, so that a model can be
rebuilt from its card and a wrong override ends the command in its first second.

Where a field may hold one of several configurations (`A | B | None`), the field `kind: Literal[...]` of each names it
in JSON. Values without a `kind` are read as the configuration that has most of their fields, the first among equals.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import shlex
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.files import digest

Config = TypeVar("Config")

_BRACKETS = ("{", "[")      # with which the JSON of an object or a list begins


def to_json(config: Any) -> Any:
    """A dataclass as plain JSON values."""
    kind: Any = type(config)
    return json.loads(_adapter(kind).dump_json(config))


def from_json(config_type: Any, values: Any) -> Any:
    """Rebuild a configuration from the values that `to_json` gave. config_type: a dataclass or a union of them.

    Raises ValueError naming unknown fields, wrong types and unknown kinds: a file of another version is never read as
    one of this version.
    """
    try:
        return _build(config_type, values)
    except _Unfit as error:
        raise ValueError(f"these values were written by another version, or describe no {_name(config_type)}: {error}"
                         ) from None


def config_digest(config: Any) -> str:
    """sha256 of a configuration, 64 hex digits: equal configurations, and only they, share it."""
    return digest(to_json(config))


def differences(ours: Any, theirs: Any) -> list[str]:
    """The dotted fields in which two JSON values differ, as 'path: ours != theirs'."""
    a = _flat(ours)
    b = _flat(theirs)
    return [f"{path}: {a.get(path, '(absent)')!r} != {b.get(path, '(absent)')!r}"
            for path in sorted(a.keys() | b.keys()) if a.get(path, "(absent)") != b.get(path, "(absent)")]


def assignments(base: Any, changed: Any, path: str = "") -> list[str]:
    """The `path=value` overrides that turn one configuration, as JSON values, into another of the same type."""
    if base == changed:
        return []
    alike = isinstance(base, dict) and isinstance(changed, dict) and base.keys() == changed.keys()
    if alike and base.get("kind") == changed.get("kind"):
        return [line for key in base for line in assignments(base[key], changed[key], f"{path}.{key}".lstrip("."))]
    return [f"{path}={changed if _is_plain(changed) else json.dumps(changed)}"]


def _is_plain(value: Any) -> bool:
    """Whether a value is a string that cannot be mistaken for JSON."""
    if not isinstance(value, str) or value.lstrip().startswith(_BRACKETS):
        return False
    try:
        json.loads(value)
    except ValueError:
        return bool(value)
    return False


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Apply `path.to.field=value` assignments, each checked against the field's type.

    They take effect together, whole values before the fields below them. Values are JSON, or plain words for strings:
    `stage_one.fit.steps=100`, `stage_one.input.augment.size=[97,97]`, `stage_one.segmenter.within_clip=null`. A path
    that ends in `kind` puts the configuration of that kind, with its defaults, in place of one of another kind.
    Raises ValueError naming the path, the value and the expected type.
    """
    changes = []
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set takes path=value, got {assignment!r}, e.g. --set stage_one.fit.steps=100")
        changes.append(_Change(assignment, path, tuple(path.split(".")), value))
    return _replace(config, changes)


class _Change(typing.NamedTuple):
    assignment: str             # as given, for messages
    path: str                   # the part of it before "="
    names: tuple[str, ...]      # the part of the path that is still to be walked
    value: str


def _replace(config: Any, changes: list[_Change]) -> Any:
    """All changes at once, so that values which must agree with each other can change together."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"--set {changes[0].assignment}: nothing can be set below a {type(config).__name__}; shorten "
                         "the path")
    kind: Any = type(config)
    hints = _field_types(kind)
    values: dict[str, Any] = {}
    for name, group in _by_name(changes).items():
        if name not in hints:
            raise ValueError(f"--set {group[0].assignment}: {_unknown_field(type(config), name)}")
        values[name] = getattr(config, name)
        for change in group:
            if len(change.names) == 1:
                values[name] = _parse(hints[name], change.value, change)
        below = [change._replace(names=change.names[1:]) for change in group if len(change.names) > 1]
        for change in [change for change in below if _chooses_member(hints[name], change)]:
            below.remove(change)
            if change.value != getattr(values[name], "kind", None):
                values[name] = _parse(hints[name], json.dumps({"kind": change.value}), change)
        if below:
            values[name] = _replace(values[name], below)
    return dataclasses.replace(config, **values)


def _by_name(changes: list[_Change]) -> dict[str, list[_Change]]:
    groups: dict[str, list[_Change]] = {}
    for change in changes:
        groups.setdefault(change.names[0], []).append(change)
    return groups


def _chooses_member(hint: Any, change: _Change) -> bool:
    return change.names == ("kind",) and len(_members(hint)) > 1


def _parse(hint: Any, text: str, change: _Change) -> Any:
    """JSON first, then the bare word; `null` therefore means None wherever None is allowed.

    A list with one word may be given as the word, and a configuration with the defaults of its kind as the kind.
    """
    path = change.path.removesuffix(".kind") if _chooses_member(hint, change) else change.path
    is_json = text.lstrip().startswith(_BRACKETS)       # few words begin so
    try:
        return _build(hint, json.loads(text), path)
    except json.JSONDecodeError as error:
        if is_json:
            raise ValueError(f"--set {change.assignment}: the value is not JSON: {error}. A text that begins with a "
                             f"bracket needs quotation marks: --set {shlex.quote(f'{change.path}={json.dumps(text)}')}"
                             ) from None
    except _Unfit as error:
        if is_json or isinstance(error, _NoNumber):
            raise ValueError(f"--set {change.assignment}: {error}") from None
    names_a_kind = any(text in _kinds(member) for member in _members(hint))     # inference.association=links
    try:
        return _build(hint, {"kind": text} if names_a_kind else text, path)
    except _Unfit as error:
        if typing.get_origin(hint) is tuple and typing.get_args(hint)[1:] == (...,):
            return _parse(hint, json.dumps([text]), change)
        raise ValueError(f"--set {change.assignment}: {error}") from None


class _Unfit(ValueError):
    """JSON values do not fit the type of a field; the message names the configuration and the field."""


class _NoNumber(_Unfit):
    """A number is needed, and the value is one in JSON or in Python alone."""


def _build(hint: Any, values: Any, path: str = "") -> Any:
    """The object that JSON values describe. hint: its type. path: where the values stand, for messages."""
    members = _members(hint)
    if isinstance(values, bool) and hint in (int, float, int | None, float | None):     # pydantic takes true for 1
        raise _NoNumber(f"expected {_name(hint)}; {path}: Input should be a number, not true or false")
    if isinstance(values, float) and math.isnan(values):
        raise _NoNumber(f"expected {_name(hint)}; {path}: Input should be a number, not NaN")
    if len(members) > 1 and values is not None:
        return _build_member(members, values, path)
    if members and isinstance(values, dict):
        values = _build_fields(members[0], values, path)
    try:
        return _adapter(hint).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = _join(path, *map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise _Unfit(f"expected {_name(hint)}; {place + ': ' if place else ''}{message}") from None


def _build_fields(config_type: type, values: dict[str, Any], path: str) -> dict[str, Any]:
    """The values of one configuration, with every mapping for another configuration already built."""
    hints = _field_types(config_type)
    for name in values:
        if name not in hints:
            raise _Unfit(f"{_join(path, name)}: {_unknown_field(config_type, name)}")
    return {name: _build(hints[name], part, _join(path, name)) if _members(hints[name]) else part
            for name, part in values.items()}


def _build_member(members: list[type], values: Any, path: str) -> Any:
    """The member of a union that JSON values describe, by their `kind`, else by their fields."""
    kinds = {kind: member for member in members for kind in _kinds(member)}
    place = path + ": " if path else ""
    if not isinstance(values, dict):
        choice = f' with "kind" set to one of {", ".join(kinds)}' if kinds else ""
        raise _Unfit(f"{place}expected a JSON object{choice}, got {values!r}")
    if kinds and "kind" in values:
        kind = values["kind"]
        if not isinstance(kind, str) or kind not in kinds:
            raise _Unfit(f"{place}there is no kind {kind!r}; choose one of {', '.join(kinds)}")
        return _build(kinds[kind], values, path)
    known = [_known_fields(member, values) for member in members]
    errors = []
    for member in [member for member, count in zip(members, known) if count == max(known)]:
        try:
            return _build(member, values, path)
        except _Unfit as error:
            errors.append(error)
    raise errors[0]


def _known_fields(hint: Any, values: Any) -> int:
    """How many fields of JSON values, at any depth, the most fitting configuration of a type has."""
    if not isinstance(values, dict):
        return 0
    counts = []
    for member in _members(hint):
        hints = _field_types(member)
        counts.append(sum(1 + _known_fields(hints[name], part) for name, part in values.items() if name in hints))
    return max(counts, default=0)


def _members(hint: Any) -> list[Any]:
    """The configurations that a field of this type may hold."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return [option for option in (typing.get_args(hint) if is_union else (hint,)) if dataclasses.is_dataclass(option)]


def _kinds(member: type) -> tuple[str, ...]:
    """The kinds by which JSON names a configuration; empty for one without the field."""
    hint = _field_types(member).get("kind")
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


@functools.cache
def _field_types(config_type: type) -> dict[str, Any]:
    """Field -> type, in the order of the fields."""
    hints = typing.get_type_hints(config_type)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_type)}


@functools.cache
def _adapter(hint: Any) -> TypeAdapter:
    return TypeAdapter(hint)


def _join(*names: str) -> str:
    return ".".join(filter(None, names))


def _unknown_field(config_type: type, name: str) -> str:
    known = list(_field_types(config_type))
    near = difflib.get_close_matches(name, known, n=3) or known
    return f"{config_type.__name__} has no field {name!r}; did you mean {near}?"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        return {k: v for key, part in values.items() for k, v in _flat(part, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): list(values) if isinstance(values, tuple) else values}


def _name(hint: Any) -> str:
    if isinstance(hint, type):
        return hint.__name__
    if _members(hint):
        return " or ".join(member.__name__ for member in _members(hint))
    return str(hint).replace("typing.", "")
