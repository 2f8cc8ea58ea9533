"""Carry out the first phase: measure every kernel before any packet exists, and describe it to Urza, Urabrask and Tezzeret.

Outcomes come from training hosts of their own, whose ids fall into training buckets and are never recorded as runs.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import mse_loss

from recorder.exports import Records, read_table
from recorder.hosts import build_host, has_positions
from recorder.hosts.spec import HostSpec, draw_host
from recorder.kernels import KERNELS, Kernel, Layout, Site, fitting
from recorder.runs.benching import benchmark
from recorder.runs.compiling import compile_status, issue
from recorder.runs.grafts import probe_site
from recorder.runs.grid import Grid, open_state
from recorder.runs.lifecycle import quarantined
from recorder.runs.plan import RecordPlan
from recorder.runs.training import step_seed, train_step
from recorder.runs.trials import Treatment
from recorder.speech.catalogue import Measured, urza_record
from recorder.speech.clock import Clock
from recorder.speech.safety_sheets import Benchmark, kernel_sheet
from recorder.speech.uplift import Outcome
from recorder.watch.observation import Observation
from recorder.watch.watcher import watch
from schemas.configuration import BLENDING_METHODS
from schemas.leyline import leyline_pb2 as pb
from schemas.splits import CHECK_BUCKET, HELD_OUT_DATA_SET, split_bucket

SHEET_HORIZON = 50
FIRST_SHEET_INDEX = 100_000  # far from every recorded host
_REFERENCE = {Layout.VECTOR: (16, 32), Layout.SEQUENCE: (16, 8, 32), Layout.IMAGE: (16, 32, 8, 8)}


@dataclass(frozen=True)
class Known:
    """Kernels that the exports root already describes: ids of those with a graph, and the risk of those with a sheet."""

    described: frozenset[str]
    risks: Mapping[str, float]


def known_kernels(root: Path) -> Known:
    """Return what earlier recordings under this root said of kernels.

    It is not said again: a newer graph would hide the older one from the packets in between.
    """
    graphs = read_table(root, "urza/blueprint", "urza.blueprint").column("blueprint_id").to_pylist()
    sheets = read_table(root, "urabrask/bsds", "urabrask.bsds").to_pylist()
    risks = {row["blueprint_id"]: row["risk_score"] for row in sheets if row["blueprint_id"] in KERNELS}
    return Known(frozenset(graphs) & frozenset(KERNELS), risks)


def sheet_hosts(plan: RecordPlan, wanted: Collection[str]) -> Iterator[HostSpec]:
    """Yield the first phase's hosts: the first of the plan's kind whose ids fall into training buckets.

    If only spatial kernels are wanted, only hosts whose architecture has sites for them. None is of the held-out data set.
    """
    index, found = FIRST_SHEET_INDEX, 0
    spatial = all(Layout.VECTOR not in KERNELS[kernel].layouts for kernel in wanted)
    seen = [(data, kind) for data, kind in plan.pairs() if data != HELD_OUT_DATA_SET]
    able = [(data, kind) for data, kind in seen if not spatial or has_positions(kind, data)]
    while found < plan.sheet_hosts and wanted and able:
        data, kind = able[index % len(able)]
        spec = draw_host(plan.seed, index, data, kind, stress=found % 3 == 2)
        if split_bucket(spec.blueprint_id) < CHECK_BUCKET:
            found += 1
            yield spec
        index += 1


def measure_outcomes(plan: RecordPlan, spec: HostSpec, wanted: Collection[str]) -> dict[str, list[Outcome]]:
    """Return outcomes of every wanted and fitting kernel at the middle site of one host, one replicate."""
    host = build_host(spec)
    host.model.train()
    for step in range(plan.states[0]):
        seed = step_seed(spec.seed, spec.index, step)
        train_step(host.model, host.optimizer, host.share.train, batch=spec.batch, clip=spec.clip, seed=seed)
    path = host.sites[len(host.sites) // 2]
    site = probe_site(host.model, path, host.share.train.inputs)
    state = open_state(host, plan.states[0], Grid(1, (SHEET_HORIZON,)))
    kernels = [kernel for kernel in fitting(site.layout) if kernel.blueprint_id in wanted]
    treatments = [Treatment(path, site, kernel, spec.blending, spec.alpha_steps) for kernel in kernels]
    outcomes = state.outcomes(treatments, range(1))
    return {kernel.blueprint_id: measured for kernel, measured in zip(kernels, outcomes, strict=True)}


class Reference(nn.Module):
    """A kernel between two linear layers over the channels, in which it can be measured while something trains."""

    def __init__(self, kernel: Kernel, layout: Layout) -> None:
        super().__init__()
        shape = _REFERENCE[layout]
        channels = shape[1] if layout is Layout.IMAGE else shape[-1]
        positions = {Layout.VECTOR: 1, Layout.SEQUENCE: shape[1], Layout.IMAGE: 64}[layout]
        self.enter = nn.Linear(shape[-1], shape[-1])
        self.kernel = kernel.build(Site(layout, channels, positions))
        self.leave = nn.Linear(shape[-1], 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return [..., 4] from the reference inputs."""
        outputs: torch.Tensor = self.leave(self.kernel(self.enter(inputs)))
        return outputs


