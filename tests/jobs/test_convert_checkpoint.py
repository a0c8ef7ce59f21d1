"""The verb, on a small network that has every part of the official one: official -> ours -> official."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jobs import convert_checkpoint, train_stage_one
from jobs.config import override, to_json
from jobs.foreign_checkpoints import read_checkpoint
from jobs.models import load_head, load_segmenter, read_card, save_model
from jobs.recipes import RECIPES, find_recipe
from jobs.recipes.schema import JointConfig, Recipe
from jobs.start_weights import fill, refuse_unfit_starts
from model.association.tube_linking import TubeLinkingConfig
from model.backbone import BackboneConfig
from model.converters.layouts import HEAD, Detectron2Layout, KMaxLayout, Layout, MmdetLayout
from model.converters.official import to_theirs
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.cross_clip.vita import VitaHeadConfig
from model.inference import InferenceConfig
from model.losses.cross_clip import MaskCrossClipLossConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.vita import VitaLossConfig
from pipeline.datasets import OFFICIAL_CLASSES
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from tests.model.converters.model_zoos import CLIP_LEVELS, ZOO
from tests.tiny_models import TINY_DEFORMABLE_TRAJECTORIES, tiny_mask2former, tiny_tube_link

CHANGES = ("stage_one.segmenter.backbone.name=test_convnext",      # names as the official ConvNeXt has them
           'stage_one.segmenter.semantic_head={"width": 32, "fine_widths": [16, 16], "rates": [1, 2]}')
RECIPE = override(find_recipe("tiny"), CHANGES)
TRACKS = InferenceConfig(results=("tracks",))
LAYOUT = KMaxLayout(backbone="convnext")
TUBE_LINK = tiny_tube_link(stuff_classes=(0, 3), within_clip=TINY_DEFORMABLE_TRAJECTORIES,
                           linking=TubeLinkingConfig(dim=64, heads=4))
TUBE_LINK_HEAD = TubeLinkHeadConfig(num_classes=6, dim=64, embedding=64, layers=1)


def official(*, head: bool, semantic_head: bool = True, layout: Layout = LAYOUT) -> dict[str, Tensor]:
    """What the official code would have saved of the recipe's network, with random values in every weight."""
    weights = RECIPE.stage_one.segmenter.build().state_dict()
    if head:
        head_weights = replace(RECIPE.stage_two.head, start="official").build().state_dict()
        weights |= {f"{HEAD}{name}": tensor for name, tensor in head_weights.items()}
    weights = {name: torch.rand_like(tensor) + 0.1 if tensor.is_floating_point() else torch.tensor(11)
               for name, tensor in weights.items() if semantic_head or not name.startswith("semantic_head.")}
    return to_theirs(weights, layout=layout)


def run(source, output, *changes: str, back: bool = False, recipe: str = "tiny") -> int:
    return convert_checkpoint.command(source, recipe, output, back=back, set=(*CHANGES, *changes))


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_offline_checkpoint_becomes_segmenter_and_head_and_comes_back(tmp_path, suffix, capsys):
    state = official(head=True, semantic_head=False)
    torch.save({"model": state, "iteration": 5}, tmp_path / "official.pth")
    assert run(tmp_path / "official.pth", tmp_path / "run") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["taken"], summary["unused"], summary["from_scratch"]) == (len(state), 0, 0)
    segmenter, card = load_segmenter(tmp_path / "run" / "stage_one" / "model")
    head, head_card = load_head(tmp_path / "run" / "stage_two" / "model", segmenter_card=card)
    assert card["converted"]["sha256"] == head_card["converted"]["sha256"]
    assert segmenter.semantic_head is None      # nothing random is kept as if it were official
    assert head.config.start == "official"
    with torch.inference_mode():
        assert segmenter(torch.zeros(1, 2, 3, 33, 33)).mask_logits.shape == (1, 16, 2, 9, 9)
    assert run(tmp_path / "run", tmp_path / f"back{suffix}", back=True) == 0
    assert_same(read_checkpoint(tmp_path / f"back{suffix}"), state)


