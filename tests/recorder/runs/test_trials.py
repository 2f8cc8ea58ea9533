"""Counterfactuals: controls with common random numbers, exact repetition, and risk classes."""

import math
from collections import Counter

import pytest
import torch

from recorder.hosts import build_host, draw_host
from recorder.kernels import KERNELS
from recorder.runs import grid
from recorder.runs.grafts import probe_site
from recorder.runs.grid import SURE_ENOUGH, Grid, open_state, try_everything
from recorder.runs.seeds import Seed
from recorder.runs.training import clip_gradients, evaluate, mean_losses, snapshot, step_seed, train_step
from recorder.runs.trials import Treatment, run_trials
from recorder.speech.clock import Clock
from recorder.speech.reports import standard_errors
from recorder.speech.uplift import Outcome, risk_class

HORIZONS = (20,)


@pytest.fixture(scope="module")
def trained():
    """A host with dropout after 20 steps."""
    spec = draw_host(3, 11, "digits", "mlp", stress=False)
    host = build_host(spec)
    host.model.train()
    for step in range(20):
        train_step(host.model, host.optimizer, host.share.train, batch=spec.batch, clip=spec.clip, seed=step_seed(3, 11, step))
    return host


def treatment(host, kernel_id):
    path = host.sites[0]
    return Treatment(path, probe_site(host.model, path, host.share.train.inputs), KERNELS[kernel_id], "linear", 5)


def test_the_identity_kernel_measures_exactly_nothing(trained):
    (outcomes,) = open_state(trained, 20, Grid(2, HORIZONS)).outcomes([treatment(trained, "kernel-identity")], range(2))
    assert [outcome.uplift for outcome in outcomes] == [0.0, 0.0]
    assert [outcome.uplift_test for outcome in outcomes] == [0.0, 0.0]


@pytest.mark.parametrize("kernel_id", ["kernel-linear", "kernel-noise", "kernel-layer-norm"])
def test_a_trial_repeats_exactly_and_leaves_the_host_alone(trained, kernel_id):
    before = evaluate(trained.model, trained.share.validation).loss
    state = snapshot(trained, 20)
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        runs.append(run_trials(trained, state, [None, treatment(trained, kernel_id)], replicate=0, horizons=HORIZONS))
    assert runs[0] == runs[1]
    assert evaluate(trained.model, trained.share.validation).loss == before
    assert [group.get("name") for group in trained.optimizer.param_groups] == ["weight", "bias", "head"]


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e6])
def test_clipping_is_torchs(limit):
    torch.manual_seed(0)
    gradients = [torch.randn(7, 3), torch.randn(5), None]
    ours, theirs = ([torch.nn.Parameter(torch.zeros(7, 3)), torch.nn.Parameter(torch.zeros(5))] for _ in range(2))
    for parameters in (ours, theirs):
        parameters.append(torch.nn.Parameter(torch.zeros(2)))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
    clip_gradients(ours, limit)
    torch.nn.utils.clip_grad_norm_(theirs, limit)
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    ours[0].grad.fill_(math.nan)
    clip_gradients(ours, limit)
    assert ours[1].grad.isnan().all()


def test_splits_in_one_pass_have_the_losses_that_they_have_alone(trained):
    share = trained.share
    (found,) = mean_losses(trained.model, share.held, (len(share.validation), len(share.test)))
    alone = [evaluate(trained.model, split).loss for split in (share.validation, share.test)]
    assert found == pytest.approx(alone, rel=1e-5)
    assert trained.model.training


def test_replicates_differ_in_their_batches(trained):
    state = snapshot(trained, 20)
    (first,), (second,) = (run_trials(trained, state, [None], replicate=r, horizons=HORIZONS) for r in range(2))
    assert first.training != second.training


def test_the_control_of_a_replicate_is_trained_once(trained, monkeypatch):
    stacks = []

    def counted(host, state, treatments, **kwargs):
        stacks.append([None if each is None else each.kernel.blueprint_id for each in treatments])
        return run_trials(host, state, treatments, **kwargs)

    monkeypatch.setattr(grid, "run_trials", counted)
    state = open_state(trained, 20, Grid(1, HORIZONS))
    linear, identity = treatment(trained, "kernel-linear"), treatment(trained, "kernel-identity")
    state.outcomes([linear, identity], range(1))
    state.outcomes([linear], range(1, 2))
    state.outcomes([linear], range(1))
    assert stacks == [[None, "kernel-linear"], [None, "kernel-linear"], ["kernel-linear"]]


def test_a_large_grid_is_trained_in_stacks_that_fit_and_measures_the_same(trained, monkeypatch):
    tried = [treatment(trained, kernel) for kernel in ("kernel-linear", "kernel-noise", "kernel-scale")]
    whole = open_state(trained, 20, Grid(1, HORIZONS)).outcomes(tried, range(1))
    monkeypatch.setattr(grid, "STACK", 2)
    parts = open_state(trained, 20, Grid(1, HORIZONS)).outcomes(tried, range(1))
    for one, other in zip(whole, parts, strict=True):
        assert one[0].uplift == pytest.approx(other[0].uplift, abs=1e-5)


def outcome(**changes):
    values = {
        "horizon": 20,
        "replicate": 0,
        "base_loss": 1.0,
        "control_loss": 1.0,
        "treated_loss": 1.0,
        "uplift_test": 0.0,
        "dip": 0.0,
        "late_sd": 0.1,
        "control_late_sd": 0.1,
    }
    return Outcome(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "none"),
        ({"treated_loss": math.inf}, "critical"),
        ({"treated_loss": math.e * 1.01}, "critical"),
        ({"treated_loss": math.exp(0.26)}, "high"),
        ({"late_sd": 0.49}, "high"),
        ({"treated_loss": math.exp(0.09)}, "medium"),
        ({"dip": -0.16}, "medium"),
        ({"treated_loss": math.exp(0.03)}, "low"),
        ({"dip": -0.06}, "low"),
        ({"treated_loss": 0.5}, "none"),
    ],
)
def test_risk_classes_follow_the_first_matching_line(changes, expected):
    assert risk_class(outcome(**changes)) == expected


def test_standard_errors_borrow_from_the_states_other_pairs():
    calm, wild = standard_errors([[0.0, 0.0], [0.0, 0.4]])
    assert 0.0 < calm < wild
    assert standard_errors([[0.1, 0.1], [0.2, 0.2]]) == [0.0, 0.0]
    assert math.isnan(standard_errors([[0.1]])[0])


def test_only_what_is_unsure_is_tried_again(trained):
    emitted: list[tuple[str, object]] = []
    path = trained.sites[0]
    site = probe_site(trained.model, path, trained.share.train.inputs)
    seed = Seed("seed-1", path, site, ("blocks.0.linear",), 0)
    try_everything(trained, [seed], 20, "packet", Grid(2, HORIZONS, 5, 4, 3), Clock(), lambda *item: emitted.append(item))
    reports = [record for folder, record in emitted if folder == "tamiyo/field_report"]
    counts = Counter(report.command_id for report in reports)
    assert set(counts.values()) <= {2, 3, 4}
    for command_id, count in counts.items():
        mine = [report for report in reports if report.command_id == command_id]
        mean = sum(math.log((r.base_loss + r.control_delta) / (r.base_loss + r.treated_delta)) for r in mine) / count
        se = mine[0].metrics["se"]
        assert count == 4 or se <= SURE_ENOUGH or abs(mean) >= 1.9 * se
