"""Training input of stage one: clips are drawn from shards, augmented, combined by copy-paste and batched."""

from pipeline.training_input.batch_slots import BatchSlots
from pipeline.training_input.copy_paste import CopyPasteConfig, choose_segments, draw_donor, paste, renumber
from pipeline.training_input.loading import (
    IndexedClips,
    Stills,
    never_drawn,
    read_frames,
    training_batches,
    training_plan,
)
from pipeline.training_input.pseudo_video import PseudoVideoConfig
from pipeline.training_input.refusal import RefusalConfig
from pipeline.training_input.sample_plan import (
    CLIP,
    EVIDENCE,
    VIEW,
    Draw,
    SamplePlan,
    enough_samples,
    random_stream,
    step_of,
)
from pipeline.training_input.targets import Overlaps, at_stride_4, clip_tubes, number_tubes, stride_4
from pipeline.training_input.training_clips import Fetch, InputConfig, Part, decode_part, make_clip, plan_clip

__all__ = ["BatchSlots", "CLIP", "CopyPasteConfig", "Draw", "EVIDENCE", "Fetch", "IndexedClips", "InputConfig",
           "Overlaps", "Part", "PseudoVideoConfig", "RefusalConfig", "SamplePlan", "Stills", "VIEW", "at_stride_4",
           "choose_segments", "clip_tubes", "decode_part", "draw_donor", "enough_samples", "make_clip", "never_drawn",
           "number_tubes", "paste", "plan_clip", "random_stream", "read_frames", "renumber", "step_of", "stride_4",
           "training_batches", "training_plan"]
