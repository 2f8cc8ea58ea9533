"""Compile statuses come from a real `torch.compile`, and say what went wrong where it did."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from recorder.kernels import KERNELS, Layout, Site
from recorder.runs.compiling import USUAL_BACKEND, compile_status
from recorder.runs.firstphase import describe_kernel
from recorder.runs.plan import RecordPlan
from schemas.leyline import leyline_pb2 as pb
from tests.components import program

INPUTS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Branching(nn.Module):
    """Takes its way by what a tensor holds, which no whole graph can."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * 2 if inputs.sum() > 0 else inputs


class Broken(nn.Module):
    """Raises whatever compiles it, or nothing."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ inputs


def test_the_usual_backend_compiles_and_is_named():
    update = compile_status("kernel-x", nn.Linear(8, 8), INPUTS, backend=USUAL_BACKEND)
    assert (update.status, update.artifact_ref) == (pb.COMPILE_STATUS_COMPILED, "torch.compile/aot_eager")
    assert update.compile_ms > update.prewarm_ms > 0


def test_what_cannot_be_compiled_runs_eagerly_and_says_why():
    update = compile_status("kernel-x", Branching(), INPUTS, backend="eager")
    assert update.status == pb.COMPILE_STATUS_EAGER_FALLBACK
    assert update.artifact_ref.startswith("eager (eager: ")
    assert "branch" in update.artifact_ref.lower()
    assert update.prewarm_ms > 0
    assert compile_status("kernel-x", Branching(), INPUTS, backend=USUAL_BACKEND).artifact_ref == "eager"


def test_what_does_not_even_run_eagerly_has_failed():
    update = compile_status("kernel-x", Broken(), INPUTS, backend="eager")
    assert update.status == pb.COMPILE_STATUS_FAILED
    assert update.artifact_ref.startswith("eager (eager: ")
    assert update.prewarm_ms == 0


def test_inductor_without_a_compiler_is_a_fallback_that_names_it(tmp_path):
    import torch._inductor.config as inductor

    with inductor.patch({"force_disable_caches": True, "cpp.cxx": ("no-such-compiler",), "compile_threads": 1}):
        plan = RecordPlan(exports=tmp_path, compile_backend="inductor")
        (update,) = describe_kernel(plan, "kernel-scale", True, None)["tezzeret/kernel"]
    assert update.status == pb.COMPILE_STATUS_EAGER_FALLBACK
    assert update.artifact_ref.startswith("eager (inductor: ")
    assert "no-such-compiler" in update.artifact_ref


def test_inductor_compiles_a_kernel():
    program("g++", purpose="inductor")
    torch.manual_seed(0)
    module = KERNELS["kernel-scale"].build(Site(Layout.VECTOR, 8, 1))
    update = compile_status("kernel-scale", module, INPUTS, backend="inductor")
    assert (update.status, update.artifact_ref) == (pb.COMPILE_STATUS_COMPILED, "torch.compile/inductor")


def test_a_backend_that_torch_does_not_know_is_refused_with_those_it_does(tmp_path):
    with pytest.raises(ValidationError, match=r"found 'tensorflow'; torch knows .*aot_eager,.*inductor"):
        RecordPlan(exports=tmp_path, compile_backend="tensorflow")
