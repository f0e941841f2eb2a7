"""Dilated 3×3 convolutions of many channels on the CPU in bfloat16, as nine 1×1 convolutions of shifted maps.

Where both the dilation and the channels are large, as in the ASPP of a ResNet-50 or -101, oneDNN falls back from its GEMM
kernels and takes five to ten times as long. And of an ASPP's outer taps many fall outside the map, which shifted maps leave out.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

MIN_DILATION, MIN_CHANNELS = 3, 1536
"""The least dilation and number of input channels for which taps are computed one by one: where oneDNN was found slow."""


def use_tap_convolutions(model: nn.Module) -> None:
    """Compute the model's wide, strongly dilated 3×3 convolutions tap by tap; the state dict stays the same."""
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (3, 3):
            continue
        if (rate := module.dilation[0]) >= MIN_DILATION and module.in_channels >= MIN_CHANNELS:
            assert (module.dilation, module.padding, module.stride) == ((rate, rate), (rate, rate), (1, 1))
            assert module.bias is None or not module.bias.requires_grad
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(module: nn.Conv2d, maps: Tensor) -> Tensor:
    found: Tensor = cast(Any, TapByTap).apply(maps, module.weight, module.dilation[0])
    return found if module.bias is None else found + module.bias.view(1, -1, 1, 1)


class TapByTap(torch.autograd.Function):
    """A convolution [N, C, H, W], [O, C, 3, 3] → [N, O, H, W] of a given dilation and as much padding."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, rate: int) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.rate = rate
        height, width = maps.shape[2:]
        # Taps are accumulated in float32, as in a convolution kernel.
        centre = conv2d(maps, weight[:, :, 1:2, 1:2])
        total = centre.to(torch.promote_types(centre.dtype, torch.float32))
        for row in range(3):
            for column in range(3):
                down, right = (row - 1) * rate, (column - 1) * rate
                if (row, column) == (1, 1) or abs(down) >= height or abs(right) >= width:
                    continue
                seen = maps[:, :, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
                reached = total[:, :, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
                reached += conv2d(seen, weight[:, :, row : row + 1, column : column + 1])
        return total.to(maps.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        maps, weight = ctx.saved_tensors
        around = [ctx.rate, ctx.rate]
        of_maps, of_weight, _ = torch.ops.aten.convolution_backward(
            gradients[0], maps, weight.to(maps.dtype), None, [1, 1], around, around, False, [0, 0], 1, [True, True, False]
        )
        return of_maps, of_weight.to(weight.dtype), None
