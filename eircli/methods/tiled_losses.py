"""EIR's losses computed from the network's low-resolution logits, values and gradients in one pass over tiles.

Same values and gradients as `upsample`, then the losses pixel by pixel of `losses`; but no tensor of N·K·H·W numbers exists.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import softplus

from eircli.common.types import BACKGROUND, SoftLabels
from eircli.methods.pixel_mean import PixelMean
from eircli.model.tiles import Tiling, add_rows_backward, interpolate_rows, to_working_dtype

Scalar = Float[Tensor, ""]

PRODUCT_CHUNK = 64
"""How many factors between 1/2 and 1 are multiplied before a logarithm is taken, within the range of float32."""

Pair = Literal["rskd", "decomposed"]
"""Which two losses: those of EIR, or those of the decomposed objective."""


def tiled_losses(
    student: Float[Tensor, "n k h w"],
    targets: SoftLabels,
    teacher: Float[Tensor, "n old h w"] | None = None,
    region: Bool[Tensor, "n height width"] | None = None,
    positive_weight: float | None = None,
    mean: PixelMean | None = None,
    compiled: bool = False,
) -> tuple[Scalar, Scalar]:
    """Summed binary cross-entropy (methods/README.md §3) and region-specific distillation (§5.6) at the size of the targets.

    Args:
        student, teacher: logits at the network's own resolution; without a teacher the distillation is 0.
        region: the pixels that are distilled, with a teacher.
        positive_weight: as in `losses.summed_bce`.
        mean: of the cross-entropy; over all valid pixels of the targets if None.
        compiled: run each tile in a few kernels made by torch.compile, which pays on a GPU.

    Returns:
        The cross-entropy divided by `mean`'s count, and the distillation divided by N·H·W.
    """
    pixels = (targets.channels, targets.weights, targets.valid, region)
    bce, rskd = cast(Any, _TiledLosses).apply(student, teacher, pixels, positive_weight, "rskd", compiled)
    return (mean or PixelMean(targets.valid)).of_sum(bce), rskd / targets.valid.numel()


def tiled_decomposed_losses(
    student: Float[Tensor, "n k h w"],
    targets: SoftLabels,
    teacher: Float[Tensor, "n old h w"],
    region: Bool[Tensor, "n height width"],
    positive_weight: float | None = None,
    mean: PixelMean | None = None,
    compiled: bool = False,
) -> tuple[Scalar, Scalar]:
    """The binary cross-entropy where labels tell, and the imitation of the teacher's sigmoids elsewhere (methods/README.md §9).

    Args:
        student, teacher: logits at the network's own resolution.
        region: the pixels where the old channels imitate the teacher, as far as no label of an old class covers them.
        positive_weight, mean, compiled: as in `tiled_losses`.

    Returns:
        The cross-entropy divided by `mean`'s count, and the imitation divided by N·H·W.
    """
    pixels = (targets.channels, targets.weights, targets.valid, region)
    labelled, imitation = cast(Any, _TiledLosses).apply(student, teacher, pixels, positive_weight, "decomposed", compiled)
    return (mean or PixelMean(targets.valid)).of_sum(labelled), imitation / targets.valid.numel()


class _TiledLosses(torch.autograd.Function):
    """Both losses as sums over pixels; the forward pass also computes their gradients, at the logits' resolution."""

    @staticmethod
    def forward(ctx: FunctionCtx, student: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast(student.device.type, enabled=False):
            sums, gradients = _losses_and_gradients(student, *others)
        ctx.save_for_backward(gradients)
        ctx.dtype = student.dtype  # type: ignore[attr-defined]
        return sums[0], sums[1]

    @staticmethod
    def backward(ctx: FunctionCtx, *of_sums: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors  # type: ignore[attr-defined]
        # Cast once, at the end: in low precision the factors (1 / pixels) would be rounded first.
        both = of_sums[0] * gradients[0] + of_sums[1] * gradients[1]
        return both.to(ctx.dtype), None, None, None, None, None  # type: ignore[attr-defined]


def _losses_and_gradients(
    student: Tensor,
    teacher: Tensor | None,
    pixels: tuple[Tensor, Tensor, Tensor, Tensor | None],
    positive_weight: float | None,
    pair: Pair,
    compiled: bool,
) -> tuple[Tensor, Tensor]:
    """The two sums, [2], and their gradients with respect to the student's logits, [2, N, K, h, w]."""
    channels, weights, valid, region = pixels
    maps = to_working_dtype(student)
    of_tile = TILES[pair]
    tiling = Tiling(student.shape[2:], valid.shape[1:], student.shape[1], maps)
    sums, gradients = maps.new_zeros(2, dtype=torch.float64), maps.new_zeros(2, *maps.shape)
    for n, ours in enumerate(maps):
        wide = tiling.interpolate_columns(ours)
        theirs = None if teacher is None else tiling.interpolate_columns(teacher[n].to(maps.dtype))
        raised = wide.new_zeros(2, *wide.shape)
        for band in tiling.bands:
            rows = band.rows
            labels = Labels(channels[n, :, rows], weights[n, :, rows], valid[n, rows])
            seen = None if theirs is None else interpolate_rows(theirs, band)
            inside = None if region is None else region[n, rows]
            found = of_tile(interpolate_rows(wide, band), labels, seen, inside, positive_weight, compiled)
            for number, (loss, gradient) in enumerate(found):
                sums[number] += loss
                add_rows_backward(gradient, band, raised[number])
        gradients[0, n], gradients[1, n] = tiling.columns_backward(raised[0]), tiling.columns_backward(raised[1])
    return sums.to(maps.dtype), gradients


class Labels(NamedTuple):
    """The sparse soft labels of a tile."""

    channels: UInt8[Tensor, "layers rows w"]
    weights: Float[Tensor, "layers rows w"]
    valid: Bool[Tensor, "rows w"]


TileLoss = tuple[Tensor, Tensor]
"""A loss of a tile: the sum over its pixels, [], and its gradient with respect to the logits [rows, K, W]."""


def _eir_tile(
    logits: Tensor, labels: Labels, teacher: Tensor | None, region: Tensor | None, positive_weight: float | None, compiled: bool
) -> list[TileLoss]:
    losses = [_run(bce_tile, compiled)(logits, *labels, positive_weight)]
    if teacher is not None:
        assert region is not None
        losses.append(_run(rskd_tile, compiled)(logits, teacher, region))
    return losses


def _decomposed_tile(
    logits: Tensor, labels: Labels, teacher: Tensor | None, region: Tensor | None, positive_weight: float | None, compiled: bool
) -> list[TileLoss]:
    assert teacher is not None
    assert region is not None
    pasted, told = shares_of_truth(labels, region, teacher.shape[1] - 1)
    return [
        _run(labelled_tile, compiled)(logits, *labels, told, teacher.shape[1] - 1, positive_weight),
        _run(imitation_tile, compiled)(logits, teacher, region * (1 - pasted)),
    ]


TILES = {"rskd": _eir_tile, "decomposed": _decomposed_tile}


def _run(tile: Callable[..., TileLoss], compiled: bool) -> Callable[..., TileLoss]:
    return compiled_tile(tile) if compiled else tile


@cache
def compiled_tile(tile: Callable[..., TileLoss]) -> Callable[..., TileLoss]:
    """A tile's loss under torch.compile, for tiles of any shape [rows, K, W]; compiled once per process."""
    return torch.compile(tile, dynamic=True)


def bce_tile(logits: Tensor, channels: Tensor, weights: Tensor, valid: Tensor, positive_weight: float | None) -> TileLoss:
    """Binary cross-entropy of a tile: the sum over its pixels, [], and its gradient with respect to the logits.

    Args:
        logits: [rows, K, W].
        channels, weights: sparse soft labels [layers, rows, W].
        valid: bool [rows, W].
    """
    gradient = logits.sigmoid()
    per_pixel = _sum_of_softplus(logits, gradient)
    gradient *= valid.unsqueeze(1)
    positive, index, slope = _positive_terms(logits, channels, weights * valid, positive_weight)
    gradient.scatter_add_(1, index, slope)
    return (per_pixel * valid).sum() + positive, gradient


def shares_of_truth(labels: Labels, region: Tensor, old: int) -> tuple[Tensor, Tensor]:
    """How much of each pixel's soft label is an old class; and how much tells the truth about the old channels. Float [rows, W].

    An old class's label does, and outside the region that is imitated a new class's too.

    Args:
        region: bool [rows, W].
    """
    channels, weights, _ = labels
    is_old = (channels > BACKGROUND) & (channels <= old)
    of_old, of_new = (weights * is_old).sum(dim=0), (weights * (channels > old)).sum(dim=0)
    return of_old, of_old + of_new * ~region


def labelled_tile(
    logits: Tensor, channels: Tensor, weights: Tensor, valid: Tensor, told: Tensor, old: int, positive_weight: float | None
) -> TileLoss:
    """`bce_tile` in which the old channels' terms count only as far as labels tell the truth about them.

    Args:
        logits: [rows, K, W]; channels, weights: [layers, rows, W]; valid: bool [rows, W].
        told: float [rows, W] in 0..1, of `shares_of_truth`.
    """
    gradient = logits.sigmoid()
    per_pixel = told * _sum_of_softplus(logits[:, 1 : 1 + old], gradient[:, 1 : 1 + old])
    for some in (slice(1), slice(1 + old, None)):  # background and new classes
        per_pixel = per_pixel + _sum_of_softplus(logits[:, some], gradient[:, some])
    gradient *= valid.unsqueeze(1)
    gradient[:, 1 : 1 + old] *= told.unsqueeze(1)
    positive, index, slope = _positive_terms(logits, channels, weights * valid, positive_weight)
    gradient.scatter_add_(1, index, slope)
    return (per_pixel * valid).sum() + positive, gradient


def imitation_tile(logits: Tensor, teacher: Tensor, share: Tensor) -> TileLoss:
    """Binary cross-entropy of the old channels against the teacher's sigmoids, weighted pixel by pixel.

    Args:
        logits: [rows, K, W]; teacher: [rows, 1 + old, W]; share: float [rows, W].
    """
    ours, theirs = logits[:, 1 : teacher.shape[1]], teacher[:, 1:].sigmoid()
    probability = ours.sigmoid()
    per_pixel = _sum_of_softplus(ours, probability) - (theirs * ours).sum(dim=1)
    gradient = torch.zeros_like(logits)
    gradient[:, 1 : teacher.shape[1]] = (probability - theirs) * share.unsqueeze(1)
    return (per_pixel * share).sum(), gradient


def _sum_of_softplus(logits: Tensor, sigmoid: Tensor) -> Tensor:
    """Σ_c softplus(z_c) of logits [rows, K, W], given their sigmoids: [rows, W]."""
    # Σ softplus(z) = Σ max(z, 0) - log Π σ(|z|): one logarithm a pixel, exact for logits of any size.
    factors = torch.maximum(sigmoid, 1 - sigmoid)
    total = logits.clamp(min=0).sum(dim=1)
    for some in torch.split(factors, PRODUCT_CHUNK, dim=1):
        total -= some.prod(dim=1).log()
    return total


def _positive_terms(
    logits: Tensor, channels: Tensor, weights: Tensor, positive_weight: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What labels add to Σ softplus(z): the sum over pixels, [], and where to add what to the gradient, [rows, layers, W]."""
    index, weights = channels.transpose(0, 1).long(), weights.transpose(0, 1).to(logits.dtype)
    labelled = logits.gather(1, index)
    p = 1.0 if positive_weight is None else positive_weight
    positive = -p * labelled
    slope = -p * weights
    if positive_weight is not None:
        positive += (p - 1) * softplus(labelled)
        slope += (p - 1) * weights * labelled.sigmoid()
    return (weights * positive).sum(), index, slope


def rskd_tile(logits: Tensor, teacher: Tensor, region: Tensor) -> TileLoss:
    """Unbiased distillation of a tile: the sum over its region's pixels, and its gradient with respect to the logits.

    With q the teacher's softmax, p the student's, and b the student's softmax over background and new classes alone, the
    gradient with respect to an old class's logit is p - q, to background's or a new class's p - q_0·b; all divided by the
    number of the teacher's channels.

    Args:
        logits: [rows, K, W].
        teacher: [rows, 1 + old, W].
        region: bool [rows, W].
    """
    old = teacher.shape[1]
    apart = torch.cat([logits[:, :1], logits[:, old:]], dim=1)  # background and new classes
    normaliser, gradient, total = _exponentials(logits)
    as_background, b, total_b = _exponentials(apart)
    _, q, total_q = _exponentials(teacher)
    agreement = (q[:, 0] * as_background + (q[:, 1:] * logits[:, 1:old]).sum(dim=1)) / total_q - normaliser
    share = region.to(logits.dtype) / old
    gradient *= (share / total).unsqueeze(1)
    q *= (share / total_q).unsqueeze(1)
    b *= (q[:, 0] / total_b).unsqueeze(1)
    gradient[:, 0] -= b[:, 0]
    gradient[:, old:] -= b[:, 1:]
    gradient[:, 1:old] -= q[:, 1:]
    return -(agreement * share).sum(), gradient


def _exponentials(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits [rows, K, W]: log Σ exp over the channels [rows, W]; exp(logits - max) [rows, K, W]; and its sum [rows, W]."""
    top = logits.amax(dim=1, keepdim=True)
    raised = (logits - top).exp_()
    total = raised.sum(dim=1)
    return top.squeeze(1) + total.log(), raised, total
