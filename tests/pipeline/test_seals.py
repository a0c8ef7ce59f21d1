"""A sealed json gives its fields back, shows any change of them, and one without a seal is of an earlier version."""

from __future__ import annotations

import json

import pytest

from pipeline.seals import SEAL, sealed, unsealed

FIELDS = {"b": [1, 2.5, float("inf"), None], "a": {2: "ü", 10: (True,)}}


def test_fields_come_back_as_json_has_them():
    stored = json.loads(json.dumps(sealed(FIELDS)))
    assert unsealed(stored) == {"b": [1, 2.5, float("inf"), None], "a": {"2": "ü", "10": [True]}}
    assert sealed(unsealed(stored)) == stored


@pytest.mark.parametrize("change", [{"b": [1, 2.5, float("inf"), 0]}, {"c": 1}, {SEAL: "0" * 64}, {SEAL: None}])
def test_a_change_is_seen(change):
    with pytest.raises(ValueError, match="not those that were written; if you changed them, remove 'seal'"):
        unsealed(sealed(FIELDS) | change)


def test_without_a_seal_the_fields_are_taken_as_they_are():
    assert unsealed({"a": 1}) == {"a": 1}
