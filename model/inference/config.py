"""How a video is made of its clips: one configuration for caching, scoring and predicting, kept with every model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.association import AssociationConfig, HungarianConfig
from model.association.quasi_dense import QuasiDenseConfig
from model.association.track_links import PartsConfig
from model.contracts import Result
from model.cross_clip import HeadTestConfig
from model.inference.resize import ResizeConfig
from model.postprocess.instances import TrackConfig
from model.postprocess.panoptic import PanopticConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from model.precision import TestPrecision


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Everything that decides the results of a finished model on a video. `model.families` knows what fits together."""

    results: tuple[Result, ...] = ("panoptic",)    # all are made in one pass of the segmenter
    clip_frames: int | None = None                 # at test time; None: as in training
    # Where frames do not fill the last clip, near-online: its last frame is repeated, or the clips at the end are
    # shorter, as Tube-Link cuts videos for tracks. A cross-clip head always sees full clips.
    last_clip: Literal["repeat", "shorten"] = "repeat"
    # How frames enter the network: None: inside the fixed input size of training, scaled down where they do not fit;
    # with `enlarge`, frames smaller than it are scaled up to it.
    resize: ResizeConfig | None = None
    enlarge: bool = False
    panoptic: PanopticConfig | TubePanopticConfig = field(default_factory=PanopticConfig)
    # Of panoptic videos of kind "tube", and of the association "quasi_dense".
    tracker: QuasiDenseConfig = field(default_factory=QuasiDenseConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    # How objects are found again near-online: 'inference.association={"kind": "memory_buffer"}'
    association: AssociationConfig = field(default_factory=HungarianConfig)
    # Of segmenter and head. auto: bf16 where the hardware has it, which halves the time of a clip on a CPU. fp16
    # needs a GPU; on a CPU fp32 is used.
    precision: TestPrecision = "fp32"
    # Clips that pass through the segmenter at once, and videos that one task of a verb works through at most, so that
    # short ones share a pass. More fill a GPU, and make small networks faster on a CPU; results are the same.
    clips_together: int = 1
    head: HeadTestConfig | None = None             # of the cross-clip head where testing differs from training
    # The head sees parts of the video, whose tracks are linked: 'inference.parts={"clips": 36}'. None: the whole video.
    parts: PartsConfig | None = None

    def __post_init__(self) -> None:
        if not self.results or (self.clip_frames is not None and self.clip_frames < 1):
            raise ValueError(f"inference.results={self.results} and clip_frames={self.clip_frames}: name at least one "
                             "result, and clips of at least one frame")
        if self.clips_together < 1:
            raise ValueError(f"inference.clips_together={self.clips_together}: the segmenter sees at least one clip at "
                             "a time; set it to 1 or more")
        if len(set(self.results)) < len(self.results):
            raise ValueError(f"inference.results={self.results} names a result twice; name each once")
        if self.resize is not None and self.enlarge:
            raise ValueError("inference.enlarge=true fills a fixed network input, which inference.resize replaces; set "
                             "enlarge=false and inference.resize.short_side, or resize=null")
        if getattr(self.panoptic, "sure_first", False) and self.association.kind in ("hungarian", "links"):
            raise ValueError("inference.panoptic.sure_first=true needs the classes of each clip, but "
                             f"{self.association.kind} merges all clips at once; set sure_first=false, or "
                             "inference.association=memory_buffer")
        if self.parts is not None and "panoptic" in self.results:
            raise ValueError(f"inference.parts links tracks, and results={list(self.results)} asks for panoptic "
                             "videos; set inference.parts=null, or results=[\"tracks\"]")
        if self.last_clip == "shorten" and self.association.overlap:
            raise ValueError(f"inference.last_clip='shorten' cuts clips that share no frame, {self.association.kind} "
                             f"asks for overlap={self.association.overlap}; set last_clip to 'repeat'")
        tubes = getattr(self.panoptic, "shared_frames", 0)
        if tubes and (self.results != ("panoptic",) or self.association.kind != "hungarian"
                      or self.last_clip == "shorten"):
            raise ValueError(f"inference.panoptic.shared_frames={tubes} is for panoptic tubes alone, and there are "
                             f"results={list(self.results)}, association={self.association.kind} and last_clip="
                             f"{self.last_clip!r}; set inference.panoptic.shared_frames=0, or those to [\"panoptic\"], "
                             "hungarian and repeat")
