"""A stack of copies measures what each copy measures alone; alone, a copy is the host's own network with an ordinary graft."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from recorder.data import DATA_SETS
from recorder.hosts import ARCHITECTURES, build_host, draw_host, fits
from recorder.hosts.spec import FAMILIES
from recorder.kernels import fitting
from recorder.runs.copies import Copies
from recorder.runs.grafts import fossilize, grow, join, plant, probe_site
from recorder.runs.training import snapshot, step_seed, train_step
from recorder.runs.trials import Treatment, run_trials
from recorder.stacks import fold, stacked, unfold

STEPS = 5
WARM = 12
PAIRS = [(data, kind) for data in DATA_SETS for kind in ARCHITECTURES if fits(kind, data)]


def host_of(data: str, kind: str, index: int, **changes):
    """A host after its warm-up."""
    spec = dataclasses.replace(draw_host(5, index, data, kind, stress=False), batch=16, **changes)
    host = build_host(spec)
    host.model.train()
    for step in range(WARM):
        seed = step_seed(spec.seed, spec.index, step)
        train_step(host.model, host.optimizer, host.share.train, batch=spec.batch, clip=spec.clip, seed=seed)
    return host


def treatments(host, kernels: int) -> list[Treatment | None]:
    """No graft, and kernels at the first and the last site, each blended in its own time."""
    found: list[Treatment | None] = [None]
    for path in (host.sites[0], host.sites[-1]):
        site = probe_site(host.model, path, host.share.train.inputs)
        able = fitting(site.layout)
        chosen = able[len(found) % 3 :: max(1, len(able) // kernels)]
        found += [Treatment(path, site, kernel, "linear", 1 + len(found) % 4) for kernel in chosen]
    return found


def assert_same(host, tried: list[Treatment | None], *, close: float = 2e-5) -> None:
    """Together and alone the trials have the same losses, but for the order in which floats are added."""
    state = snapshot(host, WARM)
    together = run_trials(host, state, tried, replicate=0, horizons=(STEPS,), dense=True)
    for treatment, path in zip(tried, together, strict=True):
        (alone,) = run_trials(host, state, [treatment], replicate=0, horizons=(STEPS,), dense=True)
        label = "control" if treatment is None else f"{treatment.kernel.blueprint_id} at {treatment.path}"
        assert path.training == pytest.approx(alone.training, rel=close), label
        assert path.validation == pytest.approx(alone.validation, rel=close), label
        assert path.test == pytest.approx(alone.test, rel=close), label
        assert set(path.validation) == {STEPS}


@pytest.mark.parametrize(("data", "kind"), PAIRS)
def test_every_architecture_on_every_data_set(data: str, kind: str) -> None:
    host = host_of(data, kind, 11, norm="none", dropout=0.0, clip=1.0, optimizer="adam")
    assert_same(host, treatments(host, 4))


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_normalization(kind: str, norm: str) -> None:
    host = host_of("digits", kind, 12, norm=norm, dropout=0.0, clip=0.0, optimizer="sgd")
    assert_same(host, treatments(host, 3))


@pytest.mark.parametrize("index", [13, 14])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_mask_of_dropout_is_the_one_that_a_copy_draws_alone(kind: str, index: int) -> None:
    """Without kernels that draw numbers themselves: alone, those would shift what the layers behind them draw.

    And not in residual blocks of images: which element gets which number depends on the order of memory there, on kernels too.
    """
    data = "topics" if kind == "residual" else "digits"
    host = host_of(data, kind, index, norm="none", dropout=0.3, clip=0.0, optimizer="sgd")
    drawing = {"kernel-dropout", "kernel-noise"}
    assert_same(host, [each for each in treatments(host, 6) if each is None or each.kernel.blueprint_id not in drawing])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_optimizer_goes_on_with_its_state(family: str) -> None:
    host = host_of("topics", "mlp", 15, optimizer=family, momentum=0.9, weight_decay=1e-2, clip=0.5, norm="none", dropout=0.0)
    assert_same(host, treatments(host, 5))


@pytest.mark.parametrize(
    ("data", "kind"), [("digits", "mlp"), ("digits", "cnn"), ("names", "transformer"), ("names", "recurrent")]
)
def test_every_kernel_at_a_site_and_as_a_fossil(data: str, kind: str) -> None:
    settings = {"norm": "none", "dropout": 0.0, "clip": 1.0, "optimizer": "adamw"}
    host = host_of(data, kind, 16, **settings)
    path = host.sites[0]
    site = probe_site(host.model, path, host.share.train.inputs)
    tried = [Treatment(path, site, kernel, "linear", 3) for kernel in fitting(site.layout)]
    assert_same(host, tried)
    for kernel in fitting(site.layout):
        made = host_of(data, kind, 16, **settings)
        graft = plant(made.model, path, site, kernel, 1)
        join([graft], made.optimizer)
        fossilize(made.model, made.optimizer, path, graft)
        assert_same(made, [None, *tried[:2]])


def test_what_one_graft_draws_is_nothing_to_the_other_copies() -> None:
    host = host_of("digits", "mlp", 17, norm="none", dropout=0.3, clip=0.0, optimizer="sgd")
    site = probe_site(host.model, host.sites[0], host.share.train.inputs)
    noise, linear = (
        Treatment(host.sites[0], site, kernel, "linear", 1)
        for kernel in fitting(site.layout)
        if kernel.blueprint_id in ("kernel-noise", "kernel-linear")
    )
    state = snapshot(host, WARM)
    with_it, without = (
        run_trials(host, state, tried, replicate=0, horizons=(STEPS,))
        for tried in ([None, noise, linear], [None, linear, linear])
    )
    assert with_it[0] == without[0]
    assert with_it[2] == without[2]
    assert with_it[1] != without[1]


def test_a_copy_that_diverges_costs_the_others_nothing() -> None:
    host = host_of("digits", "mlp", 18, norm="none", dropout=0.0, clip=1.0, optimizer="adam")
    state, batch = snapshot(host, WARM), host.share.train.take(torch.arange(16))

    def losses(poisoned: bool) -> list[list[float]]:
        model, optimizer = state.restore(host, 3)
        if poisoned:
            next(model.parameters()).data[1].fill_(math.nan)
        copies = Copies(model.train(), optimizer, [None] * 3)
        return [copies.train(batch, 1.0) for _ in range(STEPS)]

    sound, poisoned = losses(False), losses(True)
    assert all(math.isnan(step[1]) for step in poisoned)
    assert [(step[0], step[2]) for step in poisoned] == [(step[0], step[2]) for step in sound]


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e6])
def test_each_copy_is_clipped_as_torch_clips_it_alone(limit: float) -> None:
    host = host_of("digits", "mlp", 19, norm="none", dropout=0.0, clip=0.0, optimizer="sgd")
    site = probe_site(host.model, host.sites[0], host.share.train.inputs)
    linear = next(kernel for kernel in fitting(site.layout) if kernel.blueprint_id == "kernel-linear")
    grafts = [None, grow(site, linear, 1), grow(site, linear, 2)]
    model, optimizer = snapshot(host, WARM).restore(host, 3)
    copies, generator = Copies(model, optimizer, grafts), torch.Generator().manual_seed(1)
    alone: list[list[nn.Parameter]] = [[] for _ in grafts]
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        for number, parameters in enumerate(alone):
            parameters.append(nn.Parameter(parameter.detach()[number]))
            parameters[-1].grad = parameter.grad[number].clone()
    for number, graft in enumerate(grafts):
        for parameter in () if graft is None else graft.module.parameters():
            parameter.grad = 10 * torch.randn(parameter.shape, generator=generator)
            alone[number].append(nn.Parameter(parameter.detach()))
            alone[number][-1].grad = parameter.grad.clone()
    copies._clip(limit)
    for number, (parameters, graft) in enumerate(zip(alone, grafts, strict=True)):
        nn.utils.clip_grad_norm_(parameters, limit)
        clipped = [p.grad[number] for p in model.parameters()] + (
            [] if graft is None else [p.grad for p in graft.module.parameters()]
        )
        for one, other in zip(clipped, parameters, strict=True):
            torch.testing.assert_close(one, other.grad)


def test_a_stack_of_one_is_the_network_itself() -> None:
    network = build_host(draw_host(5, 20, "digits", "mlp", stress=False)).model
    assert stacked(network, 1) is network


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3), (4, 3, 6, 6)])
def test_what_is_folded_is_unfolded(shape: tuple[int, ...]) -> None:
    parts = [torch.full(shape, float(number)) for number in range(3)]
    folded = fold(parts)
    assert folded.numel() == 3 * parts[0].numel()
    assert all(torch.equal(one, other) for one, other in zip(unfold(folded, 3), parts, strict=True))
