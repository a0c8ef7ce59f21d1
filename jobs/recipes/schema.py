"""A recipe: one complete, typed configuration of a run, from data set to score. Each verb reads its part.

A recipe names one system on one data set. Variants `replace` a few fields of an earlier recipe, and the command line
may override any typed field (`--set stage_one.fit.steps=100`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jobs.cluster import ClusterConfig
from jobs.training.loop import FitConfig
from jobs.training.optimizer import OptimizerConfig
from jobs.training.tracking import TrackingConfig
from model.association.links import LinkNetworkConfig
from model.cross_clip import CrossClipConfig
from model.cross_clip.vita import VitaHeadConfig
from model.families import Family, family_of, refuse_unfit_canvas, refuse_unfit_head, refuse_unfit_results
from model.inference import InferenceConfig
from model.losses import ClipLossConfig, VideoLossConfig
from model.losses.cross_clip import CrossClipLossConfig
from model.losses.kmax import KMaxLossConfig
from model.losses.linking import LinkingLossConfig
from model.losses.links import LinkLossConfig
from model.losses.vita import VitaLossConfig
from model.segmenters import SegmenterConfig
from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig
from pipeline.datasets.synthetic import SyntheticConfig
from pipeline.file_names import at_home, can_name_a_file
from pipeline.metrics.vpq import WINDOWS
from pipeline.predictions import FormatName, refuse_unfit_formats
from pipeline.query_cache import EvidenceConfig, QueryInputConfig
from pipeline.shards import ShardConfig
from pipeline.training_input import CopyPasteConfig, InputConfig

Mode = Literal["untrained", "near_online", "offline"]


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
class JointConfig:
    """VITA: a cross-clip head that trains along with the detector, on clips of several frames."""

    head: VitaHeadConfig
    losses: VitaLossConfig = field(default_factory=VitaLossConfig)
    layers: int = 3     # the detector's last decoder layers, that the head reads and learns from; official: 3
    start_from: str = ""        # folder of a finished or converted head; empty: from random weights

    def __post_init__(self) -> None:
        _refuse_other_similarity("stage_one.joint", self.head, self.losses)


@dataclass(frozen=True, kw_only=True)
class SegmenterValidationConfig:
    """Scores and pictures of the segmenter while it trains, near-online on videos of `evaluation.split`."""

    every: int = 500            # steps from score to score
    videos: int = 4             # with labels, from the first one on
    overlays: int = 2           # of these videos that are drawn, into stage_one/pictures
    metric: str = ""            # by which the best weights are kept in stage_one/best; empty: VPQ, AP or mIoU

    def __post_init__(self) -> None:
        if min(self.every, self.videos) < 1 or self.overlays < 0:
            raise ValueError(f"stage_one.validation has every={self.every}, videos={self.videos}, overlays="
                             f"{self.overlays}: every and videos must be at least 1, overlays at least 0")


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
    start_from: str = ""        # folder of a finished or converted segmenter; empty: from the backbone's own weights
    joint: JointConfig | None = None            # VITA: the head that trains along; there is no stage two then
    train: bool = True          # False: `start_from` is kept as it is, as a frozen detector of another data set
    validation: SegmenterValidationConfig | None = None     # None: nothing is scored while it trains

    def __post_init__(self) -> None:
        if not self.train and not self.start_from:
            raise ValueError("stage_one.train=false keeps a finished segmenter; name it in stage_one.start_from")
        family = family_of(self.segmenter)
        if type(self.losses) is not family.losses:
            raise ValueError(f"stage_one.losses is {type(self.losses).__name__}, but {type(self.segmenter).__name__} "
                             f"trains with {family.losses.__name__}; set stage_one.losses accordingly")
        reserved = {part.stuff_classes for part in (self.segmenter, self.losses, self.linking)
                    if hasattr(part, "stuff_classes")}
        if len(reserved) > 1:
            raise ValueError(f"segmenter, losses and linking reserve queries for different stuff_classes: "
                             f"{sorted(reserved)}; give all three the same")
        if family.is_frame_detector and self.segmenter_frames != 1:
            raise ValueError(f"{self.segmenter.kind} is a frame detector, and takes clips of one frame; set "
                             f"stage_one.input.clip_frames=1, not {self.input.clip_frames}, unless a head trains along "
                             "(stage_one.joint)")
        _refuse_unfit_augment(self.segmenter, self.input.augment, field="stage_one.input.augment")
        if self.joint is not None and self.validation is not None:
            raise ValueError("stage_one.validation scores a segmenter near-online, and one that trains along with a "
                             "head (stage_one.joint) makes no results without it; leave stage_one.validation out")
        if self.joint is not None:
            refuse_unfit_head(self.segmenter, self.joint.head, self.joint.losses, field="stage_one.joint")

    @property
    def segmenter_frames(self) -> int:
        """Frames of a clip as the segmenter takes it: a detector that learns with its head still sees single frames."""
        return self.input.clip_frames if self.joint is None else 1

    @property
    def unscored(self) -> StageOneConfig:
        """What decides the weights: scores while it trains only look on."""
        return replace(self, validation=None)


def _refuse_unfit_augment(segmenter: SegmenterConfig, augment: AugmentConfig, *, field: str) -> None:
    refuse_unfit_canvas(segmenter, size=augment.size, pad_to=augment.pad_to, field=field)


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What is kept of every clip for stage two, and of which views of a video (`pipeline/query_cache/views.py`).

    A cache of more views contains that of fewer: what is finished is kept, and only the new views are made.
    """

    splits: tuple[str, ...] = ("train",)
    views: int = 1                                          # 1: as at test time only; more: augmented views beside it
    augment: AugmentConfig | None = None                    # of the further views; None: the training augmentation
    copy_paste: CopyPasteConfig | None = None               # of the further views; official on VIPSeg: every clip
    window_frames: int = 0          # of stage two's windows: the clips of a further view are cut from any frame on at
                                    # which a window of so many frames may begin; 0: from frame 0 on
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    dtype: Literal["float16", "float32"] = "float16"
    features_in_8_bits: bool = False    # pixel features have 8 bits and a factor for each pixel, whatever `dtype` is
    seed: int = 0

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"cache.views must be at least 1 (the test-time view), got {self.views}")
        if self.views > 1 and self.evidence.stride == 1:
            raise ValueError(f"cache.evidence.stride=1 stores pixels at test time alone, but cache.views={self.views}; "
                             "set cache.views=1, or stride=4")
        if self.window_frames < 0:
            raise ValueError(f"cache.window_frames is {self.window_frames}; give the frames of a window of stage two "
                             "(stage_two.input.clips x frames of a clip), or 0")