def test_an_offline_tube_link_checkpoint_becomes_segmenter_and_head_and_comes_back(tmp_path):
    segmenter = TUBE_LINK.build()
    head = replace(TUBE_LINK_HEAD, start="official").build()
    head.initialise_from(segmenter.state_dict())
    weights = segmenter.state_dict() | {f"{HEAD}{name}": tensor for name, tensor in head.state_dict().items()}
    state = to_theirs(weights, layout=MmdetLayout(backbone="timm", classes=TUBE_LINK.things_first))
    torch.save({"state_dict": state, "meta": {"epoch": 5}, "optimizer": {}}, tmp_path / "official.pth")
    losses = Mask2FormerLossConfig(stuff_classes=TUBE_LINK.stuff_classes)
    one = replace(RECIPE.stage_one, segmenter=TUBE_LINK, losses=losses)
    two = replace(RECIPE.stage_two, head=TUBE_LINK_HEAD, losses=MaskCrossClipLossConfig())
    recipe = replace(RECIPE, stage_one=one, stage_two=two, inference=TRACKS)
    summary = convert_checkpoint.convert(recipe, source=tmp_path / "official.pth", output=tmp_path / "run")
    assert (summary["taken"], summary["unused"], summary["from_scratch"]) == (len(state), 0, 0)
    loaded, card = load_segmenter(tmp_path / "run" / "stage_one" / "model")
    assert_same(loaded.state_dict(), segmenter.state_dict())
    loaded, _ = load_head(tmp_path / "run" / "stage_two" / "model", segmenter_card=card)
    assert_same(loaded.state_dict(), head.state_dict())
    convert_checkpoint.convert_back(recipe, source=tmp_path / "run", output=tmp_path / "back.pth")
    assert torch.load(tmp_path / "back.pth", weights_only=True).keys() == {"state_dict"}
    assert_same(read_checkpoint(tmp_path / "back.pth"), state)


def test_a_vita_checkpoint_becomes_frame_detector_and_head_and_comes_back(tmp_path):
    detector = tiny_mask2former(backbone=BackboneConfig(name="resnet18"))
    vita = VitaHeadConfig(num_classes=6, dim=64, pixel_dim=64, embedding=32, frame_queries=16, num_queries=5, heads=4,
                          ffn=48, encoder_layers=2, decoder_layers=2)
    one = replace(RECIPE.stage_one, segmenter=detector, losses=Mask2FormerLossConfig(),
                  input=replace(RECIPE.stage_one.input, clip_frames=1))
    recipe = replace(RECIPE, stage_one=one, inference=TRACKS,
                     stage_two=replace(RECIPE.stage_two, head=vita, losses=VitaLossConfig()))
    segmenter = detector.build()
    head = vita.build()
    weights = segmenter.state_dict() | {f"{HEAD}{name}": tensor for name, tensor in head.state_dict().items()}
    state = to_theirs(weights, layout=Detectron2Layout(backbone="detectron2_resnet"))
    constants = {f"{criterion}.empty_weight": torch.ones(7) for criterion in ("criterion", "vita_criterion")}
    torch.save({"model": state | constants, "iteration": 5}, tmp_path / "official.pth")
    summary = convert_checkpoint.convert(recipe, source=tmp_path / "official.pth", output=tmp_path / "run")
    counters = sum(name.endswith("num_batches_tracked") for name in weights)     # frozen norms of theirs have none
    assert (summary["taken"], summary["unused"], summary["from_scratch"]) == (len(state), 2, counters)
    loaded, card = load_segmenter(tmp_path / "run" / "stage_one" / "model")
    assert_same(loaded.state_dict(), segmenter.state_dict())
    loaded, _ = load_head(tmp_path / "run" / "stage_two" / "model", segmenter_card=card)
    assert_same(loaded.state_dict(), head.state_dict())
    convert_checkpoint.convert_back(recipe, source=tmp_path / "run", output=tmp_path / "back.pth")
    assert_same(read_checkpoint(tmp_path / "back.pth"), state)


