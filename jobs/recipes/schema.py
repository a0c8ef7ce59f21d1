"""A recipe: one complete, typed configuration for a whole road, from data set to score. Each verb reads its part.

A recipe names one system on one data set. Variants `replace` a few fields of an earlier recipe, and the command line
may override any typed field (`--set stage_one.fit.steps=100`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from jobs.training.loop import FitConfig
from jobs.training.optimizer import OptimizerConfig
from jobs.training.tracking import TrackingConfig
from model.association import AssociationConfig, HungarianConfig
from model.association.quasi_dense import QuasiDenseConfig
from model.cross_clip import CrossClipConfig
from model.cross_clip.maxtron import MaXTronHeadConfig
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.cross_clip.vita import VitaHeadConfig
from model.losses import ClipLossConfig
from model.losses.cross_clip import CrossClipLossConfig, MaskCrossClipLossConfig
from model.losses.kmax import KMaxLossConfig
from model.losses.linking import LinkingLossConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.vita import VitaLossConfig
from model.postprocess.instances import TrackConfig
from model.postprocess.panoptic import PanopticConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from model.segmenters import SegmenterConfig
from model.segmenters.mask2former import Mask2FormerConfig
from model.segmenters.tube_link import TubeLinkConfig
from model.segmenters.video_kmax import VideoKMaxConfig
from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig
from pipeline.datasets.synthetic import SyntheticConfig
from pipeline.metrics.scorecard import Result
from pipeline.query_cache import EvidenceConfig, QueryInputConfig
from pipeline.shards import ShardConfig
from pipeline.training_input import InputConfig


@dataclass(frozen=True, kw_only=True)
class StillsConfig:
    """Images that train beside the videos; `input.pseudo_video` makes clips of them."""

    dataset: DatasetConfig      # in the classes of the videos
    share: float                # of all clips of a training step, on average

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"stage_one.stills.share={self.share} must lie between 0 and 1; without stills leave "
                             "stage_one.stills out")


@dataclass(frozen=True, kw_only=True)
class StageOneConfig:
    """The clip segmenter and how it is trained."""

    segmenter: SegmenterConfig
    losses: ClipLossConfig = field(default_factory=KMaxLossConfig)
    linking: LinkingLossConfig | None = None    # Tube-Link, panoptic: a training clip is a pair of clips to be linked
    input: InputConfig
    optimizer: OptimizerConfig
    fit: FitConfig
    stills: StillsConfig | None = None          # beside the videos of the train split
    start_from: str = ""        # folder of a finished or converted model; empty: from the backbone's own weights
    # VITA: how many of the detector's last decoder layers the head of stage two reads and learns from along with the
    # detector, on clips of several frames; there is no stage two then. 0: the detector alone, frame by frame.
    joint_layers: int = 0
    train: bool = True          # False: `start_from` is kept as it is, as a frozen detector of another data set

    @property
    def segmenter_frames(self) -> int:
        """Frames of a clip as the segmenter takes it: a detector that learns with its head still sees single frames."""
        return 1 if self.joint_layers else self.input.clip_frames


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What is kept of every clip for stage two."""

    splits: tuple[str, ...] = ("train",)
    views: int = 1                                          # 1: as at test time only; more: augmented views beside it
    augment: AugmentConfig | None = None                    # of the further views; None: the training augmentation
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    dtype: Literal["float16", "float32"] = "float16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"cache.views must be at least 1 (the test-time view), got {self.views}")


