"""What is computed tile by tile from low-resolution logits, against the same of logits upsampled whole."""

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from eircli.common.types import SoftLabels
from eircli.methods.losses import rskd, summed_bce
from eircli.methods.pixel_mean import PixelMean
from eircli.methods.tiled_losses import compiled_tile, tiled_decomposed_losses, tiled_losses
from eircli.model import tiles
from eircli.model.deeplab import predict, upsample
from tests import reference

Case = tuple[Tensor, Tensor, SoftLabels, Tensor]

sizes = st.sampled_from([((4, 4), (64, 64)), ((5, 3), (37, 50)), ((7, 9), (7, 9)), ((3, 1), (11, 6)), ((9, 8), (5, 13))])


def case(seed: int, k: int, new: int, pastes: int, size: tuple[tuple[int, int], tuple[int, int]], dtype: torch.dtype) -> Case:
    """Student and teacher logits, soft labels with ignored pixels, and a region."""
    low, high = size
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (5 * torch.randn(2, c, *low, generator=generator, dtype=dtype) for c in (k, k - new))
    channels = torch.randint(k, (2, 1 + pastes, *high), generator=generator, dtype=torch.uint8)
    weights = torch.rand(2, 1 + pastes, *high, generator=generator).softmax(dim=1)
    valid, region = (torch.rand(2, *high, generator=generator) > share for share in (0.1, 0.4))
    return student.requires_grad_(), teacher, SoftLabels(channels, weights, valid), region