def msda_checkpoint(path) -> dict[str, Tensor]:
    """A small COCO model with deformable attention as MaXTron's starts: one frame, and the clip-level embedding."""
    one = RECIPE.stage_one
    segmenter = replace(one.segmenter, num_classes=9, within_clip=replace(one.segmenter.within_clip, attention=None))
    state = to_theirs(segmenter.build().state_dict(), layout=replace(LAYOUT, predictor="_predcitor"))
    state[CLIP_LEVELS] = torch.randn(2, 64)
    torch.save({"model": state, "iteration": 5}, path)
    return state


def test_a_near_online_run_starts_from_the_coco_model_with_deformable_attention(tmp_path):
    """The start of every official run on VIPSeg, converted by the recipe of the COCO model."""
    state = msda_checkpoint(tmp_path / "official.pth")
    one = RECIPE.stage_one
    two = RECIPE.stage_two
    segmenter = replace(one.segmenter, num_classes=9, within_clip=replace(one.segmenter.within_clip, attention=None))
    coco = replace(RECIPE, stage_one=replace(one, segmenter=segmenter, input=replace(one.input, clip_frames=1)),
                   stage_two=replace(two, head=replace(two.head, num_classes=9)))
    summary = convert_checkpoint.convert(coco, source=tmp_path / "official.pth", output=tmp_path / "coco")
    assert (summary["taken"], summary["unused"], summary["from_scratch"]) == (len(state) - 1, 1, 0)
    report = json.loads((tmp_path / "coco" / "conversion.json").read_text())
    assert report["unused"] == {CLIP_LEVELS: "no attention in time in the checkpoint, so nothing reads it"}

    model = one.segmenter.build()
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = tmp_path / "coco" / "stage_one" / "model"
    fill(model, replace(RECIPE, stage_one=replace(one, start_from=str(folder))), "stage_one.start_from")
    converted, _ = load_segmenter(folder)
    theirs = converted.state_dict()
    new = [name for name, tensor in model.state_dict().items()
           if not (name in theirs and theirs[name].shape == tensor.shape and theirs[name].equal(tensor))]
    assert any(name.startswith("within_clip.trajectory_stacks.") for name in new)
    assert all(name.startswith(("within_clip.trajectory_stacks.", "within_clip.clip_level_embedding"))
               or re.search(r"class_head|classify", name) for name in new)
    assert all(model.state_dict()[name].equal(fresh[name]) for name in new)


def test_the_recipe_of_the_near_online_model_converts_its_start_too(tmp_path):
    msda_checkpoint(tmp_path / "official.pth")
    assert run(tmp_path / "official.pth", tmp_path / "run") == 0
    report = json.loads((tmp_path / "run" / "conversion.json").read_text())
    assert report["unused"][CLIP_LEVELS] == "no attention in time in the checkpoint, so nothing reads it"
    assert report["from_scratch"]["within_clip.clip_level_embedding"] == "no attention in time in the checkpoint"


def starts_from(recipe: Recipe) -> str:
    """The name of the recipe whose model starts this one; empty where none does."""
    return recipe.stage_one.start_from.removeprefix("runs/").removesuffix("/stage_one/model")


@pytest.mark.parametrize("name", [name for name in RECIPES
                                  if re.match("coco_kmax_msda|vipseg_.*(near_on|off)line", name)])
def test_the_official_coco_model_converts_for_its_recipe_and_for_those_that_start_from_it(name):
    recipe = find_recipe(name)
    _, _, conversion = convert_checkpoint.match(recipe, ZOO[starts_from(recipe) or name]())
    assert conversion.unused.pop(CLIP_LEVELS)
    assert set(conversion.unused.values()) == ({"134 class rows, the recipe's model has 125"} if starts_from(recipe)
                                               else set())
    assert all(new.startswith(("within_clip.trajectory_stacks.", "within_clip.clip_level_embedding"))
               or re.search(r"class_head|classify", new) for new in conversion.from_scratch)


@pytest.mark.parametrize(("name", "start"), [
    ("coco_mask2former_instance_r50", "mmdet2_instance"), ("coco_mask2former_instance_r50", "mmdet3_instance"),
    ("coco_mask2former_panoptic_r50", "mmdet3_panoptic"), ("coco_mask2former_instance_r50", "detectron2_instance"),
    ("youtube_vis_2021_tube_link_r50", "mmdet2_instance"), ("vipseg_tube_link_r50", "mmdet2_panoptic"),
    ("youtube_vis_2021_vita_r50", "detectron2_instance"), ("youtube_vis_2021_vita_r50", "coco_vita")])
