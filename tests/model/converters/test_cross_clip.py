"""The table of official names of cross-clip heads covers every weight, both ways."""

from __future__ import annotations

import json

import pytest
import torch

from model.converters.cross_clip import MAXTRON_KMAX
from model.converters.rename import load_strict, rename, reverse
from model.cross_clip.maxtron import MaXTronHead, MaXTronHeadConfig
from tests.fidelity import cases


@pytest.mark.parametrize("norm", ["ln", "bn"])
def test_every_weight_has_an_official_name_and_comes_back(norm):
    head = MaXTronHead(MaXTronHeadConfig(num_classes=3, dim=16, embedding=8, layers=2, aspp_norm=norm,
                                         start="official"))
    official = rename(head.state_dict(), reverse(MAXTRON_KMAX))
    assert len(official) == len(head.state_dict())
    back = rename(official, MAXTRON_KMAX)
    assert back.keys() == head.state_dict().keys()
    assert all(torch.equal(tensor, head.state_dict()[name]) for name, tensor in back.items())


def test_the_official_layout_fills_the_official_head():
    layouts = cases.roots()[0] / "state_dict_layouts" / "maxtron_kmax_cross_clip_r50_vipseg.json"
    if not layouts.exists():
        pytest.skip("the layouts are not beside this checkout")
    prefix = "cross_clip_tracking_module."
    weights = json.loads(layouts.read_text())["weights"]
    state = {name.removeprefix(prefix): torch.zeros(shape) for name, (_, shape) in weights.items()
             if name.startswith(prefix)}
    load_strict(MaXTronHead(MaXTronHeadConfig(num_classes=124, start="official")), rename(state, MAXTRON_KMAX))
