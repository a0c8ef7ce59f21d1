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
    unknown = sorted(set(_flat(values)) - set(_flat(to_json(config))))
    if unknown:
        raise ValueError(f"{_name(kind)} has no field {', '.join(unknown)}; the file was written by another version")
    return config


def config_digest(config: Any) -> str:
    """sha256 of a configuration, 64 hex digits: equal configurations, and only they, share it."""
    return digest(to_json(config))


def differences(ours: Any, theirs: Any) -> list[str]:
    """The dotted fields in which two JSON values differ, as 'path: ours != theirs'."""
    a, b = _flat(ours), _flat(theirs)
    return [f"{path}: {a.get(path, '(absent)')!r} != {b.get(path, '(absent)')!r}"
            for path in sorted(a.keys() | b.keys()) if a.get(path, "(absent)") != b.get(path, "(absent)")]


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Apply `path.to.field=value` assignments, each checked against the field's type.

    Values are JSON, or plain words for strings: `stage_one.fit.steps=100`, `stage_one.input.augment.size=[97,97]`,
    `stage_one.segmenter.within_clip=null`. Raises ValueError naming path, value and the type that was expected.
    """
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set takes path=value, got {assignment!r}, e.g. --set stage_one.fit.steps=100")
        config = _replace(config, path.split("."), value, path)
    return config


def _replace(config: Any, names: list[str], value: str, path: str) -> Any:
    if not dataclasses.is_dataclass(config):
        raise ValueError(f"--set {path}: nothing can be set below a {type(config).__name__}; shorten the path")
    known = [field.name for field in dataclasses.fields(config)]
    if names[0] not in known:
        near = difflib.get_close_matches(names[0], known, n=3) or known
        raise ValueError(f"--set {path}: {type(config).__name__} has no field {names[0]!r}; did you mean {near}?")
    if len(names) > 1:
        return dataclasses.replace(
            config, **{names[0]: _replace(getattr(config, names[0]), names[1:], value, path)})
    hint = typing.get_type_hints(type(config))[names[0]]
    return dataclasses.replace(config, **{names[0]: _parse(hint, value, path)})


def _parse(hint: Any, text: str, path: str) -> Any:
    """JSON first, then the bare word; `null` therefore means None wherever None is allowed."""
    adapter = TypeAdapter(hint)
    try:
        return adapter.validate_json(text)
    except ValidationError:
        pass
    try:
        return adapter.validate_strings(text)
    except ValidationError as error:
        raise ValueError(f"--set {path}={text}: expected {_name(hint)}; {_first_line(error)}") from None


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
