"""Name tables: complete, one to one, readable backwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.converters.rename import load_strict, new_name, rename, reverse

RULES = (
    (r"block\.(\d+)\.(weight|bias)", r"layers.\2.of.\1"),
    (r"head-in_x\.(.+)", r"head.\1"),
    (r"unused\..+", None),
    (r"h(.+)", r"late.\1"),
)


def test_the_first_rule_that_fits_wins():
    assert new_name("head-in_x.a", RULES) == "head.a"
    assert new_name("hello", RULES) == "late.ello"
    assert new_name("unused.x", RULES) is None


def test_values_are_untouched_and_what_is_left_out_is_left_out():
    state = {"block.3.weight": torch.randn(2), "unused.a": torch.randn(1)}
    renamed = rename(state, RULES)
    assert list(renamed) == ["layers.weight.of.3"]
    assert renamed["layers.weight.of.3"] is state["block.3.weight"]


def test_reading_backwards_gives_the_names_back():
    names = ["block.0.weight", "block.12.bias", "head-in_x.a.b", "hello"]
    renamed = rename({name: torch.zeros(1) for name in names}, RULES)
    assert list(rename(renamed, reverse(RULES))) == names


def test_every_name_without_a_rule_is_reported():
    with pytest.raises(ValueError, match=r"no rule for 2 of 3 names: alpha, beta") as error:
        rename({"alpha": torch.zeros(1), "head-in_x.a": torch.zeros(1), "beta": torch.zeros(1)}, RULES)
    assert "head-in_x" not in str(error.value)


def test_two_names_that_meet_are_reported():
    with pytest.raises(ValueError, match="'a' and 'b' would both be called 'c'"):
        rename({"a": torch.zeros(1), "b": torch.zeros(1)}, ((r"[ab]", "c"),))


@pytest.mark.parametrize("rule", [(r"a\.(\d+)\.(x)", r"b.\1"), (r"a\.\d+", "b"), (r"a\.(\d+)", r"b.\1.\1"),
                                  (r"(a(b))", r"\1\2")], ids=str)
def test_a_rule_that_loses_something_cannot_be_read_backwards(rule):
    with pytest.raises(ValueError, match="cannot be read backwards"):
        reverse([rule])


def test_loading_is_strict_about_names_and_shapes():
    module = nn.Linear(2, 3)
    state = {"weight": torch.zeros(2, 2), "extra": torch.zeros(1)}
    with pytest.raises(ValueError, match="3 weights do not fit Linear") as error:
        load_strict(module, state)
    for part in ("missing: bias", "left over: extra", "shape of weight: (2, 2), the module has (3, 2)"):
        assert part in str(error.value)
    load_strict(module, {"weight": torch.ones(3, 2), "bias": torch.ones(3)})
    assert module.weight.eq(1).all()
