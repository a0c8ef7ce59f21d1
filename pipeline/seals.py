"""A json that carries the digest of its own fields, so that one changed digit is seen, and not only a cut.

Files of earlier versions have no seal and are read as before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"          # the sha256 of all other fields


def sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as json gives them back, and their digest."""
    plain = json.loads(json.dumps(fields))
    return {**plain, SEAL: _digest(plain)}


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without the seal. Raises ValueError where they are not those that were sealed."""
    fields = {name: value for name, value in content.items() if name != SEAL}
    if SEAL in content and content[SEAL] != _digest(fields):
        raise ValueError(f"its fields are not those that were written; if you changed them, remove {SEAL!r} too")
    return fields


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