def test_official_starts_of_mask2former_s_family_convert_for_the_recipes_they_start(name, start):
    _, _, conversion = convert_checkpoint.match(find_recipe(name), ZOO[start]())
    for reason in conversion.unused.values():
        assert re.fullmatch(r"a constant that every run rebuilds|\d+ (class rows|queries), the recipe's model has \d+",
                            reason)
    for new in conversion.from_scratch:
        assert re.search(r"class_head|initial_queries|query_positions|^linking\.|num_batches_tracked$", new)


def test_a_joint_run_starts_detector_and_head_from_vita_s_own_pre_training(tmp_path):
    detector = tiny_mask2former(9, backbone=BackboneConfig(name="resnet18"))
    vita = VitaHeadConfig(num_classes=9, dim=64, pixel_dim=64, embedding=32, frame_queries=16, num_queries=5, heads=4,
                          ffn=48, encoder_layers=2, decoder_layers=2)
    one = replace(RECIPE.stage_one, segmenter=detector, losses=Mask2FormerLossConfig(),
                  joint=JointConfig(head=vita, layers=2))
    coco = replace(RECIPE, stage_one=one, stage_two=None, inference=TRACKS)
    weights = detector.build().state_dict()
    weights |= {f"{HEAD}{name}": tensor for name, tensor in vita.build().state_dict().items()}
    torch.save({"model": to_theirs(weights, layout=Detectron2Layout(backbone="detectron2_resnet"))},
               tmp_path / "official.pth")
    convert_checkpoint.convert(coco, source=tmp_path / "official.pth", output=tmp_path / "coco")
    starts = {part: str(tmp_path / "coco" / part / "model") for part in ("stage_one", "stage_two")}
    fewer = JointConfig(head=replace(vita, num_classes=6), layers=2, start_from=starts["stage_two"])
    videos = replace(coco, stage_one=replace(one, segmenter=replace(detector, num_classes=6), joint=fewer,
                                             start_from=starts["stage_one"]))
    refuse_unfit_starts(videos, "stage_one")
    model = train_stage_one.build_model(videos)
    for part, prefix in ((model.segmenter, ""), (model.head, HEAD)):
        new = [name for name, tensor in part.state_dict().items() if not torch.equal(tensor, weights[prefix + name])]
        assert new
        assert all("class_head" in name for name in new)


def test_every_name_is_printed_and_kept(tmp_path, capsys):
    state = official(head=False) | {"criterion.empty_weight": torch.ones(7)}
    torch.save(state, tmp_path / "official.pth")
    assert run(tmp_path / "official.pth", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "conversion.json").read_text())
    assert report["names"].keys() | report["unused"].keys() == state.keys()
    assert not report["from_scratch"]
    assert all(f"{theirs} -> {ours}\n" in printed for theirs, ours in report["names"].items())
    assert "criterion.empty_weight not used: a constant that every run rebuilds\n" in printed
    assert "jobs.evaluate --recipe tiny" in printed
    assert not (tmp_path / "run" / "stage_two").exists()


def test_misspelling_and_ddp_prefix_are_remembered_for_the_way_back(tmp_path):
    state = official(head=False, layout=replace(LAYOUT, predictor="_predcitor", prefix="module."))
    assert all(name.startswith("module.") for name in state)
    torch.save(state, tmp_path / "official.pth")
    assert run(tmp_path / "official.pth", tmp_path / "run") == 0
    assert run(tmp_path / "run", tmp_path / "back.pth", back=True) == 0
    assert_same(read_checkpoint(tmp_path / "back.pth"), state)


