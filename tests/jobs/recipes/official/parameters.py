"""Learning rate and weight decay of every parameter, by the rules of the official training scripts.

A rule is two lists that are read from the top: the first entry that fits a parameter gives its factor on the learning
rate, or its decay. The entries name modules and parameters of our networks; what they say is the official code's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

DECAY = 0.05
Fits = Callable[[str, nn.Module], bool]     # name of a parameter, and the module that owns it


@dataclass(frozen=True)
class Entry:
    """Which parameters are meant, and their factor on the learning rate or their weight decay."""

    title: str
    fits: Fits
    value: float


@dataclass(frozen=True)
class ParameterRule:
    """The rule of one official training script for one model."""

    factors: tuple[Entry, ...]
    decays: tuple[Entry, ...]

    def kind_of(self, name: str, module: nn.Module) -> tuple[Entry, Entry]:
        """The entries that decide about a parameter. Raises StopIteration where none does."""
        return (next(entry for entry in self.factors if entry.fits(name, module)),
                next(entry for entry in self.decays if entry.fits(name, module)))

    def __str__(self) -> str:
        return ", ".join(f"{entry.title} x{entry.value:g}" for entry in self.factors)


def always(name: str, module: nn.Module) -> bool:
    return True


def inside(*parts: str) -> Fits:
    """Parameters whose name holds one of the parts."""
    return lambda name, module: any(part in name for part in parts)


def is_norm(name: str, module: nn.Module) -> bool:
    """PyTorch's norms, and the networks' own layer norms over channels."""
    return (isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm)
            or type(module).__name__ == "ChannelsFirstLayerNorm")


def is_bias(name: str, module: nn.Module) -> bool:
    return "bias" in name.rpartition(".")[2]


def both(*conditions: Fits) -> Fits:
    return lambda name, module: all(condition(name, module) for condition in conditions)


def other_than(condition: Fits) -> Fits:
    return lambda name, module: not condition(name, module)


def _is_response_norm(name: str, module: nn.Module) -> bool:
    return type(module).__name__ == "GlobalResponseNorm"


backbone = inside("backbone.")
REST = Entry("everything else", always, 1.0)
WEIGHTS = Entry("weights", always, DECAY)
QUERIES = inside("initial_queries", "query_positions", "query_decoder.level_embedding", "frame_query_positions")
RELATIVE = inside("relative_position_bias_table")


# ---- kMaX-DeepLab, MaXTron and Video-kMaX: KD train_net.py:160-210, MXV train_net_video.py:150-190

def kmax(*, slow_heads: bool, convnextv2: bool) -> ParameterRule:
    """slow_heads: MaXTron on video, whose script has multipliers for trajectory attention and the prediction heads."""
    video = (Entry("trajectory attention in time", inside("trajectory_stacks."), 2.0),
             Entry("heads on queries", inside("class_projection.", "mask_projection.", "class_head.", "mask_head.",
                                              "mask_norm."), 0.1)) if slow_heads else ()
    own_norm = (Entry("ConvNeXtV2's norms, a class the rule does not name",
                      both(backbone, is_norm, other_than(is_bias)), DECAY),) if convnextv2 else ()
    return ParameterRule(
        factors=(Entry("backbone", backbone, 0.1), *video, REST),
        decays=(Entry("scale of response norms ('gamma')", both(_is_response_norm, other_than(is_bias)), 0.0),
                Entry("shift of response norms ('beta')", _is_response_norm, DECAY),
                *own_norm,
                Entry("norms", is_norm, 0.0), Entry("biases", is_bias, 0.0),
                Entry("relative positions", inside("relative_query", "relative_key", "relative_value"), 0.0),
                Entry("queries", QUERIES, 0.0),
                Entry("layer scale ('gamma')", inside("gamma"), 0.0), WEIGHTS))


# ---- mmdetection: mmcv/runner/optimizer/default_constructor.py. A custom key, if one is part of the name, decides
# ---- alone; norms without a key do not decay; everything else does, biases too.

def mmdet(*, swin_keys: bool = False, slow_embeddings: bool = False, trajectory_key: bool = False,
          own_norm: Fits | None = None, frozen: Fits | None = None) -> ParameterRule:
    """swin_keys: the keys of Swin's schedule exempt the backbone's norms and relative positions; without them the key
    'backbone' makes all of it decay. trajectory_key: 'temporal_layer' makes all of a trajectory layer decay. own_norm:
    norms of a class that mmcv does not know."""
    exempt = (Entry("Swin's norms", both(backbone, is_norm), 0.0),
              Entry("Swin's relative positions", RELATIVE, 0.0)) if swin_keys else ()
    trajectories = (Entry("trajectory layers ('temporal_layer')", inside("trajectories."), DECAY),) if (
        trajectory_key) else ()
    slow = (Entry("embeddings of queries and levels", QUERIES, 0.1),) if slow_embeddings else ()
    unknown = (Entry("norms of a class of their own", own_norm, DECAY),) if own_norm else ()
    held = (Entry("frozen", frozen, 0.0),) if frozen else ()
    return ParameterRule(
        factors=(*held, Entry("backbone", backbone, 0.1), *slow, REST),
        decays=(*exempt, *unknown, Entry("backbone", backbone, DECAY),
                Entry("embeddings of queries and levels", QUERIES, 0.0),
                Entry("layer scale ('gamma')", inside("scale"), DECAY), *trajectories,
                Entry("norms", is_norm, 0.0), WEIGHTS))


# ---- VITA: train_net_vita.py:134-181 (norms and nn.Embedding by type; biases decay)

def vita(*, frozen: Fits | None = None) -> ParameterRule:
    held = (Entry("frozen", frozen, 0.0),) if frozen else ()
    return ParameterRule(
        factors=(*held, Entry("backbone", backbone, 0.1), REST),
        decays=(Entry("relative positions", RELATIVE, 0.0), Entry("norms", is_norm, 0.0),
                Entry("embeddings of queries and levels", QUERIES, 0.0), WEIGHTS))


resnet_norms = both(backbone, is_norm)
aspp_norm = both(is_norm, inside(".aspp.branch."))


def swin_stages(count: int) -> Fits:
    """The first stages of Swin with the step down to the next one, its patch embedding, and the norms of their maps.

    timm counts the step down to a stage to that stage, mmdetection to the stage before.
    """
    parts = ["network.patch_embed.", f"network.layers_{count}.downsample."]
    parts += [f"network.layers_{stage}." for stage in range(count)]
    parts += [f"output_norms.{stage}." for stage in range(count)]
    return inside(*(f"backbone.{part}" for part in parts))