@dataclass(frozen=True, kw_only=True)
class StageTwoConfig:
    """The cross-clip head and how it is trained, from the query cache alone."""

    head: CrossClipConfig
    losses: CrossClipLossConfig | MaskCrossClipLossConfig | VitaLossConfig = field(default_factory=CrossClipLossConfig)
    input: QueryInputConfig
    optimizer: OptimizerConfig
    fit: FitConfig


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a split is scored."""

    mode: Literal["untrained", "near_online", "offline"] = "near_online"
    split: str = "val"
    windows: tuple[int, ...] = (1, 2, 4, 6, 8)     # frames; VPQ is the mean over 1, 2, 4, 6, printed with and without 8
    stq_compat: Literal["", "step", "vipseg"] = ""     # STQ as the released script of KITTI-STEP or of VIPSeg counts
    mvc_compat: bool = False                       # mVC as VSPW's released script counts
    video_sets: str = ""                           # file {"short": [video ids], "long": [...]}, as of YouTube-VIS 2022:
                                                   # track AP of each set, and their mean as "all"
    results: tuple[Result, ...] = ("panoptic",)    # what is made of every video, by one run of the segmenter
    merge: PanopticConfig | TubePanopticConfig = field(default_factory=PanopticConfig)     # panoptic: Video-kMaX or
    tracker: QuasiDenseConfig = field(default_factory=QuasiDenseConfig)                    # Tube-Link, with a tracker
    tracks: TrackConfig = field(default_factory=TrackConfig)
    clip_frames: int | None = None                 # at test time; None: as in training
    # Near-online, where frames do not fill the last clip: its last frame is repeated, or clips at the end are shorter,
    # as Tube-Link cuts videos for tracks. A cross-clip head always sees full clips.
    last_clip: Literal["repeat", "shorten"] = "repeat"
    enlarge: bool = False                          # frames smaller than the network input are scaled up to it
    vita_window: int | None = None                 # frames of VITA's windows at test time, 0: all; None: as in training
    vita_keep: float = 1.0                         # share of frame queries that VITA reads, the surest objects first
    # How near-online knows objects again, by name and settings: 'evaluation.association={"name": "memory_buffer"}'
    association: AssociationConfig = field(default_factory=HungarianConfig)
    predictions: str = ""                          # score this folder of predictions instead of running a model
    keep_predictions: bool = True                  # write panoptic PNGs in VIPSeg's layout
    overlays: int = 1                              # videos drawn

    def __post_init__(self) -> None:
        if not {1, 2, 4, 6} <= set(self.windows):
            raise ValueError(f"evaluation.windows={self.windows}: VPQ is the mean over 1, 2, 4 and 6, name them all")
        if not self.results or (self.clip_frames is not None and self.clip_frames < 1):
            raise ValueError(f"evaluation.results={self.results} and clip_frames={self.clip_frames}: name at least one "
                             "result, and clips of at least one frame")
        if self.last_clip == "shorten" and self.association.overlap:
            raise ValueError(f"evaluation.last_clip='shorten' cuts clips that share no frame, {self.association.name} "
                             f"asks for overlap={self.association.overlap}; set last_clip to 'repeat'")
        if self.video_sets and "tracks" not in self.results:
            raise ValueError(f"evaluation.video_sets={self.video_sets!r} splits the score of tracks, and "
                             f"evaluation.results={self.results} has none; add 'tracks', or leave video_sets empty")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """One video or a folder of them, without labels."""

    input: str = ""                                # a video file, a folder of frames, or a folder of videos
    output: str = ""                               # folder; empty: `predictions` in the road's folder
    mode: Literal["near_online", "offline"] = "offline"


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """What the verbs ask Ray for."""

    in_process: bool = False             # nothing at all: everything in the process of the verb, one after another
    workers: int = 2                     # training processes
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    actors: int = 2                      # at most, for caching, evaluating and predicting
    cpus_per_actor: float = 1
    gpus_per_actor: float = 0
    max_failures: int = 2                # worker deaths survived by going back to the last checkpoint
    local_cpus: int = 2                  # size of the cluster that is started when none is given
    object_store_mb: int = 300           # of that cluster


STILLS = "stills"       # name of their shard folder, beside those of the splits

# What belongs together: segmenter, its losses, its cross-clip head, the losses of that.
FAMILIES = ((VideoKMaxConfig, KMaxLossConfig, MaXTronHeadConfig, CrossClipLossConfig),
            (TubeLinkConfig, Mask2FormerLossConfig, TubeLinkHeadConfig, MaskCrossClipLossConfig),
            (Mask2FormerConfig, Mask2FormerLossConfig, VitaHeadConfig, VitaLossConfig))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One road: a data set, a segmenter, a head, and where everything lies."""

    name: str
    about: str                                    # what it reproduces, and the score to expect
    folder: str = ""                              # all results; empty: runs/<name>. Absolute when submitted as a job
    stage_one_from: str = ""                      # folder of another road, to read its shards, stage one and cache
    dataset: DatasetConfig
    train_split: str = "train"
    world: SyntheticConfig | None = None          # written to dataset.root first when given
    shards: ShardConfig = field(default_factory=ShardConfig)
    strict: bool = False                          # stop at the first bad video instead of skipping and counting it
    stage_one: StageOneConfig
    cache: CacheConfig = field(default_factory=CacheConfig)
    stage_two: StageTwoConfig
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        workers = self.cluster.workers
        batches = (self.stage_one.input.batch_size, self.stage_two.input.batch_size)
        for stage, batch in zip(("stage_one", "stage_two"), batches):
            if batch % workers:
                raise ValueError(f"{stage}.input.batch_size={batch} is shared by {workers} workers: it must be a "
                                 f"multiple. Set it to {batch // workers * workers or workers}, or cluster.workers.")
        if self.stage_one.segmenter.num_classes != self.stage_two.head.num_classes:
            raise ValueError(f"the segmenter knows {self.stage_one.segmenter.num_classes} classes, the head "
                             f"{self.stage_two.head.num_classes}: give both the same num_classes")
        parts = (self.stage_one.segmenter, self.stage_one.losses, self.stage_two.head, self.stage_two.losses)
        if not any(all(map(isinstance, parts, family)) for family in FAMILIES):
            names = ", ".join(type(part).__name__ for part in parts)
            raise ValueError(f"{names} do not belong together; segmenter, losses, head and its losses are all of "
                             "Video-kMaX, all of Tube-Link or all of VITA")
        if isinstance(self.stage_two.head, VitaHeadConfig):
            self._refuse_unfit_frames(self.stage_one.segmenter, self.stage_two.head)
        elif self.stage_one.joint_layers:
            raise ValueError(f"stage_one.joint_layers={self.stage_one.joint_layers} trains VITA's head along, and "
                             f"{self.name} has another; set it to 0")
        if not self.stage_one.train and not self.stage_one.start_from:
            raise ValueError("stage_one.train=false keeps a finished segmenter; name it in stage_one.start_from")

        reserved = {part.stuff_classes for part in (self.stage_one.segmenter, self.stage_one.losses,
                                                    self.stage_one.linking) if hasattr(part, "stuff_classes")}
        if len(reserved) > 1:
            raise ValueError(f"segmenter, losses and linking reserve queries for different stuff_classes: "
                             f"{sorted(reserved)}; give all three the same")

    def _refuse_unfit_frames(self, detector: Mask2FormerConfig, head: VitaHeadConfig) -> None:
        """Clips of VITA are single frames, and its head is made for the queries and pixels of its detector."""
        if {self.stage_one.segmenter_frames, self.evaluation.clip_frames or 1} != {1}:
            raise ValueError("VITA's frame detector takes clips of one frame; got stage_one.input.clip_frames="
                             f"{self.stage_one.input.clip_frames} and evaluation.clip_frames="
                             f"{self.evaluation.clip_frames}. Set them to 1; with stage_one.joint_layers, clips of "
                             "stage one may be longer")
        if bool(self.stage_two.losses.similarity_weight) != bool(head.similarity):
            raise ValueError(f"head.similarity={head.similarity!r} and losses.similarity_weight="
                             f"{self.stage_two.losses.similarity_weight} do not go together; switch both on or off")
        queries = detector.query_decoder
        pixels = detector.pixel_decoder
        given = (queries.num_queries, queries.dim, pixels.dim)
        expected = (head.frame_queries, head.dim, head.pixel_dim)
        if given != expected:
            raise ValueError(f"the frame detector has (queries, channels, pixel channels) = {given}, the head is made "
                             f"for {expected}: give both the same num_queries and frame_queries, dim, and pixel_dim")

    @property
    def goes_offline(self) -> bool:
        """Whether a cross-clip head makes the results: panoptic ones of Video-kMaX, tracks of Tube-Link and VITA."""
        return isinstance(self.stage_one.segmenter, VideoKMaxConfig) or self.evaluation.results == ("tracks",)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits this road reads, each once."""
        return tuple(dict.fromkeys((self.train_split, *self.cache.splits, self.evaluation.split)))

    @property
    def sources(self) -> dict[str, DatasetConfig]:
        """Name of a shard folder -> what its shards are made of: every split, and `stills`."""
        found = {split: replace(self.dataset, root=str(self.data_root), split=split) for split in self.splits}
        return found | ({STILLS: self.stage_one.stills.dataset} if self.stage_one.stills else {})

    @property
    def road(self) -> Path:
        """The folder of everything this recipe makes, absolute."""
        return Path(self.folder or f"runs/{self.name}").absolute()

    @property
    def stage_one_road(self) -> Path:
        """The folder of everything up to the query cache, absolute: the road's own, or that of `stage_one_from`."""
        return Path(self.stage_one_from).absolute() if self.stage_one_from else self.road

    @property
    def data_root(self) -> Path:
        """Where the data set lies; a synthetic world's relative folder is inside the folder of stage one."""
        return (self.stage_one_road if self.world is not None else Path()) / self.dataset.root

    def shards_of(self, split: str) -> Path:
        """Folder of the shards of a split, or of the stills."""
        return self.stage_one_road / "shards" / split

    @property
    def segmenter_folder(self) -> Path:
        """The finished segmenter."""
        return self.stage_one_road / "stage_one" / "model"

    @property
    def head_folder(self) -> Path:
        """The finished cross-clip head."""
        return self.road / "stage_two" / "model"
