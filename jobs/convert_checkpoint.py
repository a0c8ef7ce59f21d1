"""Turn a released checkpoint (kMaX, MaXTron, Tube-Link, Mask2Former, VITA, ImageNet) into our models, and back.

In:     --source FILE (.pth, .pt, .pkl, .safetensors) and the recipe that describes the same network.
Out:    --output FOLDER, laid out like the recipe's own: stage_one/model, for checkpoints with a head stage_two/model,
        and conversion.json. That report is also printed: it gives the place of each of their weights, or the reason
        why it is not used, and the origin of each of ours. --set folder=FOLDER lets the recipe use the models;
        --set stage_one.start_from=FOLDER/stage_one/model starts training from them.
Back:   --back takes such a folder as --source and writes official names to --output FILE (.pth or .safetensors).
Again:  the same input writes the same weights; a model that was trained here is never overwritten.
Safety: nothing in the file is executed; a pickle that asks for more than weights is refused (exit code 3).
Cost:   seconds, and memory for twice the file.

    python -m jobs.convert_checkpoint --source maxtron_wc_r50.pth --recipe vipseg_video_kmax_r50_near_online \\
        --output models/maxtron_wc_r50
    python -m jobs.convert_checkpoint --source models/maxtron_wc_r50 --recipe vipseg_video_kmax_r50_near_online \\
        --output official.pth --back
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from jobs.config import to_json
from jobs.console import say
from jobs.ending import answered, end_process
from jobs.foreign_checkpoints import read_checkpoint
from jobs.models import head_card, load_weights, read_card, save_model, segmenter_card, without_download
from jobs.recipes.schema import Recipe
from jobs.verb import chosen_recipe, command_line, guarded, refuse_addresses, refuse_relative_paths
from model.converters.layouts import HEAD, Layout, read_layout, restore_layout, usual_layout
from model.converters.official import Conversion, has_head, has_semantic_head, to_ours, to_theirs
from model.labels import ClassTable
from pipeline.at_work import alone_in
from pipeline.datasets import OFFICIAL_CLASSES, open_dataset
from pipeline.errors import BadInput, Mismatch
from pipeline.file_names import at_home
from pipeline.files import atomic_write, sha256_of
from pipeline.shards import ShardSet

REPORT = "conversion.json"


def convert(recipe: Recipe, *, source: Path, output: Path) -> dict[str, Any]:
    """Official -> ours. Raises BadInput for the file, Mismatch where file and recipe describe different networks."""
    state = read_checkpoint(source)
    recipe = replace(recipe, folder=str(output.absolute()), stage_one_from="")
    refuse_to_overwrite(recipe)
    try:
        recipe, layout, conversion = match(recipe, state)
    except ValueError as error:
        raise Mismatch(f"{source} and the recipe {recipe.name}: {error}") from None
    weights = dict(conversion.weights)
    if conversion.from_scratch:
        fresh = fresh_weights(recipe, head=has_head(state), device="cpu")
        weights |= {name: fresh[name] for name in conversion.from_scratch}
    origin = {"file": source.name, "sha256": sha256_of(source), "layout": asdict(layout),
              "from_scratch": len(conversion.from_scratch), "unused": len(conversion.unused)}
    with alone_in(recipe.run_folder / "stage_one", "jobs.convert_checkpoint"):
        save(recipe, weights, origin)
        return report(recipe, conversion, origin)


def match(recipe: Recipe, state: Mapping[str, Tensor]) -> tuple[Recipe, Layout, Conversion]:
    """The recipe as the checkpoint fills it, the checkpoint's layout, and the place of every weight.

    Only shapes of `state` are read. Raises ValueError where checkpoint and recipe describe different networks.
    """
    layout = with_class_order(read_layout(state), recipe)
    recipe = fitted(recipe, state, layout)
    own = fresh_weights(recipe, head=has_head(state), device="meta")
    return recipe, layout, to_ours(state, layout=layout, own=own)


def convert_back(recipe: Recipe, *, source: Path, output: Path) -> dict[str, Any]:
    """Ours -> official. Raises FileNotFoundError without a finished model, Mismatch for weights they have no place for.

    A converted model gets the names that it came with, a model that was trained here the usual ones.
    """
    if output.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"--back writes .pth, .pt or .safetensors, got --output {output}")
    recipe = replace(recipe, folder=str(source.absolute()), stage_one_from="")
    card = read_card(recipe.segmenter_folder)
    weights = load_weights(recipe.segmenter_folder)
    if (recipe.head_folder / "model.json").is_file():
        weights |= {f"{HEAD}{name}": tensor for name, tensor in load_weights(recipe.head_folder).items()}
    layout = (restore_layout(card["converted"]["layout"]) if "converted" in card
              else with_class_order(usual_layout(weights, family=recipe.stage_one.segmenter.official_family,
                                                 image=card["clip_frames"] == 1), recipe))
    try:
        theirs = to_theirs(weights, layout=layout)
    except ValueError as error:
        raise Mismatch(f"{source} cannot be written in official names: {error}") from None
    theirs = {name: tensor.contiguous() for name, tensor in theirs.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".safetensors":
        atomic_write(output, safetensors_bytes(theirs))
    else:
        buffer = io.BytesIO()       # torch hides the reason why a file cannot be written
        torch.save({layout.container: theirs}, buffer)
        atomic_write(output, buffer.getbuffer())
    say(*theirs, f"{len(theirs)} weights under official names in {output}")
    return {"output": str(output), "weights": len(theirs), "layout": asdict(layout)}


def fitted(recipe: Recipe, state: Mapping[str, Tensor], layout: Layout) -> Recipe:
    """The recipe with the settings that the file decides: the form of its head, and whether it has a semantic head."""
    one = recipe.stage_one
    segmenter = without_download(one.segmenter)
    if segmenter.official_family == layout.family == "video_kmax" and not has_semantic_head(state):
        segmenter = replace(segmenter, semantic_head=None)      # only training reads it, and offline files lack it
    recipe = replace(recipe, stage_one=replace(one, segmenter=segmenter))
    if not has_head(state):
        return recipe
    if recipe.head is None:
        raise ValueError("the file holds a cross-clip head, and the recipe has none; choose the recipe of the row that "
                         "has one (its name ends in _offline)")
    if (two := recipe.stage_two) is None:       # the head trains in stage one, and its released weights are like ours
        return recipe
    return replace(recipe, stage_two=replace(two, head=two.head.as_released()))


def with_class_order(layout: Layout, recipe: Recipe) -> Layout:
    """The layout with the order of its class rows: panoptic models of Tube-Link number things before stuff."""
    segmenter = recipe.stage_one.segmenter
    if segmenter.official_family == layout.family == "mmdet":
        return replace(layout, classes=segmenter.things_first)
    return layout


def fresh_weights(recipe: Recipe, *, head: bool, device: str) -> dict[str, Tensor]:
    """Segmenter, and head behind `HEAD`, as the recipe's seed makes them; on "meta" they are names and shapes only."""
    torch.manual_seed(recipe.stage_one.fit.seed)
    with torch.device(device):
        weights = dict(recipe.stage_one.segmenter.build().state_dict())
        if head:
            weights |= {f"{HEAD}{name}": tensor
                        for name, tensor in recipe.head.build().state_dict().items()}
    return weights