def test_class_rows_of_other_classes_start_from_the_recipe_s_seed(tmp_path, capsys):
    torch.save({"model": official(head=False)}, tmp_path / "official.pth")
    # one field at a time would leave the recipe with two numbers of classes
    recipe = replace(RECIPE, stage_one=replace(RECIPE.stage_one, segmenter=replace(RECIPE.stage_one.segmenter,
                                                                                   num_classes=4)),
                     stage_two=replace(RECIPE.stage_two, head=replace(RECIPE.stage_two.head, num_classes=4)))
    summary = convert_checkpoint.convert(recipe, source=tmp_path / "official.pth", output=tmp_path / "run")
    assert summary["unused"] == summary["from_scratch"] == 2 * (4 + 1 + 1)      # layers, final, semantic head
    assert "7 class rows, the recipe's model has 5" in capsys.readouterr().out
    segmenter, _ = load_segmenter(tmp_path / "run" / "stage_one" / "model")
    torch.manual_seed(recipe.stage_one.fit.seed)
    fresh = recipe.stage_one.segmenter.build()
    assert torch.equal(segmenter.query_decoder.predictor.class_head.conv.weight,
                       fresh.query_decoder.predictor.class_head.conv.weight)
    assert not torch.equal(segmenter.query_decoder.initial_queries, fresh.query_decoder.initial_queries)


def test_imagenet_weights_in_a_detectron2_pickle_fill_the_backbone(tmp_path, capsys):
    prefix = "backbone."
    backbone = {name.removeprefix(prefix): tensor for name, tensor in official(head=False).items()
                if name.startswith(prefix)}
    arrays = {name: tensor.numpy() for name, tensor in (backbone | {"head.weight": torch.ones(10, 64)}).items()}
    content = {"model": arrays, "__author__": "third_party", "matching_heuristics": True}
    (tmp_path / "imagenet.pkl").write_bytes(pickle.dumps(content))
    assert run(tmp_path / "imagenet.pkl", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "head.weight not used: the classifier of the pre-training" in printed
    assert f"stage_one.start_from={tmp_path / 'run' / 'stage_one' / 'model'}" in printed
    segmenter, _ = load_segmenter(tmp_path / "run" / "stage_one" / "model")
    assert torch.equal(segmenter.backbone.network.stem_0.weight, backbone["downsample_layers.0.0.weight"])
    assert run(tmp_path / "run", tmp_path / "back.pth", back=True) == 0
    assert_same(read_checkpoint(tmp_path / "back.pth"), backbone)


def test_timm_s_own_file_fills_its_backbone(tmp_path):
    import timm
    network = timm.create_model("test_resnet")
    torch.save(network.state_dict(), tmp_path / "timm.pth")
    summary = convert_checkpoint.convert(find_recipe("tiny"), source=tmp_path / "timm.pth", output=tmp_path / "run")
    segmenter, _ = load_segmenter(tmp_path / "run" / "stage_one" / "model")
    own = segmenter.backbone.network.state_dict()
    assert summary["taken"] == len(own)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in own.items())


def test_a_model_trained_here_gets_official_names(tmp_path):
    folder = tmp_path / "run" / "stage_one" / "model"
    weights = RECIPE.stage_one.segmenter.build().state_dict()
    card = {"kind": "segmenter", "config": to_json(RECIPE.stage_one.segmenter), "clip_frames": 2}
    save_model(folder, weights, card)
    assert run(tmp_path / "run", tmp_path / "back.pth", back=True) == 0
    assert read_checkpoint(tmp_path / "back.pth").keys() == official(head=False).keys()
    torch.save({"model": official(head=False)}, tmp_path / "official.pth")
    assert run(tmp_path / "official.pth", tmp_path / "run") == 2       # and is not overwritten
    assert "converted" not in read_card(folder)
    save_model(folder, weights, {**card, "clip_frames": 1})             # an image model, as kMaX-DeepLab spells it
    assert run(tmp_path / "run", tmp_path / "image.pth", back=True) == 0
    assert any("._predcitor." in name for name in read_checkpoint(tmp_path / "image.pth"))


def test_converting_again_writes_the_same_weights(tmp_path):
    torch.save({"model": official(head=True)}, tmp_path / "official.pth")
    digests = []
    for _ in range(2):
        assert run(tmp_path / "official.pth", tmp_path / "run", "stage_one.segmenter.num_classes=6") == 0
        digests.append(read_card(tmp_path / "run" / "stage_two" / "model")["weights_sha256"])
    assert digests[0] == digests[1]


