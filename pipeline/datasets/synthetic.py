"""The synthetic world: moving textured things over moving stuff, written in the layout of any supported data set.

It is read by the same readers as a user's data. A video depends only on the configuration, its split and its index, so
the same seed gives the same bytes, and a larger number of videos only adds to the set.
"""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np

from model.labels import ClassInfo, ClassTable
from pipeline.datasets.id_maps import IdGenerator, rgb_of_ids
from pipeline.datasets.synthetic_coco import write_coco_split
from pipeline.datasets.synthetic_drawing import draw
from pipeline.datasets.synthetic_identity import FEWEST_FRAMES
from pipeline.datasets.synthetic_maps import write_kitti_step_split, write_vspw_split
from pipeline.datasets.synthetic_scene import Scene, make_scene
from pipeline.datasets.synthetic_things import COLORS, STUFF, THINGS
from pipeline.file_names import at_home
from pipeline.files import naming, partial_path, publish, remove_folder, sweep_partials
from pipeline.foreign_files import own_json
from pipeline.images import encode_jpeg, encode_png
from pipeline.store import in_store

WORLD = "world.json"      # holds the configuration; written last
Preset = Literal["easy", "hard", "long", "reappear", "cross", "camera", "crowd", "many", "mixed"]
WorldLayout = Literal["vipseg", "youtube_vis", "ovis", "vspw", "kitti_step", "coco"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticConfig:
    """Contents of the world."""

    videos_train: int = 400
    videos_val: int = 24
    frames: int = 12
    height: int = 96             # pixels; sizes and speeds of things scale with the shorter side
    width: int = 96
    seed: int = 0
    preset: Preset = "easy"      # the others make it hard to keep who is who; synthetic_identity.py describes them
    layout: WorldLayout = "vipseg"
    things: int = 3              # number of classes, taken in order from disc, square, triangle, cross
    stuff: int = 3               # number of classes, taken in order from sky, water, ground, wall
    camera: float = 0.02         # largest drift of the camera, as a fraction of the shorter side
    light: float = 0.1           # largest change of brightness, as a fraction
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        limits = {"videos_train": (0, 10**6), "videos_val": (0, 10**6), "frames": (1, 1000), "height": (32, 4096),
                  "width": (32, 4096), "seed": (0, 2**32), "things": (1, len(THINGS)), "stuff": (1, len(STUFF)),
                  "camera": (0, 0.2), "light": (0, 0.5), "jpeg_quality": (1, 100)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"synthetic world: {name}={getattr(self, name)} must lie between {low} and {high}")
        for name, allowed in (("preset", get_args(Preset)), ("layout", get_args(WorldLayout))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"synthetic world: {name}={getattr(self, name)!r} must be one of {allowed}")
        if self.frames < (fewest := FEWEST_FRAMES.get(self.preset, 1)):
            raise ValueError(f"synthetic world: preset {self.preset!r} shows things, hides them for longer than a clip "
                             f"and shows them again; {self.frames} frames are too few for that. Set frames to at least "
                             f"{fewest}, or preset to 'easy'")


def world_classes(config: SyntheticConfig) -> ClassTable:
    """The classes of a world. Stuff is first, since VIPSeg's raw coding has no thing below class 2; ids have gaps."""
    names = STUFF[:config.stuff] + THINGS[:config.things]
    id_of = {name: id for id, name in enumerate(STUFF + THINGS)}
    return ClassTable("synthetic", tuple(ClassInfo(id_of[name], name, name in THINGS, COLORS[name])
                                         for name in names))


def write_world(root: str | Path, config: SyntheticConfig) -> Path:
    """Write the data set into the folder `root`, unless it is there already. Returns the folder.

    The folder gets its name only when it is complete. Raises `ValueError` when it exists and holds anything but this
    world.
    """
    root = at_home(root)
    if _is_there(root, config):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(root)
    sweep_partials(root.parent, f"{glob.escape(root.name[:50])}.*.partial")     # of processes that were killed
    partial.mkdir()
    try:
        write = {"vipseg": _write_vipseg, "youtube_vis": _write_youtube_vis, "ovis": _write_youtube_vis,
                 "vspw": _write_maps, "kitti_step": _write_maps, "coco": _write_coco}[config.layout]
        with naming(root):
            write(partial, config)
            (partial / WORLD).write_text(json.dumps(asdict(config), indent=1) + "\n")
        try:
            if in_store(root):
                remove_folder(root)
            publish(partial, root)
        except OSError:    # another process was faster, which is fine if it wrote the same world
            if not _is_there(root, config):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _is_there(root: Path, config: SyntheticConfig) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / WORLD).is_file():
        if in_store(root):
            return False        # a killed upload left it
        raise ValueError(f"{root} is not empty and holds no {WORLD}, so it is not a synthetic world. Choose another "
                         f"folder, or empty this one.")
    existing = own_json(root / WORLD, cure="Delete the folder, which is then drawn again, or choose another one.")
    wanted = asdict(config)
    if existing != wanted:
        names = [name for name in {**existing, **wanted} if existing.get(name) != wanted.get(name)]
        raise ValueError(f"{root} holds another synthetic world: "
                         f"{', '.join(f'{n} is {existing.get(n)!r}, wanted {wanted.get(n)!r}' for n in names)}. "
                         f"Delete the folder, or choose another one.")
    return True