def save(recipe: Recipe, weights: Mapping[str, Tensor], origin: Mapping[str, Any]) -> None:
    """Write segmenter and head where the recipe expects them."""
    head = {name.removeprefix(HEAD): tensor for name, tensor in weights.items() if name.startswith(HEAD)}
    segmenter = {name: tensor for name, tensor in weights.items() if not name.startswith(HEAD)}
    save_model(recipe.segmenter_folder, segmenter,
               {**segmenter_card(recipe, class_table(recipe), ""), "converted": origin})
    if head:
        card = head_card(recipe, read_card(recipe.segmenter_folder), "")
        save_model(recipe.head_folder, head, {**card, "converted": origin})


def class_table(recipe: Recipe) -> ClassTable:
    """The names of the classes: from the recipe's shards or data set, else those of the official data set.

    Where the official data set has another number of classes, the classes are numbered and a warning is printed.
    """
    classes = recipe.stage_one.segmenter.num_classes
    readers = (lambda: ShardSet(recipe.shards_of(recipe.train_split)).classes,
               lambda: open_dataset(replace(recipe.dataset, root=str(recipe.data_root))).classes)
    for read in readers:
        try:
            if len(table := read()) == classes:
                return table
        except (FileNotFoundError, BadInput):
            continue
    if len(table := OFFICIAL_CLASSES.get(recipe.dataset.name, ())) == classes:
        say(f"no shards and no data set at {recipe.data_root}: the classes are the official ones of {table.name}")
        return table
    say(f"warning: no shards and no data set with {classes} classes at {recipe.data_root}, so classes have no names "
        "and all count as things. That is enough to start training from; to score or predict, --set dataset.root and "
        "convert again.")
    return ClassTable.numbered(classes)


