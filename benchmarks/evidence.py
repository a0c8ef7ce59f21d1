"""How much of the frames the query cache must keep: bytes of a clip against the gradient of a cross-clip head.

    python -m benchmarks.evidence --recipe demo                     # the run in runs/demo; minutes
    python -m benchmarks.evidence --recipe demo --enlarge 4         # 16 times the pixels of a clip

The segmenter of a finished run is applied to windows of its training videos, all of whose pixels are kept. For each way
to draw and to store pixels the gradient of the head is compared with that of all pixels in single precision: the
cosine in each window, and the bias that is left in the mean over draws. This is done for a head as it starts and for
one that was trained from the cache. Every row is written when it is finished, and those that are there are not made
again.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.harness import Results
from benchmarks.query_cache import prepare, toy_recipe
from benchmarks.rows import commit, machine
from jobs.cache_queries import CacheShard
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.train_stage_two import build_stage
from jobs.training.trainer import Stage, train_in_memory
from jobs.verb import resolved
from model.contracts import VideoQueries
from model.inference import Aligned, QueryCollector, make_results
from model.labels import ClassTable
from pipeline.files import atomic_write
from pipeline.query_cache import (
    SEEN,
    CachedClip,
    EvidenceConfig,
    EvidenceRecorder,
    collate,
    schema_of,
    to_clip,
    to_row,
)
from pipeline.shards import ShardSet, StoredVideo

PIXELS = (32, 64, 128, 256, 512, 1024)
STRATEGIES = ("balanced", "mixed", "uniform")
DENSE = EvidenceConfig(strategy="dense")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept of a clip."""

    strategy: str
    pixels: int
    bits: int = 16          # of a channel of a stored pixel
    sure: float = 0.0       # queries whose probability of an object stays below this in the whole video are dropped

    def __str__(self) -> str:
        count = "all" if self.strategy == "dense" else f"{self.pixels} {self.strategy}"
        return f"{count}, {self.bits} bits{f', queries above {self.sure}' if self.sure else ''}"


WAYS = (*(Kept(strategy=strategy, pixels=pixels) for strategy in STRATEGIES for pixels in PIXELS),
        *(Kept(strategy="mixed", pixels=pixels, bits=8) for pixels in PIXELS),
        Kept(strategy="dense", pixels=1), Kept(strategy="dense", pixels=1, bits=8),
        *(Kept(strategy="dense", pixels=1, sure=sure) for sure in (0.2, 0.5)))


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some clips of one video with all of their pixels."""

    video: StoredVideo
    classes: ClassTable
    queries: VideoQueries                               # b = 1
    clips: tuple[tuple[np.ndarray, Tensor, int, int], ...]     # ids t h w, features d t h w, first frame, real frames

    def kept(self, config: EvidenceConfig, *, seed: int) -> list[CachedClip]:
        """The clips with a draw of pixels, in single precision."""
        recorder = EvidenceRecorder(self.video, self.classes, view=0, config=config, seed=seed)
        for ids, features, start, valid in self.clips:
            recorder.add(ids, features, start=start, valid=valid)
        return list(recorder.clips(self.queries))


MEASURES = ("pipeline/query_cache/pixel_evidence.py", "pipeline/query_cache/columns.py", "model/losses/cross_clip.py",
            "model/cross_clip/maxtron.py")


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is measured with an untrained segmenter."""

    ways: tuple[Kept, ...]
    windows: int = 1
    draws: int = 2


TOY = (Kept(strategy="mixed", pixels=64), Kept(strategy="mixed", pixels=64, bits=8),
       Kept(strategy="dense", pixels=1, sure=0.1))
SIZES = {"toy": Size(ways=TOY)}     # what it measures needs a trained segmenter: see `main`