def _measure(kernel: Kernel, layout: Layout) -> tuple[Measured, Benchmark, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(_REFERENCE[layout])
    model = Reference(kernel, layout)
    targets = torch.randn(model(inputs).shape)
    own = {id(p) for p in model.kernel.parameters()}
    groups = [{"params": [p for p in model.parameters() if id(p) not in own], "name": "reference"}]
    groups += [{"params": list(model.kernel.parameters()), "name": "kernel"}] if own else []
    optimizer = torch.optim.Adam(groups, lr=1e-3)
    looks: list[Observation] = []
    started = time.perf_counter()
    with watch(model, optimizer, every=5, sink=looks.append, detailed=True, follow=False) as seen:
        for _ in range(15):
            optimizer.zero_grad()
            loss = mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            seen.step(loss, len(inputs))
        step_ms = (time.perf_counter() - started) * 1e3 / 15
        if seen.topology is None:
            raise RuntimeError(f"{kernel.blueprint_id}: expected a topology after 15 steps, found none")
        measured = Measured.of(seen, seen.topology, looks[-1], prefix="kernel")
    cost = benchmark(model.kernel, None, model.enter(inputs).detach(), step_ms=step_ms)
    return measured, cost, model.kernel, model.enter(inputs).detach()


def kernel_descriptor(kernel: Kernel, risk: float) -> pb.BlueprintDescriptor:
    """Return a kernel's descriptor as the catalogue declares it.

    Its risk is left to the measured sheet. With the tier, the risk decides whether the kernel may only live in quarantine.
    """
    descriptor = pb.BlueprintDescriptor(
        blueprint_id=kernel.blueprint_id,
        name=kernel.blueprint_id.removeprefix("kernel-"),
        tier=getattr(pb, f"BLUEPRINT_TIER_{kernel.tier}"),
        stage=kernel.stage,
        quarantine_only=quarantined(kernel, risk),
        approval_required=kernel.tier == "HIGH_RISK",
        description=kernel.description,
    )
    for name, (low, high) in kernel.bounds.items():
        descriptor.allowed_parameters[name].CopyFrom(pb.ParameterBounds(min_value=low, max_value=high))
    return descriptor


Runner = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterable[Any]]  # a function's results for many arguments


def run_sequentially(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Run the calls one after another, in this process."""
    return (function(*each) for each in arguments)


def first_phase(plan: RecordPlan, known: Known, run: Runner = run_sequentially) -> Records:
    """Return every kernel's Urza record, compile status and sheet, unless earlier recordings have given them.

    It makes no packets, commands or reports. A kernel that fits no host of this phase gets a BSDSFailed instead of a sheet.
    """
    wanted = [kernel for kernel in KERNELS if kernel not in known.risks]
    found: dict[str, list[Outcome]] = {}
    for outcomes in run(measure_outcomes, [(plan, spec, wanted) for spec in sheet_hosts(plan, wanted)]):
        for kernel_id, measured in outcomes.items():
            found.setdefault(kernel_id, []).extend(measured)
    graphs = {kernel: kernel not in known.described for kernel in KERNELS}
    asked = [(plan, kernel, graphs[kernel], found.get(kernel)) for kernel in KERNELS if graphs[kernel] or kernel in found]
    records: Records = {}
    for described in run(describe_kernel, asked):
        for folder, items in described.items():
            records.setdefault(folder, []).extend(items)
    return records


def describe_kernel(plan: RecordPlan, kernel_id: str, graph: bool, outcomes: list[Outcome] | None) -> Records:
    """Return one kernel's records: its sheet (or why there is none) and, with `graph`, its graph and compile status."""
    kernel, clock, records = KERNELS[kernel_id], Clock(), Records()
    layout = Layout.VECTOR if Layout.VECTOR in kernel.layouts else Layout.SEQUENCE
    measured, cost, module, example = _measure(kernel, layout)
    risk = 0.0
    if outcomes:
        sheet = kernel_sheet(kernel_id, outcomes, cost, issued_at_ns=clock.now())
        risk = sheet.risk_score
        records["urabrask/bsds"] = [sheet]
    else:
        failure = pb.BSDSFailed(blueprint_id=kernel_id, reason="no training host has a site that it fits")
        records["urabrask/bsds_failure"] = [failure]
    if graph:
        record = urza_record(kernel_descriptor(kernel, risk), measured, blending=BLENDING_METHODS, exported_at_ns=clock.now())
        records["urza/blueprint"] = [record]
        update = compile_status(kernel_id, module, example, backend=plan.compile_backend)
        records["tezzeret/kernel"] = [issue(update, clock.now())]
    return records


def risks_of(records: Records) -> dict[str, float]:
    """Return the measured risk score of each kernel that has a sheet."""
    sheets = [record for record in records.get("urabrask/bsds", ()) if isinstance(record, pb.BSDS)]
    return {sheet.blueprint_id: sheet.risk_score for sheet in sheets}
