"""Runs on the worlds in which it is hard to keep who is who (`pipeline/datasets/synthetic_identity.py`).

The network and the schedules are those of `synthetic_hard`, but links take two passes. `synthetic_mixed` trains one
segmenter for four of the worlds, so that only the association decides between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jobs.recipes.schema import Recipe
from jobs.recipes.tiny import synthetic_hard
from pipeline.datasets.synthetic import Preset

MANY_SIDE = 128    # pixels of a frame; at 96, twenty things would be three cells wide at stride 4


def on_world(preset: Preset, *, about: str, **world: int) -> Recipe:
    """The recipe `synthetic_hard` on another preset. world: fields of the world that differ."""
    base = synthetic_hard()
    links = base.stage_two.links
    links = replace(links, network=replace(links.network, passes=2))
    return replace(base, name=f"synthetic_{preset}", about=f"synthetic world, {about}",
                   stage_two=replace(base.stage_two, links=links), world=replace(base.world, preset=preset, **world))


def synthetic_mixed() -> Recipe:
    """Each of 1000 videos is one of hard, reappear, cross and crowd."""
    base = on_world("mixed", about="each video hard, reappear, cross or crowd; read `benchmarks.identity`",
                    videos_train=1000, videos_val=40)
    links = base.stage_two.links
    return replace(base, stage_one=replace(base.stage_one, fit=replace(base.stage_one.fit, steps=3000)),
                   stage_two=replace(base.stage_two, links=replace(links, fit=replace(links.fit, steps=1000))))


def synthetic_reappear() -> Recipe:
    """Things vanish together and come back elsewhere; only their looks tell them apart."""
    return on_world("reappear", about="things vanish and come back elsewhere")


def synthetic_cross() -> Recipe:
    """Twins pass behind a wide pillar in even motion."""
    return on_world("cross", about="twins pass behind a wide pillar")


def synthetic_camera() -> Recipe:
    """Twins pass behind a wide pillar while the camera pans and zooms."""
    return on_world("camera", about="twins pass behind a pillar, the camera pans and zooms")


def synthetic_crowd() -> Recipe:
    """Five equal things cover each other."""
    return on_world("crowd", about="five equal things cover each other")


def synthetic_long() -> Recipe:
    """Videos of 48 frames, in which twins return from outside the frame; stage two reads whole videos."""
    base = on_world("long", about="48 frames, twins return from outside", frames=48, videos_train=150, videos_val=16)
    two = base.stage_two
    links = replace(two.links, input=replace(two.links.input, clips=24, batch_size=8))
    return replace(base, stage_two=replace(two, input=replace(two.input, clips=24), links=links))


def synthetic_many() -> Recipe:
    """Twenty small things and 128 queries."""
    base = on_world("many", about="20 small things, 128 queries", height=MANY_SIDE, width=MANY_SIDE)
    one = base.stage_one
    decoder = replace(one.segmenter.query_decoder, num_queries=128)
    augment = replace(one.input.augment, size=(MANY_SIDE, MANY_SIDE))
    return replace(base, stage_one=replace(one, segmenter=replace(one.segmenter, query_decoder=decoder),  # type: ignore[arg-type]
                                           input=replace(one.input, augment=augment)))


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (synthetic_mixed, synthetic_reappear, synthetic_cross, synthetic_camera,
                                           synthetic_crowd, synthetic_long, synthetic_many)}
