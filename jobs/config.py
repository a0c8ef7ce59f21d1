"""Configurations as data: to JSON and back, digests, differences, and `--set path=value` overrides.

Every configuration is a frozen dataclass; pydantic reads them back from JSON and checks types, so that a checkpoint can
rebuild its model from the file beside it and a wrong override dies in its first second.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.files import digest

Config = TypeVar("Config")


def to_json(config: Any) -> Any:
    """A dataclass as plain JSON values."""
    return json.loads(TypeAdapter(type(config)).dump_json(config))


def from_json(kind: type[Config], values: Any) -> Config:
    """Rebuild a dataclass from what `to_json` gave.

    Raises ValueError naming unknown fields and wrong types: what another version wrote is never read as this one.
    """
    try:
        config = TypeAdapter(kind).validate_python(_tuples(values))
    except ValidationError as error:
        raise ValueError(f"these values are no {_name(kind)}: {_first_line(error)}") from None
    if unknown := _unread(values, to_json(config)):
        raise ValueError(f"{_name(kind)} has no field {', '.join(unknown)}; the file was written by another version")
    return config


def config_digest(config: Any) -> str:
    """sha256 of a configuration, 64 hex digits: equal configurations, and only they, share it."""
    return digest(to_json(config))


def differences(ours: Any, theirs: Any) -> list[str]:
    """The dotted fields in which two JSON values differ, as 'path: ours != theirs'."""
    a = _flat(ours)
    b = _flat(theirs)
    return [f"{path}: {a.get(path, '(absent)')!r} != {b.get(path, '(absent)')!r}"
            for path in sorted(a.keys() | b.keys()) if a.get(path, "(absent)") != b.get(path, "(absent)")]


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Apply `path.to.field=value` assignments, each checked against the field's type.

    They take effect together, whole values before the fields below them.
    Values are JSON, or plain words for strings: `stage_one.fit.steps=100`, `stage_one.input.augment.size=[97,97]`,
    `stage_one.segmenter.within_clip=null`. Raises ValueError naming path, value and the type that was expected.
    """
    changes = []
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set takes path=value, got {assignment!r}, e.g. --set stage_one.fit.steps=100")
        changes.append(_Change(path, tuple(path.split(".")), value))
    return _replace(config, changes)


class _Change(typing.NamedTuple):
    path: str                   # as given, for messages
    names: tuple[str, ...]      # what is left of it
    value: str


def _replace(config: Any, changes: list[_Change]) -> Any:
    """All changes at once, so that values which must agree with each other can change together."""
    if not dataclasses.is_dataclass(config):
        raise ValueError(f"--set {changes[0].path}: nothing can be set below a {type(config).__name__}; shorten the "
                         "path")
    known = [field.name for field in dataclasses.fields(config)]
    values: dict[str, Any] = {}
    for name, group in _by_name(changes).items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or known
            raise ValueError(f"--set {group[0].path}: {type(config).__name__} has no field {name!r}; did you mean "
                             f"{near}?")
        values[name] = getattr(config, name)
        for change in group:
            if len(change.names) == 1:
                values[name] = _parse(typing.get_type_hints(type(config))[name], change.value, change.path)
        if below := [change._replace(names=change.names[1:]) for change in group if len(change.names) > 1]:
            values[name] = _replace(values[name], below)
    return dataclasses.replace(config, **values)


def _by_name(changes: list[_Change]) -> dict[str, list[_Change]]:
    groups: dict[str, list[_Change]] = {}
    for change in changes:
        groups.setdefault(change.names[0], []).append(change)
    return groups


def _parse(hint: Any, text: str, path: str) -> Any:
    """JSON first, then the bare word; `null` therefore means None wherever None is allowed."""
    adapter = TypeAdapter(hint)
    try:
        value = adapter.validate_json(text)
        if unknown := _unread(json.loads(text), adapter.dump_python(value, mode="json")):
            raise ValueError(f"--set {path}={text}: {_name(hint)} has no field {', '.join(unknown)}")
        return value
    except ValidationError as error:
        of_json = error
    try:
        return adapter.validate_strings(text)
    except ValidationError as of_words:
        error = of_json if text.lstrip().startswith(("{", "[")) else of_words      # of what was meant
        raise ValueError(f"--set {path}={text}: expected {_name(hint)}; {_first_line(error)}") from None


def _unread(given: Any, understood: Any) -> list[str]:
    """Fields of JSON values that did not arrive in the configuration made of them."""
    known = _flat(understood)
    return sorted(name for name, value in _flat(given).items() if name not in known and value != {})


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        return {k: v for key, part in values.items() for k, v in _flat(part, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): list(values) if isinstance(values, tuple) else values}


def _tuples(values: Any) -> Any:
    """JSON has lists only; our configs hold tuples."""
    if isinstance(values, list):
        return tuple(_tuples(v) for v in values)
    return {k: _tuples(v) for k, v in values.items()} if isinstance(values, dict) else values


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where + ': ' if where else ''}{first['msg']}"


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) if isinstance(kind, type) else str(kind).replace("typing.", "")