def test_class_names_come_from_the_data_set_where_it_is_there(tmp_path, capsys):
    torch.save({"model": official(head=False)}, tmp_path / "official.pth")
    assert run(tmp_path / "official.pth", tmp_path / "run") == 0
    assert "classes have no names" in capsys.readouterr().out
    write_world(tmp_path / "run" / "world", SyntheticConfig(videos_train=1, videos_val=1, frames=2, height=32,
                                                             width=32))
    assert run(tmp_path / "official.pth", tmp_path / "run") == 0
    assert "classes have no names" not in capsys.readouterr().out
    names = [row["name"] for row in read_card(tmp_path / "run" / "stage_one" / "model")["classes"]["classes"]]
    assert len(set(names)) == 6
    assert "class 0" not in names


@pytest.mark.parametrize(("dataset", "classes", "official"), [
    ("vipseg", 124, True), ("youtube_vis_2021", 40, True), ("vipseg", 6, False), ("youtube_vis", 40, False)])
def test_without_any_data_the_classes_are_the_official_ones_where_their_number_fits(tmp_path, dataset, classes,
                                                                                    official, capsys):
    one = RECIPE.stage_one
    two = RECIPE.stage_two
    recipe = replace(RECIPE, folder=str(tmp_path / "run"), dataset=replace(RECIPE.dataset, name=dataset),
                     stage_one=replace(one, segmenter=replace(one.segmenter, num_classes=classes)),
                     stage_two=replace(two, head=replace(two.head, num_classes=classes)))
    table = convert_checkpoint.class_table(recipe)
    said = capsys.readouterr().out
    assert (table == OFFICIAL_CLASSES.get(dataset)) == official
    assert (f"official ones of {dataset}" in said, "all count as things" in said) == (official, not official)
    assert len(table) == classes
    assert official or table.is_thing.all()


@pytest.mark.parametrize(("break_it", "code", "complaint"), [
    (lambda path, state: None, 2, "there is no checkpoint"),
    (lambda path, state: path.write_bytes(b"\x80\x04cos\nsystem\n."), 3, "it asks for 'os.system'"),
    (lambda path, state: path.write_bytes(b"\x80\x04\x95"), 3, "cut off or damaged"),
    (lambda path, state: torch.save({"model": {"unknown.weight": torch.ones(1)}}, path), 4, "no known backbone"),
    (lambda path, state: torch.save({k: v for k, v in state.items() if "wc_module" not in k}, path), 0, ""),
    (lambda path, state: torch.save({k: v for k, v in state.items() if "pixel_decoder" not in k}, path), 4,
     "not in the checkpoint"),
    (lambda path, state: torch.save({k: v[..., None] for k, v in state.items()}, path), 4, "weights do not fit"),
], ids=["absent", "hostile", "damaged", "other-family", "no-within-clip", "incomplete", "other-shapes"])
def test_each_failure_has_its_exit_code_and_one_clear_line(tmp_path, capsys, break_it, code, complaint):
    break_it(tmp_path / "official.pth", official(head=False))
    assert run(tmp_path / "official.pth", tmp_path / "run") == code
    said = capsys.readouterr().err
    assert re.search(complaint, said)
    assert "Traceback" not in said
    assert code == 0 or not (tmp_path / "run").exists()


def test_the_way_back_refuses_a_head_that_official_code_cannot_hold(tmp_path, capsys):
    torch.save({"model": official(head=True)}, tmp_path / "official.pth")
    assert run(tmp_path / "official.pth", tmp_path / "run") == 0
    head = RECIPE.stage_two.head.build()                 # starts near-online
    save_model(tmp_path / "run" / "stage_two" / "model", head.state_dict(), {"kind": "head"})
    assert run(tmp_path / "run", tmp_path / "back.pth", back=True) == 4
    assert "scale" in capsys.readouterr().err
    assert run(tmp_path / "run", tmp_path / "back.onnx", back=True) == 2
    assert run(tmp_path / "nowhere", tmp_path / "back.pth", back=True) == 2