def refuse_to_overwrite(recipe: Recipe) -> None:
    """Raise ValueError when the output folder holds models that were trained."""
    for folder in (recipe.segmenter_folder, recipe.head_folder):
        if (folder / "model.json").is_file() and "converted" not in read_card(folder):
            raise ValueError(f"{folder} holds a model that was trained here; choose another --output")


def report(recipe: Recipe, conversion: Conversion, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Print and keep the place of every weight; returns the summary."""
    lists = {"names": conversion.names, "unused": conversion.unused, "from_scratch": conversion.from_scratch}
    folder = recipe.run_folder
    atomic_write(folder / REPORT, json.dumps({**origin, **lists, "segmenter": to_json(recipe.stage_one.segmenter)},
                                             indent=1).encode())
    say(*(f"{theirs} -> {ours}" for theirs, ours in conversion.names.items()),
        *(f"{theirs} not used: {reason}" for theirs, reason in conversion.unused.items()),
        *(f"{ours} from scratch: {reason}" for ours, reason in conversion.from_scratch.items()),
        f"{len(conversion.names)} weights taken, {len(conversion.unused)} not used, {len(conversion.from_scratch)} "
        f"from scratch; this list is {folder / REPORT}")
    head = recipe.head_folder if any(name.startswith(HEAD) for name in conversion.weights) else None
    mode = "offline" if head else "near_online"
    must_learn = any(not name.endswith(".num_batches_tracked") for name in conversion.from_scratch)
    starts = {"stage_one.start_from": recipe.segmenter_folder}
    if head and recipe.stage_two is None:
        starts["stage_one.joint.start_from"] = head
    settings = " ".join(f"--set {setting}={folder}" for setting, folder in starts.items())
    say(f"next: python -m jobs.train_stage_one --recipe {recipe.file or recipe.name} {settings}" if must_learn else
        command_line(recipe, "evaluate", f"evaluation.mode={mode}"))
    return {"segmenter": str(recipe.segmenter_folder), "head": str(head) if head else None, "report":
            str(folder / REPORT), "taken": len(conversion.names), "unused": len(conversion.unused),
            "from_scratch": len(conversion.from_scratch)}


def command(source: Path, recipe: str, output: Path, back: bool = False,
            set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()) -> int:
    """Convert a checkpoint.

    Args:
        source: the foreign file; with --back the folder of our models.
        recipe: name of the recipe that describes the network, or a .toml file that changes one; an unknown name
                lists all of them.
        output: the folder of our models; with --back the foreign file.
        back: from ours to official names.
        set: path.to.field=value, may be given several times.
    """
    def convert_checkpoint(recipe: Recipe) -> dict[str, Any]:
        flags = {"--source": (source,), "--output": (output,)}
        refuse_addresses(flags)
        refuse_relative_paths(flags)
        return (convert_back if back else convert)(recipe, source=at_home(source), output=at_home(output))

    return guarded(convert_checkpoint, lambda: chosen_recipe(recipe, set))


if __name__ == "__main__":
    end_process(answered(lambda: tyro.cli(command, description=__doc__, prog="python -m jobs.convert_checkpoint")))