def _scenes(config: SyntheticConfig, split: str, count: int) -> Iterator[tuple[str, Scene, np.random.Generator]]:
    for index in range(count):
        key = [config.seed, int(split != "train"), index]
        yield f"{split}_{index:05d}", make_scene(config, np.random.default_rng(key)), np.random.default_rng([*key, 1])


def _frame_name(time: int) -> str:
    return f"{3 * time + 12:08d}"    # as in VIPSeg: every third frame of the source, and the first is not 0


def _write_vipseg(root: Path, config: SyntheticConfig) -> None:
    """images/, panomasksRGB/, panomasks/, the category file, the split lists and the json files."""
    classes = world_classes(config)
    categories = [{"id": c.dataset_id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
                  for c in classes.classes]
    (root / "panoVIPSeg_categories.json").write_text(json.dumps(categories))
    whole = {"videos": [], "annotations": [], "categories": categories}
    for split, count in (("train", config.videos_train), ("val", config.videos_val)):
        part = {"videos": [], "annotations": [], "categories": categories}
        for name, scene, rng in _scenes(config, split, count):
            video, annotation = _write_vipseg_video(root, name, scene, config, classes, rng)
            part["videos"].append(video)
            part["annotations"].append(annotation)
        (root / f"{split}.txt").write_text("".join(f"{video['video_id']}\n" for video in part["videos"]))
        (root / f"panoptic_gt_VIPSeg_{split}.json").write_text(json.dumps(part))
        whole["videos"] += part["videos"]
        whole["annotations"] += part["annotations"]
    (root / "panoptic_gt_VIPSeg.json").write_text(json.dumps(whole))


def _write_vipseg_video(root: Path, name: str, scene: Scene, config: SyntheticConfig, classes: ClassTable,
                        rng: np.random.Generator) -> tuple[dict, dict]:
    """Write one video. Returns its entries for `videos` and `annotations` of the json."""
    folders = [root / kind / name for kind in ("images", "panomasksRGB", "panomasks")]
    for folder in folders:
        folder.mkdir(parents=True)
    index_of = {info.name: index for index, info in enumerate(classes.classes)}
    kinds = [*STUFF, *(thing.kind for thing in scene.things)]      # by value of the drawn label
    generator = IdGenerator(classes, rng)
    ids = np.zeros(len(kinds), int)
    raw = np.zeros(len(kinds), np.uint16)
    images = []
    annotations = []
    for time, (image, label) in enumerate(draw(scene)):
        frame = _frame_name(time)
        areas = np.bincount(label.ravel(), minlength=len(kinds))
        for value in np.flatnonzero((areas > 0) & (ids == 0)):     # visible for the first time
            info = classes.classes[index_of[kinds[value]]]
            ids[value] = generator.new_id(index_of[kinds[value]])
            raw[value] = info.dataset_id + 1
            if info.is_thing:
                raw[value] = 100 * raw[value] + kinds[len(STUFF):value].count(info.name)
        (folders[0] / f"{frame}.jpg").write_bytes(encode_jpeg(image, quality=config.jpeg_quality))
        (folders[1] / f"{frame}.png").write_bytes(encode_png(rgb_of_ids(ids)[label]))
        (folders[2] / f"{frame}.png").write_bytes(encode_png(raw[label]))
        images.append({"id": frame, "width": config.width, "height": config.height, "file_name": f"{frame}.png"})
        annotations.append({"image_id": frame, "file_name": f"{frame}.png", "segments_info": [
            {"id": int(ids[value]), "category_id": classes.classes[index_of[kinds[value]]].dataset_id, "iscrowd": 0,
             "area": int(areas[value])} for value in np.flatnonzero(areas)]})
    return {"video_id": name, "images": images}, {"video_id": name, "annotations": annotations}


def _write_youtube_vis(root: Path, config: SyntheticConfig) -> None:
    """<split>/JPEGImages/ and <split>.json. Only things are annotated, each by a mask of its visible part.

    OVIS has <split>/ and annotations/<split>.json; its masks are a pixel too wide, so that touching things overlap.
    """
    names = THINGS[:config.things]
    is_ovis = config.layout == "ovis"
    categories = [{"id": id, "name": name, "supercategory": "object"} for id, name in enumerate(names, 1)]
    for split, count in (("train", config.videos_train), ("valid", config.videos_val)):
        content = {"videos": [], "categories": categories, "annotations": []}
        images, annotations = (root / split, root / "annotations") if is_ovis else (root / split / "JPEGImages", root)
        for folder in (images, annotations):
            folder.mkdir(parents=True, exist_ok=True)
        for id, (name, scene, _) in enumerate(_scenes(config, split, count), 1):
            visible = _write_youtube_vis_video(images / name, scene, config, outline=int(is_ovis))
            size = {"height": config.height, "width": config.width, "length": config.frames}
            content["videos"].append({"id": id, **size, "file_names": [
                f"{name}/{_frame_name(time)}.jpg" for time in range(config.frames)]})
            for thing, masks in zip(scene.things, visible):
                if any(masks):
                    content["annotations"].append({
                        "id": len(content["annotations"]) + 1, "video_id": id, "iscrowd": 0, **size,
                        "category_id": names.index(thing.kind) + 1, "segmentations": masks})
        (annotations / f"{split}.json").write_text(json.dumps(content))


def _write_youtube_vis_video(folder: Path, scene: Scene, config: SyntheticConfig, *,
                             outline: int) -> list[list[dict | None]]:
    """Write the frames. Returns uncompressed run lengths for each thing and frame, None where the thing is not visible.

    outline: pixels by which masks extend beyond the visible part.
    """
    folder.mkdir()
    masks: list[list[dict | None]] = [[] for _ in scene.things]
    for time, (image, label) in enumerate(draw(scene)):
        (folder / f"{_frame_name(time)}.jpg").write_bytes(encode_jpeg(image, quality=config.jpeg_quality))
        for index, masks_of_thing in enumerate(masks):
            mask = cv2.dilate((label == len(STUFF) + index).view(np.uint8), None, iterations=outline)
            masks_of_thing.append({"size": list(mask.shape), "counts": uncompressed_run_lengths(mask)} if mask.any()
                                  else None)
    return masks


def _write_maps(root: Path, config: SyntheticConfig) -> None:
    classes = world_classes(config)
    for split, count in (("train", config.videos_train), ("val", config.videos_val)):
        scenes = _scenes(config, split, count)
        if config.layout == "vspw":
            write_vspw_split(root, split, scenes, classes=classes, quality=config.jpeg_quality)
        else:
            write_kitti_step_split(root, split, scenes, classes=classes)


def _write_coco(root: Path, config: SyntheticConfig) -> None:
    """Stills whose height and width are drawn between three quarters of the configured ones and the whole."""
    def stills(split: str, count: int) -> Iterator[tuple[str, Scene, np.random.Generator]]:
        for index in range(count):
            key = [config.seed, int(split != "train"), index]
            rng = np.random.default_rng([*key, 1])
            height, width = (int(rng.integers(max(32, 3 * side // 4), side + 1))
                             for side in (config.height, config.width))
            still = replace(config, height=height, width=width)
            yield f"{split}_{index:05d}", make_scene(still, np.random.default_rng(key)), rng

    for split, count in (("train", config.videos_train), ("val", config.videos_val)):
        write_coco_split(root, split, stills(split, count), classes=world_classes(config),
                         quality=config.jpeg_quality)


def uncompressed_run_lengths(mask: np.ndarray) -> list[int]:
    """H W bool -> COCO's uncompressed run lengths, column by column, background first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(changes, prepend=0, append=mask.size).tolist()
