"""EIR's losses computed from the network's low-resolution logits, values and gradients in one pass over tiles.

Same values and gradients as `upsample`, then `summed_bce` and `rskd` of `losses`; but no tensor of N·K·H·W numbers exists.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import softplus

from eircli.common.types import SoftLabels
from eircli.methods.pixel_mean import PixelMean
from eircli.model.tiles import Tiling, add_rows_backward, interpolate_rows, to_working_dtype

Scalar = Float[Tensor, ""]

PRODUCT_CHUNK = 64
"""How many factors between 1/2 and 1 are multiplied before a logarithm is taken, within the range of float32."""


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
    size = targets.valid.shape[1:]
    pixels = (targets.channels, targets.weights, targets.valid, region)
    bce, rskd = cast(Any, _TiledLosses).apply(student, teacher, pixels, positive_weight, compiled)
    return (mean or PixelMean(targets.valid)).of_sum(bce), rskd / (len(student) * size[0] * size[1])


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
        return both.to(ctx.dtype), None, None, None, None  # type: ignore[attr-defined]


def _losses_and_gradients(
    student: Tensor,
    teacher: Tensor | None,
    pixels: tuple[Tensor, Tensor, Tensor, Tensor | None],
    positive_weight: float | None,
    compiled: bool,
) -> tuple[Tensor, Tensor]:
    """The two sums, [2], and their gradients with respect to the student's logits, [2, N, K, h, w]."""
    channels, weights, valid, region = pixels
    maps = to_working_dtype(student)
    of_bce, of_rskd = compiled_tiles() if compiled else (bce_tile, rskd_tile)
    tiling = Tiling(student.shape[2:], valid.shape[1:], student.shape[1], maps)
    sums, gradients = maps.new_zeros(2, dtype=torch.float64), maps.new_zeros(2, *maps.shape)
    for n, ours in enumerate(maps):
        wide = tiling.interpolate_columns(ours)
        theirs = None if teacher is None else tiling.interpolate_columns(teacher[n].to(maps.dtype))
        raised = wide.new_zeros(2, *wide.shape)
        for band in tiling.bands:
            rows = band.rows
            logits = interpolate_rows(wide, band)
            loss, gradient = of_bce(logits, channels[n, :, rows], weights[n, :, rows], valid[n, rows], positive_weight)
            sums[0] += loss
            add_rows_backward(gradient, band, raised[0])
            if theirs is not None:
                assert region is not None
                loss, gradient = of_rskd(logits, interpolate_rows(theirs, band), region[n, rows])
                sums[1] += loss
                add_rows_backward(gradient, band, raised[1])
        gradients[0, n], gradients[1, n] = tiling.columns_backward(raised[0]), tiling.columns_backward(raised[1])
    return sums.to(maps.dtype), gradients


def bce_tile(
    logits: Tensor, channels: Tensor, weights: Tensor, valid: Tensor, positive_weight: float | None
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of a tile: the sum over its pixels, [], and its gradient with respect to the logits.

    Args:
        logits: [rows, K, W].
        channels, weights: sparse soft labels [layers, rows, W].
        valid: bool [rows, W].
    """
    gradient = logits.sigmoid()
    # Σ softplus(z) = Σ max(z, 0) - log Π σ(|z|): one logarithm a pixel, exact for logits of any size.
    factors = torch.maximum(gradient, 1 - gradient)
    per_pixel = logits.clamp(min=0).sum(dim=1)
    for some in torch.split(factors, PRODUCT_CHUNK, dim=1):
        per_pixel -= some.prod(dim=1).log()
    index, weights = channels.transpose(0, 1).long(), (weights * valid).transpose(0, 1).to(logits.dtype)
    labelled = logits.gather(1, index)
    p = 1.0 if positive_weight is None else positive_weight
    positive = -p * labelled
    slope = -p * weights
    if positive_weight is not None:
        positive += (p - 1) * softplus(labelled)
        slope += (p - 1) * weights * labelled.sigmoid()
    gradient *= valid.unsqueeze(1)
    gradient.scatter_add_(1, index, slope)
    return (per_pixel * valid).sum() + (weights * positive).sum(), gradient


def rskd_tile(logits: Tensor, teacher: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
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


@cache
def compiled_tiles() -> tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., tuple[Tensor, Tensor]]]:
    """`bce_tile` and `rskd_tile` under torch.compile, for tiles of any shape; compiled once per process."""
    return torch.compile(bce_tile, dynamic=True), torch.compile(rskd_tile, dynamic=True)


def _exponentials(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits [rows, K, W]: log Σ exp over the channels [rows, W]; exp(logits - max) [rows, K, W]; and its sum [rows, W]."""
    top = logits.amax(dim=1, keepdim=True)
    raised = (logits - top).exp_()
    total = raised.sum(dim=1)
    return top.squeeze(1) + total.log(), raised, total