@dataclass(frozen=True, kw_only=True)
class LinksStageConfig:
    """Learned links and how they are trained, from the query cache alone, in the process of the verb."""

    network: LinkNetworkConfig = field(default_factory=LinkNetworkConfig)
    losses: LinkLossConfig = field(default_factory=LinkLossConfig)
    input: QueryInputConfig = field(default_factory=lambda: QueryInputConfig(clips=12, batch_size=24))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(
        lr=2e-3, weight_decay=0.01, warmup_steps=30, clip_norm=1.0))
    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=600, log_every=100, checkpoint_every=600))

    def __post_init__(self) -> None:
        if self.input.reach:
            raise ValueError(f"stage_two.links.input.reach={self.input.reach} leaves gaps between clips, and links "
                             "need to know how much time passes between them; set stage_two.links.input.reach=0")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Scores of heads from a query cache alone, of the split `evaluation.split` (`pipeline/cached_scores.py`)."""

    pixels: int = 1024          # of a clip that are stored for it, evenly spread over the frames
    every: int = 0              # steps from score to score while a head is trained; 0: none
    metric: str = ""            # of the heads, such as vpq_k12; empty: VPQ, or AP where there are tracks alone
    patience: int = 0           # training ends after so many scores without a new best one, and the best weights are
                                # kept; 0: it takes all steps, and the last weights are kept

    def __post_init__(self) -> None:
        if self.pixels < 1 or min(self.every, self.patience) < 0:
            raise ValueError(f"stage_two.validation has pixels={self.pixels}, every={self.every}, patience="
                             f"{self.patience}: pixels must be at least 1, the others at least 0")
        if self.patience and not self.every:
            raise ValueError(f"stage_two.validation.patience={self.patience} counts scores during training, and "
                             "stage_two.validation.every=0 makes none; set every to a number of steps, such as 50")


@dataclass(frozen=True, kw_only=True)
class StageTwoConfig:
    """The cross-clip head and learned links, and how each is trained, from the query cache alone."""

    head: CrossClipConfig | None                # None: no head, links alone
    losses: VideoLossConfig = field(default_factory=CrossClipLossConfig)
    input: QueryInputConfig = field(default_factory=QueryInputConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    start_from: str = ""        # folder of a finished or converted head; empty: as the head's config says
    links: LinksStageConfig | None = None       # None: inference.association=links is not to be had
    validation: ValidationConfig | None = None  # None: no score is made from a query cache

    def __post_init__(self) -> None:
        if self.head is None and self.links is None:
            raise ValueError("stage_two.head=null and stage_two.links=null leave stage two nothing to train; set one "
                             "of them, or stage_two=null")
        if self.head is None and self.start_from:
            raise ValueError(f"stage_two.start_from={self.start_from} fills a cross-clip head, and stage_two.head is "
                             "null; set stage_two.start_from= to nothing")
        if self.head is not None:
            _refuse_other_similarity("stage_two", self.head, self.losses)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the query cache that head and links read."""
        readers = [self.head, None if self.links is None else self.links.network]
        return tuple(dict.fromkeys(name for reader in readers if reader is not None for name in reader.reads.columns))


