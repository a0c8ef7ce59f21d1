"""What a recipe will cost: the time, the bytes and the memory of each verb, before anything runs.

In:     a recipe. Finished shards tell how much data there is; without them the synthetic world, or the published size
        of the data set; --videos and --frames replace it.
Out:    a table, and the same numbers as JSON on the last line; no file stays.
Cost:   a rehearsal with the recipe's own networks on a small synthetic world: for the demo about 15 seconds of one
        core, and about 25 for ResNet-50 at 769x1345.

The time of a verb comes from a simulation of its schedule on machines that are alike: processes start, tasks read and
write a shared folder through the network of their machine, compute, and hand their result to the driver; training
processes wait for each other and exchange gradients; the tracker takes records. The machines are doubled until that
saves less than a tenth of the time; the last column says what stops them. Where this machine has no GPU, those of a
cluster are taken to be as much faster than one core as their matrix products are (--gpu-tflops).

    python -m jobs.estimate --recipe demo
    python -m jobs.estimate --recipe vipseg_video_kmax_r50_near_online --machines 2 --gpus 8 --cpus 64
    python -m jobs.estimate --recipe vipseg_video_kmax_r50_near_online --videos 1000000 --frames 24 --gpus 8 --cpus 64
"""

from __future__ import annotations

from dataclasses import asdict, replace
from math import inf
from typing import Annotated, Any

import tyro

from jobs.cluster import joins_cluster
from jobs.console import say
from jobs.ending import answered, end_process
from jobs.recipes.schema import Recipe
from jobs.verb import chosen_recipe, guarded

RAY_START = 6.0         # seconds; assumed, since starting it would take them: two cores took as long


def main(recipe: Recipe, *, videos: int | None = None, frames: int | None = None, machines: int = 1,
         cpus: int | None = None, gpus: int = 0, storage_gb: float = 1.0, network_gbit: float = 10.0,
         gpu_tflops: float = 15.7) -> dict[str, Any]:
    """Measure, simulate and print; returns the values of the last line. The arguments are those of `command`."""
    given = {"videos": videos, "frames": frames, "machines": machines, "cpus": cpus, "storage_gb": storage_gb,
             "network_gbit": network_gbit, "gpu_tflops": gpu_tflops}
    wrong = [name for name, value in given.items() if not (value is None or 0 < value < inf)] + ["gpus"] * (gpus < 0)
    if wrong:
        raise ValueError(f"{', '.join(f'--{name}'.replace('_', '-') for name in wrong)} must be a number above 0 "
                         "(--gpus: at least 0)")
    from jobs.estimating.amounts import amounts_of  # here and below: what runs networks takes long to import

    amounts = amounts_of(recipe, videos=videos, frames=frames)
    from jobs.estimating.schedule import Cluster
    from jobs.estimating.table import cost_lines, estimated, table_lines
    from jobs.estimating.unit_costs import unit_costs
    from jobs.estimating.verbs import planned

    starts_ray = machines == 1 and not recipe.cluster.in_process and not joins_cluster(recipe.cluster)
    costs = unit_costs(recipe, amounts)
    if recipe.world is not None:
        amounts = replace(amounts, bytes_of_frame=costs.frame_bytes)
    cluster = Cluster(machines=machines, cpus=cpus or recipe.cluster.local_cpus, gpus=gpus, storage=storage_gb * 1e9,
                      network=network_gbit / 8 * 1e9, start=costs.start.seconds,
                      connect=RAY_START if starts_ray else 0.0, gpu_rate=gpu_tflops * 1e12)
    rows = estimated(list(planned(recipe, amounts, costs, cluster)), cluster)
    counts = ", ".join(f"{number:,} in {split}" for split, number in amounts.videos.items())
    say(f"{recipe.name}: videos: {counts}; {amounts.frames} frames of {amounts.size[0]}x{amounts.size[1]} each, "
        f"{amounts.bytes_of_frame / 1000:.1f} kB a frame (from {amounts.source})", *cost_lines(costs), "",
        f"on {machines} machine{'s' * (machines > 1)} of {cluster.cpus} CPUs and {gpus} GPUs:", *table_lines(rows), "")
    return {"recipe": recipe.name, "amounts": asdict(amounts), "costs": asdict(costs), "cluster": asdict(cluster),
            "verbs": rows}


def command(recipe: str, videos: int | None = None, frames: int | None = None, machines: int = 1,
            cpus: int | None = None, gpus: int = 0, storage_gb: float = 1.0, network_gbit: float = 10.0,
            gpu_tflops: float = 15.7, set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()) -> int:
    """Estimate the cost of a recipe.

    Args:
        recipe: name of a recipe, or a .toml file that changes one; an unknown name lists all of them.
        videos: of the train split; that of the shards, of the world or of the published data set where not given.
        frames: of every video; as above.
        machines: of the cluster, all alike.
        cpus: of a machine; cluster.local_cpus where not given.
        gpus: of a machine.
        storage_gb: gigabytes a second that all machines together read and write in the shared folder.
        network_gbit: gigabits a second of a machine.
        gpu_tflops: float32 operations of a GPU in a matrix product, 10^12 a second; 15.7: a V100. A GPU of this machine
            is measured instead.
        set: path.to.field=value, may be given several times.
    """
    def estimate(chosen: Recipe) -> dict[str, Any]:
        return main(chosen, videos=videos, frames=frames, machines=machines, cpus=cpus, gpus=gpus,
                    storage_gb=storage_gb, network_gbit=network_gbit, gpu_tflops=gpu_tflops)

    return guarded(estimate, lambda: chosen_recipe(recipe, set))


if __name__ == "__main__":
    end_process(answered(lambda: tyro.cli(command, description=__doc__, prog="python -m jobs.estimate")))
