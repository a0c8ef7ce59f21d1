"""Apply a table of names to a state dict; complain about leftovers on either side.

A table is a list of rules (pattern, replacement), regular expressions that must match a whole name; the first match
wins. A replacement of None leaves the tensor out on purpose. Tables without alternatives can be read backwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

Rules = Sequence[tuple[str, str | None]]

_GROUP = re.compile(r"\((?!\?)((?:\\.|\[[^\]]*\]|[^()\\\[])*)\)")     # a capturing group without groups inside
_REFERENCE = re.compile(r"\\(\d)")


def new_name(name: str, rules: Rules) -> str | None:
    """The name the first matching rule gives; None: left out on purpose. Raises KeyError where no rule matches."""
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            return None if replacement is None else match.expand(replacement)
    raise KeyError(name)


def rename(state: dict[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Give every tensor its new name, values untouched.

    Raises ValueError naming every source name without a rule, or two source names that get the same new one.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unknown = []
    for name, tensor in state.items():
        try:
            target = new_name(name, rules)
        except KeyError:
            unknown.append(name)
            continue
        if target is None:
            continue
        if target in renamed:
            raise ValueError(f"{origin[target]!r} and {name!r} would both be called {target!r}; one rule is too wide")
        renamed[target] = tensor
        origin[target] = name
    if unknown:
        raise ValueError(f"no rule for {len(unknown)} of {len(state)} names: {', '.join(unknown)}. "
                         "The checkpoint is of another model, or the table lacks a rule")
    return renamed


def nested(rules: Rules, source: str, target: str) -> Rules:
    """The rules for a module that stands behind the prefix `source` (a pattern, dots escaped) and is ours at `target`.

    Groups of the prefix come first, so that the references inside `rules` count on from there.
    """
    groups = re.compile(source).groups
    return tuple(
        (source + pattern, None if replacement is None
         else target + re.sub(r"\\(\d)", lambda reference: rf"\{int(reference[1]) + groups}", replacement))
        for pattern, replacement in rules
    )


def reverse(rules: Rules) -> list[tuple[str, str]]:
    """The table from our names back to the source's.

    Possible for rules of literal text and plain groups, each group used once in the replacement. Rules that leave a
    tensor out are skipped. Raises ValueError naming a rule that cannot be read backwards.
    """
    return [_reverse(pattern, replacement) for pattern, replacement in rules if replacement is not None]


def _reverse(pattern: str, replacement: str) -> tuple[str, str]:
    groups = _GROUP.findall(pattern)
    used = [int(number) for number in _REFERENCE.findall(replacement)]
    literal = re.sub(r"\\([.\-_])", r"\1", _GROUP.sub("", pattern))
    if sorted(used) != list(range(1, len(groups) + 1)) or re.search(r"[\\()\[\]{}*+?|^$]", literal):
        raise ValueError(f"the rule {pattern!r} -> {replacement!r} cannot be read backwards; write it with literal "
                         "text and plain groups, each used once")
    pieces = _REFERENCE.split(replacement)
    backwards = "".join(f"({groups[int(piece) - 1]})" if index % 2 else re.escape(piece)
                        for index, piece in enumerate(pieces))
    order = iter(range(len(groups)))
    source = _GROUP.sub(lambda _: rf"\{used.index(next(order) + 1) + 1}", pattern)
    return backwards, re.sub(r"\\([.\-_])", r"\1", source)


def load_strict(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Fill a module. Raises ValueError with every name that is missing, left over or of another shape."""
    own = module.state_dict()
    problems = [f"missing: {name}" for name in own if name not in state]
    problems += [f"left over: {name}" for name in state if name not in own]
    problems += [f"shape of {name}: {tuple(state[name].shape)}, the module has {tuple(own[name].shape)}"
                 for name in own if name in state and state[name].shape != own[name].shape]
    if problems:
        listing = "\n  ".join(problems)
        raise ValueError(f"{len(problems)} weights do not fit {type(module).__name__}:\n  {listing}\n"
                         "Check that widths and depths in the config are those of the checkpoint")
    module.load_state_dict(state)