def _refuse_other_similarity(field: str, head: Any, losses: Any) -> None:
    """VITA's similarity loss needs the head's similarity embeddings, and they need the loss."""
    weight = getattr(losses, "similarity_weight", 0)
    similarity = getattr(head, "similarity", None)
    if bool(weight) != bool(similarity):
        raise ValueError(f"{field}.head.similarity={similarity!r} and {field}.losses.similarity_weight={weight} do not "
                         "go together; switch both on or off")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a split is scored. How its videos are made is `Recipe.inference`."""

    mode: Mode = "near_online"
    split: str = "val"
    # oracle: the labels decide which query is which object, in place of inference.association. A reference line: what
    # it loses from window to window, no association can win back.
    association: Literal["", "oracle"] = ""
    windows: tuple[int, ...] = WINDOWS             # frames; VPQ is the mean over 1, 2, 4, 6, printed with and without 8
    stq_compat: Literal["", "step", "vipseg"] = ""     # STQ as the released script of KITTI-STEP or of VIPSeg counts
    mvc_compat: bool = False                       # mVC as VSPW's released script counts
    video_sets: str = ""                           # file {"short": [video ids], "long": [...]}, as of YouTube-VIS 2022:
                                                   # track AP of each set, and their mean as "all"
    formats: tuple[FormatName, ...] = ()           # of the predictions that are kept; empty: those of the results
    output: str = ""                               # folder; empty: `scores` in the run's folder
    predictions: str = ""                          # score this folder of predictions instead of running a model
    keep_predictions: bool = True                  # write the predictions to disk
    overlays: int = 1                              # videos drawn

    def __post_init__(self) -> None:
        if not {1, 2, 4, 6} <= set(self.windows):
            raise ValueError(f"evaluation.windows={self.windows}: VPQ is the mean over 1, 2, 4 and 6, name them all")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Videos without labels, and what is wanted of them. docs/predict.md explains every field."""

    input: str | tuple[str, ...] = ""   # video files, pictures, folders of frames or videos, globs, lists (.txt)
    output: str = ""                    # folder, to which further runs add; empty: `predictions` in the run's folder
    mode: Literal["near_online", "offline"] | None = None      # None: offline where the run has a head that can
    formats: tuple[FormatName, ...] = ()           # of the results on disk; empty: those of inference.results
    every: int = 1                      # 1: all frames; n: every nth one
    start: float = 0.0                  # seconds after the first frame
    end: float | None = None            # the first second that is left out; None: to the last frame
    fps: float = 6.0                    # of folders of frames; video files have their own times. 6: as in VIPSeg
    threshold: float | None = None      # lowest score of a segment or track that is kept; None: as the model decides
    classes: tuple[str, ...] = ()       # names of the classes that are kept; empty: all
    keep_damaged: bool = False          # predict the readable part of a damaged video file instead of skipping it

    def __post_init__(self) -> None:
        ends_later = self.end is None or self.end > self.start
        if not (self.every >= 1 and 0 <= self.start < math.inf and 0 < self.fps <= 1000 and ends_later):
            raise ValueError(f"predict.every={self.every}, start={self.start}, end={self.end}, fps={self.fps}: every "
                             "must be at least 1, start at least 0 seconds, end later than start, and fps above 0 and "
                             "at most 1000")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"predict.threshold={self.threshold} must lie between 0 and 1, as scores do")


