"""The loop without a cluster: it learns, accumulates, resumes exactly and stops at losses that are not finite."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count, islice

import pytest
import torch
from torch import nn

from jobs.training.checkpoint import load_checkpoint, save_checkpoint
from jobs.training.loop import FitConfig, NotFinite, fit
from jobs.training.optimizer import OptimizerConfig, build_optimizer

RATES = OptimizerConfig(lr=0.05, warmup_steps=2, weight_decay=0.0)


@dataclass
class Batch:
    x: torch.Tensor
    videos: tuple[str, ...] = ("a", "b")


def batches(start: int = 0):
    for step in count(start):
        yield Batch(torch.randn(4, 3, generator=torch.Generator().manual_seed(step)))


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def losses_of(model):
    return lambda batch: {"fit": ((model(batch.x) - batch.x.sum(1, keepdim=True)) ** 2).mean()}


def run(model, optimizer, *, steps, start=0, accumulate=1, save=lambda step: None, stop_at=None):
    reports = []

    def maybe_stop(step):
        save(step)
        if step == stop_at:
            raise KeyboardInterrupt

    fit(model, batches(start * accumulate), losses_of(model), optimizer=optimizer, rates=RATES,
        config=FitConfig(steps=steps, accumulate=accumulate, log_every=5, checkpoint_every=5), start_step=start,
        log=reports.append, save=maybe_stop)
    return reports


def test_the_loss_falls_and_reports_come_on_time():
    model = net()
    reports = run(model, build_optimizer(model, RATES), steps=100)
    assert [r.step for r in reports] == list(range(5, 101, 5))
    assert reports[-1].losses["fit"] < reports[0].losses["fit"]


def test_killed_and_resumed_equals_undisturbed(tmp_path):
    whole = net()
    run(whole, build_optimizer(whole, RATES), steps=20)

    broken = net()
    optimizer = build_optimizer(broken, RATES)
    with pytest.raises(KeyboardInterrupt):
        run(broken, optimizer, steps=20, stop_at=10, save=lambda step: save_checkpoint(
            tmp_path, model=broken, optimizer=optimizer, state={"step": step}))
    resumed = net()
    optimizer = build_optimizer(resumed, RATES)
    state = load_checkpoint(tmp_path, model=resumed, optimizer=optimizer)
    run(resumed, optimizer, steps=20, start=state["step"])
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


def test_the_scale_of_losses_is_part_of_the_state_of_a_run():
    """A scaler that doubles its scale every three steps: a resumed run goes on with the scale it had."""
    model = net()
    whole = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    options = {"optimizer": torch.optim.SGD([{"params": model.parameters(), "factor": 1.0}], lr=0.0), "rates": RATES,
               "log": lambda report: None, "save": lambda step: None}
    fit(model, batches(), losses_of(model), config=FitConfig(steps=10), scaler=whole, **options)
    assert whole.get_scale() == 64.0
    broken = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    fit(model, batches(), losses_of(model), config=FitConfig(steps=5), scaler=broken, **options)
    resumed = torch.amp.GradScaler("cpu")
    resumed.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    fit(model, batches(), losses_of(model), config=FitConfig(steps=10), start_step=5, scaler=resumed, **options)
    assert resumed.state_dict() == whole.state_dict()


def test_the_gradient_of_two_accumulated_batches_is_their_mean():
    model = nn.Linear(3, 1)
    first, second = list(islice(batches(), 2))
    grads = [torch.autograd.grad(losses_of(model)(b)["fit"], model.weight)[0] for b in (first, second)]
    seen = []
    model.weight.register_hook(lambda grad: seen.append(grad.clone()))
    optimizer = torch.optim.SGD([{"params": model.parameters(), "factor": 1.0}], lr=0.0)
    fit(model, batches(), losses_of(model), optimizer=optimizer, rates=RATES, log=lambda r: None, save=lambda s: None,
        config=FitConfig(steps=1, accumulate=2))
    assert torch.allclose(sum(seen), sum(grads) / 2)


def test_a_process_that_has_to_leave_stops_after_a_step_that_is_logged_and_saved():
    model = net()
    said = iter([False, False, True])
    reports, saved = [], []
    assert not fit(model, batches(), losses_of(model), optimizer=build_optimizer(model, RATES), rates=RATES,
                   config=FitConfig(steps=9), log=reports.append, save=saved.append, is_leaving=lambda: next(said))
    assert [report.step for report in reports] == saved == [3]


def test_a_loss_that_is_not_finite_stops_naming_term_step_and_videos():
    model = nn.Linear(3, 1)
    bad = ({"dice": model(b.x).sum(), "mask": model(b.x).sum() * float("nan")} for b in batches())
    with pytest.raises(NotFinite, match=r"step 0.*mask = nan in videos a, b"):
        fit(model, batches(), lambda b: next(bad), optimizer=build_optimizer(model, RATES), rates=RATES,
            config=FitConfig(steps=3), log=lambda r: None, save=lambda s: None)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16),
                                                     ("fp16", torch.float32)])
def test_layers_compute_in_the_requested_precision_and_weights_stay_in_float32(precision, expected):
    """fp16 needs a GPU; a CPU trains in float32 instead."""
    model = nn.Linear(3, 1)
    seen = []

    def losses(batch):
        seen.append(model(batch.x).dtype)
        return losses_of(model)(batch)
    fit(model, batches(), losses, optimizer=build_optimizer(model, RATES), rates=RATES, log=lambda r: None,
        save=lambda s: None, config=FitConfig(steps=2, precision=precision))
    assert seen == [expected] * 2
    assert model.weight.dtype == torch.float32
