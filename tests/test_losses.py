"""The losses against loops over pixels in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eircli.common.types import SoftLabels
from eircli.methods.losses import rskd, summed_bce
from eircli.methods.pixel_mean import PixelMean
from tests import reference


def soft_labels(n: int, k: int, layers: int, generator: torch.Generator) -> tuple[SoftLabels, np.ndarray]:
    """Sparse soft labels, channels repeating among layers, and the same dense."""
    channels = torch.randint(k, (n, layers, 5, 4), generator=generator, dtype=torch.uint8)
    weights = torch.rand(n, layers, 5, 4, generator=generator).softmax(dim=1)
    valid = torch.rand(n, 5, 4, generator=generator) > 0.3
    dense = torch.zeros(n, k, 5, 4).scatter_add_(1, channels.long(), weights)
    return SoftLabels(channels, weights, valid), dense.double().numpy()


def logits(*shape: int, generator: torch.Generator) -> Tensor:
    return 4 * torch.randn(*shape, generator=generator)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(2, 7), layers=st.integers(1, 5), weight=st.sampled_from([None, 0.5, 2.0]))
def test_summed_bce(seed: int, k: int, layers: int, weight: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets, dense = soft_labels(2, k, layers, generator)
    z = logits(2, k, 5, 4, generator=generator)
    expected = reference.summed_bce(z.double().numpy(), dense, targets.valid.numpy(), weight or 1.0)
    assert float(PixelMean(targets.valid)(summed_bce(z, targets, weight))) == pytest.approx(expected, rel=1e-5)


def test_summed_bce_without_a_valid_pixel_is_zero_and_has_a_gradient() -> None:
    z = torch.randn(1, 3, 2, 2, requires_grad=True)
    nothing = SoftLabels(
        torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool)
    )
    loss = PixelMean(nothing.valid)(summed_bce(z, nothing))
    torch.autograd.backward(loss)
    assert loss == 0
    assert z.grad is not None
    assert not z.grad.any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), old=st.integers(1, 5), new=st.integers(1, 4))
def test_rskd(seed: int, old: int, new: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student = logits(2, 1 + old + new, 3, 4, generator=generator)
    teacher = logits(2, 1 + old, 3, 4, generator=generator)
    region = torch.rand(2, 3, 4, generator=generator) > 0.4
    expected = reference.rskd(student.double().numpy(), teacher.double().numpy(), region.numpy())
    assert float(rskd(student, teacher, region).mean()) == pytest.approx(expected, rel=1e-5)


def test_rskd_does_not_ask_new_classes_to_be_background() -> None:
    """What the student moves from background to a new class costs nothing: to the teacher both are background."""
    teacher = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    region = torch.ones(1, 1, 1, dtype=torch.bool)
    background = torch.tensor([2.0, 0.0, -20.0]).view(1, 3, 1, 1)
    new = torch.tensor([-20.0, 0.0, 2.0]).view(1, 3, 1, 1)
    assert float(rskd(background, teacher, region)) == pytest.approx(float(rskd(new, teacher, region)), abs=1e-6)


def test_rskd_outside_its_region_has_no_gradient() -> None:
    student = torch.randn(1, 4, 2, 2, requires_grad=True)
    region = torch.tensor([[[True, False], [False, False]]])
    torch.autograd.backward(rskd(student, torch.randn(1, 3, 2, 2), region).mean())
    assert student.grad is not None
    assert student.grad[..., 0, 0].any()
    assert not student.grad[..., 1, :].any()
