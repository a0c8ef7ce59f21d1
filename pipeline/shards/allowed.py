"""What a data set may hold. A data set that passes here passes every later verb: no other place decides it.

Results become files and folders named after videos and frames; panoptic ids, id maps and colours have limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from model.labels import DIVISOR, ClassTable
from pipeline.errors import BadInput
from pipeline.file_names import LONGEST_NAME, can_name_a_file, is_printable
from pipeline.records import VideoRecord
from pipeline.shards.stored_ids import HIGHEST_ID, SAME_RUN, some


def refuse_unfit_classes(classes: ClassTable) -> None:
    """Raise BadInput "bad-classes" for a class whose number, name or colour a later verb cannot write."""
    for info in classes.classes:
        wrong = None
        if not isinstance(info.dataset_id, int) or not 0 <= info.dataset_id < 2**31:
            wrong = f"the id {info.dataset_id!r}; ids are whole numbers from 0"
        elif not isinstance(info.name, str) or not is_printable(info.name):
            wrong = f"the name {info.name!r}; names are texts of printable characters"
        elif len(info.color) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in info.color):
            wrong = f"the color {info.color!r}; colours are red, green and blue from 0 to 255"
        if wrong:
            raise BadInput("bad-classes", f"class {info.name!r} of {classes.name!r} has {wrong}.",
                           cure="Correct the category file of this data set.")


def refuse_unlike_classes(tables: Mapping[str, ClassTable]) -> None:
    """Raise BadInput "bad-classes" where two splits of a data set have other classes: a network has one table."""
    (first, expected), *others = tables.items()
    for split, classes in others:
        if difference := classes.difference_from(expected):
            raise BadInput("bad-classes", f"the splits {split!r} and {first!r} have other classes: {difference} "
                           f"({len(classes)} classes in {split!r}, {len(expected)} in {first!r}).",
                           cure="List the same classes, with the same ids and in the same order, for every split.")


def refuse_unfit_video(video: VideoRecord, classes: ClassTable) -> None:
    """Raise BadInput for a video without frames, and for names, ids and counts that cannot be stored or written."""
    if not video.frames:
        raise BadInput("empty-video", "it has no frames.",
                       cure="Copy its frames, or remove it from the list of the split.")
    _refuse_names(video)
    ids = [segment.id for segment in video.segments]
    if len(set(ids)) != len(ids) or min(ids, default=1) < 1:
        raise BadInput("bad-id", f"its segments have the ids {some(ids)}; ids must be above 0 and unique.",
                       cure=SAME_RUN)
    unknown = sorted({s.class_index for s in video.segments if not 0 <= s.class_index < len(classes)})
    if unknown:
        raise BadInput("unknown-category", f"its segments have the classes {some(unknown)}, but the table has "
                       f"{len(classes)} classes.", cure="Use the category file of this data set.")
    if len(video.segments) > HIGHEST_ID:
        raise BadInput("too-many-segments", f"it has {len(video.segments)} segments, but a 16 bit id map holds only "
                       f"{HIGHEST_ID}.", cure="Cut the video into shorter ones.")
    class_index, objects = max(Counter(s.class_index for s in video.segments).items(), key=lambda item: item[1],
                               default=(0, 0))
    if objects >= DIVISOR:
        raise BadInput("too-many-segments", f"it has {objects} objects of class {classes.classes[class_index].name!r}; "
                       f"a video holds at most {DIVISOR - 1} of a class.", cure="Cut the video into shorter ones.")


def _refuse_names(video: VideoRecord) -> None:
    names = [frame.name for frame in video.frames]
    for kind, name in (("video", video.video_id), *(("frame", name) for name in names)):
        if not can_name_a_file(name):
            raise BadInput("bad-name", f"the {kind} name {name[:60]!r}{'...' * (len(name) > 60)} cannot name a file of "
                           f"results: it needs 1 to {LONGEST_NAME} bytes of printable characters without '/'.",
                           cure=f"Rename the {kind}, in the annotations too.")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise BadInput("frame-mismatch", f"{len(twice)} frame names occur twice, such as {twice[0]!r}.",
                       cure="Give every frame a name of its own.")