def run(size: Size, results: Results) -> None:
    """The gradients with an untrained segmenter."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(toy_recipe(folder))
        for row in measured(recipe, Path(folder) / "evidence", windows=size.windows, draws=size.draws, ways=size.ways):
            results.add(f"{recipe.name}, {row['head']} head, {row['kept']}", row["cosine"], "cosine", row=row)


def main() -> None:
    """Measure what is not measured yet, and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--folder", default="", help="folder of the run; the recipe's own by default")
    parser.add_argument("--output", default="runs/evidence", help="folder of the rows")
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--draws", type=int, default=8, help="of each way in each window")
    parser.add_argument("--enlarge", type=int, default=1, help="interpolate maps to this many times height and width")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = resolved(replace(find_recipe(arguments.recipe), folder=arguments.folder))
    output = Path(arguments.output)
    rows = []
    print(f"{'head':<9}{'kept':<44}{'bytes':>9}{'cosine':>9}{'lowest':>9}{'bias':>8}{'spread':>8}")
    for row in measured(recipe, output, windows=arguments.windows, draws=arguments.draws, enlarge=arguments.enlarge):
        print(line(row), flush=True)
        rows.append(row)
    path = output / f"gradients_{recipe.name}_x{arguments.enlarge}.png"
    atomic_write(path, plot(rows))
    print(path)


def plot(rows: Sequence[dict[str, Any]]) -> bytes:
    """A png: bytes of a clip against one minus the cosine, for the new and for the trained head."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, head in zip(axes, ("new", "trained"), strict=True):
        for bits, strategy in ((16, "uniform"), (16, "balanced"), (16, "mixed"), (8, "mixed")):
            curve = sorted((row["bytes"] / 1000, 1 - row["cosine"]) for row in rows
                           if (row["head"], row["bits"], row["strategy"]) == (head, bits, strategy))
            if curve:
                axis.loglog(*zip(*curve), marker="o", label=f"{strategy}, {bits} bits")
        axis.axhline(0.01, color="grey", linewidth=0.8)
        axis.set_title(f"{head} head")
        axis.set_xlabel("kB of a clip")
    axes[0].set_ylabel("1 - cosine with the gradient of all pixels")
    axes[0].legend()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    return (f"{row['head']:<9}{row['kept']:<44}{row['bytes']:>9,.0f}{row['cosine']:>9.4f}{row['lowest']:>9.4f}"
            f"{row['bias']:>8.3f}{row['spread']:>8.3f}")


def measured(recipe: Recipe, output: Path, *, windows: int, draws: int, enlarge: int = 1,
             ways: Sequence[Kept] = WAYS) -> Iterator[dict[str, Any]]:
    """The rows of a run, those from `output` and new ones, which are added to its file."""
    file = output / f"gradients_{recipe.name}_x{enlarge}.jsonl"
    there = [json.loads(row) for row in file.read_text().splitlines()] if file.is_file() else []
    known = {(row["head"], row["kept"]): row for row in there}
    missing = {(head, str(way)) for head in ("new", "trained") for way in ways} - known.keys()
    seen = list(seen_windows(recipe, windows, enlarge=enlarge)) if missing else []
    output.mkdir(parents=True, exist_ok=True)
    for head, steps in (("new", 0), ("trained", recipe.stage_two.fit.steps)):
        stage = head_after(recipe, steps) if any(name == head for name, _ in missing) else None
        truths = [] if stage is None else [_gradient(stage, window.kept(DENSE, seed=0)) for window in seen]
        for way in ways:
            if (row := known.get((head, str(way)))) is None:
                row = {"recipe": recipe.name, "head": head, "kept": str(way), "enlarge": enlarge, "windows": windows,
                       "draws": draws, **asdict(way), **compared(stage, seen, truths, way, draws=draws),
                       "machine": machine(), "commit": commit(),
                       "date": datetime.now(UTC).isoformat(timespec="seconds")}
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
            yield row


def seen_windows(recipe: Recipe, count: int, *, enlarge: int) -> Iterator[Window]:
    """The first window of some videos, spread over the training split, as the segmenter sees them at test time."""
    shards = ShardSet(recipe.shards_of("train"))
    actor = CacheShard(recipe=recipe)
    length = recipe.stage_two.input.clips
    for index in np.linspace(0, len(shards.videos) - 1, count).astype(int).tolist():
        video = shards.videos[index]
        with actor.walks(shards, [video], view=0) as (walk,):
            pairs = list(islice(walk, length))
        queries = make_results(((prediction, clip.valid) for clip, prediction in pairs), [Aligned([QueryCollector()])],
                               num_classes=len(shards.classes))["queries"]
        clips = tuple((repeat(clip.ids, "t h w -> t (h a) (w b)", a=enlarge, b=enlarge),
                       _enlarged(prediction.pixel_features[0].float(), enlarge), clip.start, clip.valid)
                      for clip, prediction in pairs)
        yield Window(video=video, classes=shards.classes, queries=queries, clips=clips)


def _enlarged(features: Tensor, times: int) -> Tensor:
    """features d t h w, interpolated, with the lengths that they had between interpolated ones."""
    if times == 1:
        return features
    maps = rearrange(features, "d t h w -> t d h w")
    lengths = F.interpolate(maps.norm(dim=1, keepdim=True), scale_factor=times, mode="bilinear")
    return rearrange(F.normalize(F.interpolate(maps, scale_factor=times, mode="bilinear"), dim=1) * lengths,
                     "t d h w -> d t h w")


def head_after(recipe: Recipe, steps: int) -> Stage:
    """The stage of the head after some steps of training from the run's cache."""
    stage = build_stage(recipe)
    if steps:
        weights, _ = train_in_memory(partial(build_stage, recipe), replace(recipe.stage_two.fit, steps=steps),
                                     device=torch.device("cpu"))
        stage.model.load_state_dict(weights)
    stage.model.train()
    return stage