STILLS = "stills"       # name of their shard folder, beside those of the splits


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run: a data set, a segmenter, perhaps a cross-clip head, and where everything lies."""

    name: str
    about: str                                    # what it reproduces, and the score to expect
    file: str = ""                                # the file that it was read from; empty: a recipe of this folder
    folder: str = ""                              # all results; empty: runs/<name>. Absolute when submitted as a job
    stage_one_from: str = ""                      # folder of another run, to read its shards, stage one and cache
    shards_from: str = ""                         # folder of a run, to read its shards; empty: that of stage one
    dataset: DatasetConfig
    count_classes: bool = False                   # segmenter and heads have the classes of the shards, whatever the
                                                  # recipe says (jobs/counted_classes.py)
    train_split: str = "train"
    world: SyntheticConfig | None = None          # written to dataset.root first when given
    shards: ShardConfig = field(default_factory=ShardConfig)
    strict: bool = False                          # stop at the first bad video instead of skipping and counting it
    stage_one: StageOneConfig
    cache: CacheConfig = field(default_factory=CacheConfig)
    stage_two: StageTwoConfig | None = None       # None: no cross-clip head, or one that trains in stage one
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if not all(map(can_name_a_file, self.name.split("/"))):     # also no "..", and no "/" at the start
            raise ValueError(f"name={self.name[:60]!r} cannot name the folder of a run; give it a name of printable "
                             "characters, such as name=my_run")
        one = self.stage_one
        if self.stage_two is not None:
            if one.joint is not None:
                raise ValueError("stage_one.joint trains the cross-clip head along, so there is no stage two; set "
                                 "stage_two=null or stage_one.joint=null")
            self._refuse_unfit_stage_two(self.stage_two)
        for name in ("stage_one", "stage_two"):
            self._refuse_unshared_batch(name, getattr(self, name))
        if self.evaluation.video_sets and "tracks" not in self.inference.results:
            raise ValueError(f"evaluation.video_sets={self.evaluation.video_sets!r} splits the score of tracks, and "
                             f"inference.results={self.inference.results} has none; add 'tracks', or leave video_sets "
                             "empty")
        if self.inference.head is not None and self.inference.head.kind != getattr(self.head, "kind", None):
            raise ValueError(f"inference.head is of kind {self.inference.head.kind!r}, the recipe's cross-clip head is "
                             f"{self.head and self.head.kind!r}; set inference.head=null")
        refuse_unfit_results(self.inference, one.segmenter, offline=False, clip_frames=one.segmenter_frames)
        self._refuse_unfit_sizes()
        if self.evaluation.association == "oracle":
            self._refuse_unfit_oracle()
        for part in ("evaluation", "predict"):
            refuse_unfit_formats(getattr(self, part).formats, self.inference.results, setting=f"{part}.formats")
        for field_name in ("evaluation.mode", "predict.mode"):
            part, _, leaf = field_name.partition(".")
            if getattr(getattr(self, part), leaf) == "offline":
                self._refuse_offline(field_name)

    def _refuse_unfit_stage_two(self, two: StageTwoConfig) -> None:
        if two.head is not None:
            refuse_unfit_head(self.stage_one.segmenter, two.head, two.losses, field="stage_two")
        for name, part in (("stage_two", two.head and two), ("stage_two.links", two.links)):
            if part is not None and self.cache.views == 1 and not part.input.test_view:
                raise ValueError(f"{name}.input.test_view=false leaves nothing to draw from a cache with "
                                 "cache.views=1, the test-time view; set cache.views to 2 or more, or test_view=true")

    def _refuse_unshared_batch(self, name: str, stage: StageOneConfig | StageTwoConfig | None) -> None:
        workers = self.cluster.workers
        trains = stage is not None and getattr(stage, "head", True) is not None
        if trains and stage.input.batch_size < workers:
            raise ValueError(f"{name}.input.batch_size={stage.input.batch_size} is shared by {workers} workers, and "
                             f"each needs a sample: set it to at least {workers}, or lower cluster.workers.")

    def _refuse_unfit_sizes(self) -> None:
        """Raise ValueError where frames have no size at test time, or stage two cannot keep views of their sizes."""
        if self.stage_one.input.augment.size is None and self.inference.resize is None:
            raise ValueError("stage_one.input.augment.size=null leaves frames no size at test time; set "
                             "inference.resize, such as '{\"short_side\": 360}'")
        if self.cache.augment is not None:
            _refuse_unfit_augment(self.stage_one.segmenter, self.cache.augment, field="cache.augment")
        if self.stage_two is not None and self.inference.resize and self.cache.evidence.strategy == "dense":
            raise ValueError("cache.evidence.strategy=dense keeps all pixels, but with inference.resize the number of "
                             "pixels differs between videos; set the strategy to balanced, or inference.resize=null")

    def _refuse_unfit_oracle(self) -> None:
        """Raise ValueError where something else than an order of queries decides which object is which."""
        inference = self.inference
        where = "evaluation.association=oracle orders queries by the labels, but"
        if self.evaluation.predictions:
            raise ValueError(f"{where} evaluation.predictions={self.evaluation.predictions} are finished; leave "
                             "evaluation.predictions empty, or evaluation.association")
        if inference.association.kind != "hungarian":
            raise ValueError(f"{where} inference.association={inference.association.kind} would associate once more; "
                             "set inference.association.kind=hungarian")
        if "panoptic" in inference.results and inference.panoptic.kind == "tube":
            raise ValueError(f"{where} panoptic videos of kind 'tube' are tracked by their own tracker; leave panoptic "
                             f"out of inference.results={list(inference.results)}, or evaluation.association empty")

    def _refuse_offline(self, field_name: str) -> None:
        """Raise ValueError unless a cross-clip head can make every result."""
        one = self.stage_one
        if self.head is None:
            raise ValueError(f"{field_name}=offline needs a cross-clip head, and {self.name} has none; set "
                             f"{field_name}=near_online, or choose a recipe with stage_two")
        try:
            refuse_unfit_results(self.inference, one.segmenter, offline=True, clip_frames=one.segmenter_frames)
        except ValueError as error:
            raise ValueError(f"{field_name}=offline cannot be done: {error}") from None

    @property
    def head(self) -> CrossClipConfig | None:
        """The cross-clip head, of stage two or trained along in stage one; None without any."""
        if self.stage_one.joint is not None:
            return self.stage_one.joint.head
        return None if self.stage_two is None else self.stage_two.head

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes in which a finished run is evaluated and predicts; the last one is the best there is."""
        try:
            self._refuse_offline("evaluation.mode")
        except ValueError:
            return ("near_online",)
        return ("near_online", "offline")

    @property
    def predict_mode(self) -> Mode:
        """The mode of `predict`: the one that is set, or the best one."""
        return self.predict.mode or self.modes[-1]

    @property
    def starts(self) -> dict[str, str]:
        """Setting -> folder of the model from which it fills a part of this run; empty settings are left out."""
        one = self.stage_one
        folders = {"stage_one.start_from": one.start_from,
                   "stage_one.joint.start_from": "" if one.joint is None else one.joint.start_from,
                   "stage_two.start_from": "" if self.stage_two is None else self.stage_two.start_from}
        return {setting: folder for setting, folder in folders.items() if folder}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits this run reads, each once."""
        cached = () if self.stage_two is None else self.cache.splits
        return tuple(dict.fromkeys((self.train_split, *cached, self.evaluation.split)))

    @property
    def sources(self) -> dict[str, DatasetConfig]:
        """Name of a shard folder -> what its shards are made of: every split, and `stills`."""
        sources = {split: replace(self.dataset, root=str(self.data_root), split=split) for split in self.splits}
        return sources | ({STILLS: self.stage_one.stills.dataset} if self.stage_one.stills else {})

    @property
    def run_folder(self) -> Path:
        """The folder of everything this recipe makes, absolute."""
        return at_home(self.folder or f"runs/{self.name}").absolute()

    @property
    def stage_one_run(self) -> Path:
        """The folder of everything up to the query cache, absolute: this run's own, or that of `stage_one_from`."""
        return at_home(self.stage_one_from).absolute() if self.stage_one_from else self.run_folder

    @property
    def shards_run(self) -> Path:
        """The folder of the run whose shards are read, absolute: that of stage one, or `shards_from`."""
        return at_home(self.shards_from).absolute() if self.shards_from else self.stage_one_run

    @property
    def data_root(self) -> Path:
        """Where the data set lies; a synthetic world's relative folder is inside the run whose shards are read."""
        return (self.shards_run if self.world is not None else Path()) / at_home(self.dataset.root)

    def shards_of(self, split: str) -> Path:
        """Folder of the shards of a split, or of the stills."""
        return self.shards_run / "shards" / split

    @property
    def scores_root(self) -> Path:
        """The folder of all evaluations, each of which has a folder of its own."""
        return Path(self.evaluation.output or self.run_folder / "scores")

    @property
    def segmenter_folder(self) -> Path:
        """The finished segmenter."""
        return self.stage_one_run / "stage_one" / "model"

    @property
    def head_folder(self) -> Path:
        """The finished cross-clip head."""
        return self.run_folder / "stage_two" / "model"

    @property
    def links_folder(self) -> Path:
        """The finished learned links."""
        return self.run_folder / "stage_two" / "links" / "model"

    @property
    def family(self) -> Family:
        """The row of the segmenter in `model.families`."""
        return family_of(self.stage_one.segmenter)