def raised(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [N, C, h, w] at a size, in their own floating type."""
    return torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)


def plain(given_case: Case, positive_weight: float | None, count: Tensor | None = None) -> Tensor:
    """The two losses of logits upsampled whole (in their own floating type), [2]."""
    student, teacher, targets, region = given_case
    z, u = (
        torch.nn.functional.interpolate(t, targets.valid.shape[1:], mode="bilinear", align_corners=False)
        for t in (student, teacher)
    )
    bce = PixelMean(targets.valid, count)(summed_bce(z, targets, positive_weight))
    return torch.stack([bce, rskd(z, u, region).mean()])


def tiled(given_case: Case, positive_weight: float | None, count: Tensor | None = None) -> Tensor:
    student, teacher, targets, region = given_case
    return torch.stack(tiled_losses(student, targets, teacher, region, positive_weight, PixelMean(targets.valid, count)))


def gradient(losses: Tensor, student: Tensor) -> Tensor:
    return torch.autograd.grad(losses @ torch.tensor([1.0, 5.0], dtype=losses.dtype), student)[0]


# torch's softplus, which the plain losses use, is linear beyond 20, and so off by up to exp(-20) = 2e-9.
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.sampled_from([2, 3, 21, 151]),
    pastes=st.sampled_from([0, 1, 4]),
    size=sizes,
    weight=st.sampled_from([None, 2.0]),
    rows=st.integers(1, 40),
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_tiled_losses_are_the_plain_ones(
    dtype: torch.dtype,
    tolerance: float,
    seed: int,
    k: int,
    pastes: int,
    size: tuple[tuple[int, int], tuple[int, int]],
    weight: float | None,
    rows: int,
) -> None:
    some = case(seed, k, min(k - 1, 1 + seed % 5), pastes, size, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiles.TILE, "cpu", rows * k * size[1][1])
        found, expected = tiled(some, weight), plain(some, weight)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(gradient(found, some[0]), gradient(expected, some[0]), rtol=tolerance, atol=tolerance)


def test_tiled_losses_divide_by_the_count_they_are_given() -> None:
    some, count = case(1, 4, 2, 1, ((3, 3), (9, 9)), torch.float64), torch.tensor(50.0)
    torch.testing.assert_close(tiled(some, None, count), plain(some, None, count))


def test_tiled_losses_of_logits_of_any_size_are_finite_and_right() -> None:
    student, teacher, targets, region = case(2, 5, 2, 1, ((3, 3), (12, 12)), torch.float32)
    some = (student.detach().mul(200).requires_grad_(), teacher * 200, targets, region)
    torch.testing.assert_close(tiled(some, None), plain(some, None), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient(tiled(some, None), some[0]), gradient(plain(some, None), some[0]), rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), old=st.integers(1, 4), new=st.integers(1, 3), size=sizes, weight=st.sampled_from([None, 2.0]))
def test_decomposed_losses_and_their_gradients(
    seed: int, old: int, new: int, size: tuple[tuple[int, int], tuple[int, int]], weight: float | None
) -> None:
    """The values against loops over pixels; the gradients against finite differences of these."""
    student, teacher, targets, region = case(seed, 1 + old + new, new, 2, size, torch.float64)
    dense = torch.zeros(2, 1 + old + new, *size[1], dtype=torch.float64)
    dense.scatter_add_(1, targets.channels.long(), targets.weights.double())

    def slow(low: Tensor) -> Tensor:
        z, u = (raised(maps, size[1]).numpy() for maps in (low, teacher))
        rest = (dense.numpy(), targets.valid.numpy(), region.numpy(), weight or 1.0)
        return torch.tensor(reference.decomposed(z, u, *rest), dtype=torch.float64)

    found = torch.stack(tiled_decomposed_losses(student, targets, teacher, region, weight))
    torch.testing.assert_close(found.detach(), slow(student.detach()), rtol=1e-6, atol=1e-8)
    generator = torch.Generator().manual_seed(seed)
    step = 1e-4 * torch.randn(student.shape, generator=generator, dtype=torch.float64)
    along = (slow(student.detach() + step) - slow(student.detach() - step)) / 2
    for which in range(2):
        (slope,) = torch.autograd.grad(found[which], student, retain_graph=True)
        torch.testing.assert_close((slope * step).sum(), along[which], rtol=1e-3, atol=1e-9)


def test_decomposed_losses_in_low_precision_and_compiled_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compilation = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: compilation(call, dynamic=dynamic, backend="eager"))
    compiled_tile.cache_clear()
    student, teacher, targets, region = case(8, 6, 2, 2, ((4, 4), (21, 20)), torch.float32)
    expected = torch.stack(tiled_decomposed_losses(student, targets, teacher, region, 2.0))
    compiled = torch.stack(tiled_decomposed_losses(student, targets, teacher, region, 2.0, compiled=True))
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(gradient(compiled, student), gradient(expected, student))
    with torch.autocast("cpu", torch.bfloat16):
        low = torch.stack(tiled_decomposed_losses(student.bfloat16(), targets, teacher.bfloat16(), region, 2.0))
    torch.testing.assert_close(low, expected, rtol=0.02, atol=0)
    compiled_tile.cache_clear()


def test_compiled_tile_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compilation = torch.compile
    # Traced as a compiler would have it, then run as it is: generating code takes a minute.
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: compilation(call, dynamic=dynamic, backend="eager"))
    compiled_tile.cache_clear()
    student, teacher, targets, region = case(6, 7, 3, 2, ((4, 4), (33, 20)), torch.float32)
    for weight in (None, 2.0):
        found = torch.stack(tiled_losses(student, targets, teacher, region, weight, compiled=True))
        expected = tiled((student, teacher, targets, region), weight)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradient(found, student), gradient(expected, student))
    compiled_tile.cache_clear()


def test_nothing_valid_gives_zero_losses_and_gradients() -> None:
    student, teacher, targets, region = case(3, 4, 1, 2, ((3, 3), (8, 8)), torch.float32)
    some = (student, teacher, targets._replace(valid=torch.zeros_like(region)), torch.zeros_like(region))
    assert tiled(some, None).tolist() == [0, 0]
    assert not gradient(tiled(some, None), student).any()


def test_low_precision_logits_give_gradients_of_their_type() -> None:
    student, teacher, targets, region = case(4, 6, 2, 1, ((4, 4), (16, 16)), torch.float32)
    low = student.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        losses = tiled((low, teacher.bfloat16(), targets, region), None)
    expected = plain((low.detach().float().requires_grad_(), teacher.bfloat16().float(), targets, region), None)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
    assert gradient(losses, low).dtype == torch.bfloat16


class _Largest(TorchDispatchMode):
    """Takes note of the largest floating tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.numel = max(self.numel, tensor.numel())
        return made


def test_no_tensor_of_all_channels_at_the_images_size_is_made() -> None:
    some = case(5, 40, 5, 2, ((8, 8), (128, 128)), torch.float32)
    with pytest.MonkeyPatch.context() as patch, cast(Any, _Largest)() as largest:
        patch.setitem(tiles.TILE, "cpu", 8 * 40 * 128)
        gradient(tiled(some, None), some[0])
        predict(some[0], size=(128, 128))
    assert largest.numel < some[0].shape[0] * 40 * 128 * 128 / 8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.sampled_from([2, 21, 151]), size=sizes, rows=st.integers(1, 40))
def test_the_best_channel_of_every_pixel(seed: int, k: int, size: tuple[tuple[int, int], tuple[int, int]], rows: int) -> None:
    student = case(seed, k, 1, 0, size, torch.float64)[0].detach()
    whole = torch.nn.functional.interpolate(student, size[1], mode="bilinear", align_corners=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiles.TILE, "cpu", rows * k * size[1][1])
        best, channel = tiles.best_channels(student, size[1])
    torch.testing.assert_close(best, whole.amax(dim=1))
    assert torch.equal(channel.long(), whole.argmax(dim=1))


def test_of_equal_channels_the_first_is_the_best() -> None:
    assert not tiles.best_channels(torch.zeros(1, 5, 2, 2), (4, 4))[1].any()


def test_predictions_are_those_of_upsampled_logits() -> None:
    student = case(7, 21, 5, 0, ((9, 8), (70, 61)), torch.float32)[0].detach()
    whole = upsample(student, (70, 61))
    best, channel = whole[:, 1:].max(dim=1)
    expected = torch.where(best > 0, channel + 1, 0)
    assert (predict(student, size=(70, 61)) == expected).float().mean() > 0.9999
    assert (predict(student, "softmax", (70, 61)) == whole.argmax(dim=1)).float().mean() > 0.9999
    assert torch.equal(predict(whole), predict(student, size=(70, 61)))
