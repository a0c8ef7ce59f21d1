"""Flags with which verbs take seconds."""

from __future__ import annotations


def settings(*changes: str) -> tuple[str, ...]:
    """The words of the command line that change a recipe."""
    return tuple(word for change in changes for word in ("--set", change))


SMALL = ("--recipe", "tiny", *settings("world.videos_train=3", "world.videos_val=1", "stage_one.input.batch_size=6",
                                       "stage_two.input.batch_size=6", "stage_one.fit.log_every=1"))

# Of a table of `jobs.reproduce` whose rows have one segmenter.
TOY = settings("world.preset=easy", "world.frames=6", "world.videos_train=6", "world.videos_val=2", "world.height=64",
               "world.width=64", "stage_one.input.augment.size=[64,64]", "stage_one.fit.steps=2")