def compared(stage: Stage, windows: Sequence[Window], truths: Sequence[Tensor], way: Kept, *, draws: int
             ) -> dict[str, float]:
    """Bytes of a clip, and the gradients of draws against those of all pixels; all are means over windows.

    cosine, lowest: of single draws. bias: length of the difference that would be left in the mean over endless draws;
    spread: root mean square of the difference of a draw to the mean; both as parts of the length of the true gradient.
    """
    cosines = []
    biases = []
    spreads = []
    sizes = []
    config = EvidenceConfig(strategy=way.strategy, pixels=way.pixels)
    for window, dense in zip(windows, truths, strict=True):
        drawn = []
        for seed in range(1 if way.strategy == "dense" else draws):
            stored, size = _stored(window.kept(config, seed=seed), way)
            drawn.append(_gradient(stage, stored))
            sizes.append(size)
        gradients = torch.stack(drawn)
        cosines += F.cosine_similarity(gradients, dense[None]).tolist()
        mean = gradients.mean(0)
        count = len(drawn)
        variance = ((gradients - mean).square().sum() / max(count - 1, 1)).item()
        biases.append(((mean - dense).square().sum().item() - variance / count) / dense.square().sum().item())
        spreads.append(variance / dense.square().sum().item())
    return {"bytes": float(np.mean(sizes)), "cosine": float(np.mean(cosines)), "lowest": min(cosines),
            "bias": max(float(np.mean(biases)), 0.0) ** 0.5, "spread": float(np.mean(spreads)) ** 0.5}


def _stored(clips: list[CachedClip], way: Kept) -> tuple[list[CachedClip], float]:
    """The clips as the cache would give them back, and their mean bytes."""
    if way.sure:
        clips = without_idle(clips, sure=way.sure)
    floats = np.dtype(np.float16)
    read = []
    size = 0
    for clip in clips:
        schema = schema_of(clip, floats=floats, fingerprint="", in_8_bits=way.bits == 8)
        tensors = json.loads(schema.metadata[b"tensors"])
        row = to_row(clip, floats=floats, in_8_bits=way.bits == 8)
        size += sum(len(row[name]) for name in tensors)
        read.append(to_clip(row, tensors))
    return read, size / len(clips)


def without_idle(clips: list[CachedClip], *, sure: float) -> list[CachedClip]:
    """One view of a video without the queries whose probability of an object stays below `sure` in all its clips."""
    logits = torch.from_numpy(np.stack([clip.class_logits for clip in clips]).astype(np.float32))      # k n classes+1
    busy = (1 - logits.softmax(-1)[..., -1] >= sure).any(0).numpy()
    names = ("queries", "mask_embeddings", "class_logits", *SEEN)
    return [replace(clip, **{name: getattr(clip, name)[busy] for name in names if getattr(clip, name) is not None})
            for clip in clips]


def _gradient(stage: Stage, clips: list[CachedClip]) -> Tensor:
    """The gradient of the sum of all losses on one window, as one vector."""
    stage.model.zero_grad(set_to_none=True)
    batch = collate([clips], (0,))
    norms = {name: value.clone() for name, value in stage.model.state_dict().items()}
    sum(stage.losses_of(stage.model, batch).values()).backward()
    stage.model.load_state_dict(norms)      # running statistics of batch norms
    return torch.cat([parameter.grad.flatten() for parameter in stage.model.parameters()
                      if parameter.grad is not None])


if __name__ == "__main__":
    main()
