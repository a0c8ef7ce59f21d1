"""Which settings of a recipe need no official value, and why. Every other setting has to stand in a table.

A new setting of the schema is in neither list, and the test of coverage fails until somebody decides about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jobs.config import to_json
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from tests.jobs.recipes.official.compare import facts_of
from tests.jobs.recipes.official.facts import matches

NO_OFFICIAL_VALUE: dict[str, tuple[str, ...]] = {
    "what a run is called, where its files lie": (
        "name", "about", "file", "folder", "stage_one_from", "shards_from", "count_classes", "*dataset.root",
        "*dataset.split", "*dataset.classes", "*dataset.layout", "train_split", "world", "predict.*", "tracking.*",
        "evaluation.predictions", "evaluation.keep_predictions", "evaluation.output", "evaluation.overlays",
        "evaluation.formats"),
    "how the work is spread and read; no result depends on it": (
        "cluster.*", "shards.clip_frames", "shards.shard_megabytes", "shards.min_shards", "*.workers", "*.prefetch",
        "*.streaming", "*.stream_from", "*.log_every", "*.checkpoint_every", "*.keep_checkpoints", "strict",
        "shards.max_bad_fraction", "shards.decoded_frames", "inference.clips_together"),
    "seeds": ("*.seed",),
    "the quality at which frames are stored anew": ("shards.jpeg_quality", "shards.resize_height"),
    "names of kinds": ("*.kind",),
    "sizes and forms of networks; `test_recipes.py` compares them with the layouts of official models": (
        *(f"stage_one.segmenter.pixel_decoder.{name}" for name in (
            "blocks", "widths", "kinds", "heads", "drop_path", "dim", "embedding", "points", "ffn", "strides", "finest",
            "fuse_norm")),
        *(f"stage_one.segmenter.query_decoder.{name}" for name in (
            "dim", "embedding", "ffn", "heads", "pixel_depthwise", "depthwise_crosses_frames", "corners_by",
            "supervise_pixels", "levels", "pre_norm", "project_maps", "cross_attention")),
        *(f"stage_one.segmenter.semantic_head.{name}" for name in ("width", "fine_widths", "rates")),
        *(f"stage_one.segmenter.linking.{name}" for name in ("dim", "heads", "ffn")),
        *(f"*.head.{name}" for name in ("dim", "embedding", "heads", "pixel_dim", "pre_norm", "project")),
        "*.within_clip.heads", "*.within_clip.points", "stage_one.segmenter.backbone.pretrained"),
    "compared as learning rates and decays of all parameters": (
        *(f"*.optimizer.{name}" for name in ("lr", "weight_decay", "warmup_steps", "warmup_factor", "schedule", "power",
                                             "milestones", "multipliers", "decay", "frozen", "no_decay")),),
    "compared as start weights": ("*.start_from",),
    "compared as the number of reserved queries": ("*.stuff_classes",),
    "what is scored besides; VPQ is always the mean over windows of 1, 2, 4 and 6 frames": (
        "evaluation.windows", "evaluation.association", "evaluation.stq_compat", "evaluation.mvc_compat",
        "evaluation.video_sets"),
    "our query cache, which the official code has none of": (
        "cache.splits", "cache.dtype", "cache.features_in_8_bits", "cache.augment", "cache.evidence.strategy",
        "cache.evidence.stride"),
    "our learned links, which the official code has none of": ("stage_two.links", "stage_two.links.*"),
    "our scores from the query cache, which the official code has none of": (
        "stage_two.validation", "stage_two.validation.*"),
    "our scores while stage one trains; they look on": ("stage_one.validation", "stage_one.validation.*"),
    "our moving average of weights; no recipe has it": ("*.fit.ema",),
}


def _makes_no(result: str) -> Callable[[Recipe], bool]:
    return lambda recipe: result not in recipe.inference.results


def _has_no_batch_norm(recipe: Recipe) -> bool:
    return not recipe.stage_one.segmenter.backbone.name.startswith("resnet")


def _tests_at_its_own_size(recipe: Recipe) -> bool:
    return getattr(recipe.inference, "resize", None) is not None


def _keeps_the_size_of_frames(recipe: Recipe) -> bool:
    return _tests_at_its_own_size(recipe) and recipe.inference.resize.short_side is None


def _refuses_empty_clips(recipe: Recipe) -> bool:
    refuse = getattr(recipe.stage_one.input, "refuse", None)
    return refuse is not None and bool(refuse.empty)


def _never_crops(recipe: Recipe) -> bool:
    return recipe.stage_one.input.augment.size is None


def _keeps_its_segmenter(recipe: Recipe) -> bool:
    return not recipe.stage_one.train


def _makes_no_tubes(recipe: Recipe) -> bool:
    return _makes_no("panoptic")(recipe) or recipe.inference.panoptic.kind != "tube"


def _matches_pairs(recipe: Recipe) -> bool:
    return recipe.stage_one.linking is not None and recipe.stage_one.linking.assignment == "matched"


def _scores_videos(recipe: Recipe) -> bool:
    return recipe.inference.tracks.scored == "video"


def _keeps_statistics(recipe: Recipe) -> bool:
    return recipe.stage_one.segmenter.backbone.frozen_statistics


def _has_no_trajectories(recipe: Recipe) -> bool:
    within_clip = getattr(recipe.stage_one.segmenter, "within_clip", None)
    return within_clip is not None and getattr(within_clip, "attention", "axial") is None


def _learns_jointly(recipe: Recipe) -> bool:
    return recipe.stage_one.joint is not None


def _sees_single_frames(recipe: Recipe) -> bool:
    return recipe.stage_one.segmenter_frames == 1


def _joins_without_batch_norm(recipe: Recipe) -> bool:
    return recipe.stage_two is not None and recipe.stage_two.head.kind == "tube_link"


def _has_no_stage_two(recipe: Recipe) -> bool:
    return recipe.stage_two is None


def _has_another_head_than_vita(recipe: Recipe) -> bool:
    return recipe.stage_one.segmenter.kind != "mask2former"


def _reads_images(recipe: Recipe) -> bool:
    return recipe.dataset.name.startswith("coco")


# Settings that a recipe does not use: the patterns of their fields, and when they are idle.
IDLE: tuple[tuple[Callable[[Recipe], bool], tuple[str, ...]], ...] = (
    (_makes_no("panoptic"), ("inference.panoptic.*",)),
    (_makes_no_tubes, ("inference.tracker.*",)),
    (_makes_no("tracks"), ("inference.tracks.*",)),
    (_has_no_stage_two, ("cache.*",)),
    (_has_another_head_than_vita, ("inference.parts",)),
    (_reads_images, ("inference.clip_frames", "inference.last_clip", "inference.association.*", "evaluation.mode",
                     "evaluation.split", "stage_one.losses.frames")),
    (_has_no_batch_norm, ("*.backbone.batch_norm.*", "*.backbone.frozen_statistics")),
    (_matches_pairs, ("stage_one.linking.same_overlap", "stage_one.linking.different_overlap")),
    (_tests_at_its_own_size, ("inference.enlarge",)),
    (_keeps_the_size_of_frames, ("inference.resize.interpolation",)),
    (_refuses_empty_clips, ("*.input.drop_empty",)),
    (_never_crops, ("*.augment.crop",)),
    (_scores_videos, ("inference.tracks.per_frame",)),
    (_keeps_statistics, ("*.backbone.batch_norm.momentum",)),
    (_has_no_trajectories, tuple(f"stage_one.segmenter.within_clip.{name}" for name in (
        "trajectory_layers_per_block", "arrangement", "trajectory_strides", "attention_dropout", "residual_dropout"))),
    (_learns_jointly, ("stage_one.joint.losses.points",)),       # the points of stage_one.losses serve the head too
    (_sees_single_frames, ("*.losses.frames", "inference.clip_frames", "inference.last_clip")),
    (_joins_without_batch_norm, ("stage_two.head.batch_norm.*",)),
    (_keeps_its_segmenter, ("stage_one.losses.*", "stage_one.fit.*", "stage_one.optimizer.*", "stage_one.input.*",
                            "stage_one.stills")),
)


def uncovered(name: str) -> list[str]:
    """The settings of a recipe that no fact, no reason and no idle part covers."""
    recipe = find_recipe(name)
    facts = [fact.field for fact in facts_of(name)]
    idle = [pattern for is_idle, patterns in IDLE if is_idle(recipe) for pattern in patterns]
    excused = [pattern for patterns in NO_OFFICIAL_VALUE.values() for pattern in patterns] + idle
    return [leaf for leaf in _leaves(to_json(recipe))
            if not matches(leaf, excused) and not any(_is_above(fact, leaf) or _is_above(leaf, fact) for fact in facts)]


def _is_above(path: str, other: str) -> bool:
    """Whether a path is the other one, or a part that holds it."""
    return f"{other}.".startswith(f"{path}.")


def _leaves(values: Any, path: str = "") -> Iterator[str]:
    if not isinstance(values, dict):
        yield path
        return
    for name, value in values.items():
        yield from _leaves(value, f"{path}.{name}".lstrip("."))
