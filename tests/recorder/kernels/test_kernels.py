"""The 32 kernels: order, shapes, identity start, and that gradients reach them."""

import pytest
import torch

from recorder.kernels import KERNELS, Layout, fitting, site_of
from schemas.kernels import KERNELS as ORDER

SHAPES = {Layout.VECTOR: (6, 16), Layout.SEQUENCE: (6, 5, 16), Layout.IMAGE: (6, 16, 4, 4)}
CASES = [(layout, kernel) for layout in Layout for kernel in fitting(layout)]


def test_they_are_the_policys_in_its_order():
    assert tuple(KERNELS) == ORDER


@pytest.mark.parametrize(("layout", "kernel"), CASES, ids=lambda value: getattr(value, "blueprint_id", value))
def test_a_kernel_keeps_the_shape_and_starts_as_the_identity_where_it_says_so(layout, kernel):
    torch.manual_seed(0)
    inputs = torch.randn(SHAPES[layout], requires_grad=True)
    module = kernel.build(site_of(inputs))
    module.train()
    outputs = module(inputs)
    assert outputs.shape == inputs.shape
    if kernel.identity_start:
        assert torch.allclose(outputs, inputs, atol=1e-6)
    (outputs * torch.randn_like(outputs)).sum().backward()
    touched = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters()]
    assert not touched or any(touched)


def test_spatial_kernels_do_not_fit_vectors():
    assert len(fitting(Layout.VECTOR)) == 24
    assert len(fitting(Layout.SEQUENCE)) == len(fitting(Layout.IMAGE)) == 32


def test_noise_and_dropout_are_silent_in_eval_mode():
    inputs = torch.randn(6, 16)
    for name in ("kernel-noise", "kernel-dropout"):
        module = KERNELS[name].build(site_of(inputs)).eval()
        assert torch.equal(module(inputs), inputs)
