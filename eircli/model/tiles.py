"""Logits at the images' size, a tile at a time: the whole of them, N·K·H·W numbers, is never materialised.

Bilinear interpolation is linear in each direction: rows are a matrix [H, h] times the map, columns one [W, w]. A tile is a
band of an image's rows with all channels, [rows, K, W], small enough for a processor's cache.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

TILE = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Elements of a tile, about: on a CPU a few tiles fit into a core's cache; on a GPU one tile occupies the device."""


class Band(NamedTuple):
    """A band of output rows, the map rows that it is interpolated from, and their weights."""

    rows: slice
    """Of the images."""
    sources: slice
    """Of the maps."""
    mix: Tensor
    """float [rows, sources]: the share of each map row in each image row."""


class Tiling:
    """How maps of `low` (height, width) become images of `high`, bilinear with `align_corners=False`, in bands of rows.

    Args:
        channels: of the maps; decides how many rows make a band.
        like: a tensor of the device and the floating type to work in.
    """

    def __init__(self, low: Sequence[int], high: Sequence[int], channels: int, like: Tensor) -> None:
        rows, columns = (_interpolation_matrix(small, large, like) for small, large in zip(low, high, strict=True))
        self.columns = columns
        """float [w, W]."""
        self.bands: list[Band] = []
        height = max(1, TILE.get(like.device.type, TILE["cpu"]) // (channels * high[1]))
        for top in range(0, high[0], height):
            bottom = min(top + height, high[0])
            # Computed from sizes on the host: reading indices from the device would synchronise.
            first = int((top + 0.5) * low[0] / high[0] - 0.5)
            last = min(int((bottom - 0.5) * low[0] / high[0] + 0.5), low[0] - 1)
            sources = slice(max(first, 0), last + 1)
            self.bands.append(Band(slice(top, bottom), sources, rows[sources, top:bottom].T.contiguous()))

    def interpolate_columns(self, maps: Tensor) -> Tensor:
        """Maps [K, h, w] → [h, K, W]: their columns at the images' width."""
        return maps.transpose(0, 1) @ self.columns

    def columns_backward(self, wide: Tensor) -> Tensor:
        """The transpose of `interpolate_columns`: gradients [h, K, W] → [K, h, w]."""
        return (wide @ self.columns.T).transpose(0, 1)


def _interpolation_matrix(small: int, large: int, like: Tensor) -> Tensor:
    """float [small, large]: the share of each of `small` points in each of `large`, linearly interpolated."""
    points = torch.eye(small, device=like.device, dtype=like.dtype)
    shares: Tensor = interpolate(points.unsqueeze(0), large, mode="linear", align_corners=False)[0]
    return shares


def interpolate_rows(wide: Tensor, band: Band) -> Tensor:
    """The logits [rows, K, W] of a band, of maps [h, K, W] that are wide already."""
    part = wide[band.sources]
    return (band.mix @ part.flatten(1)).view(len(band.mix), *part.shape[1:])


def add_rows_backward(gradient: Tensor, band: Band, into: Tensor) -> None:
    """The transpose of `interpolate_rows`: add a band's gradient [rows, K, W] to that of the wide maps [h, K, W]."""
    part = into[band.sources]
    part.view(len(part), -1).addmm_(band.mix.T, gradient.flatten(1))


def tiles(logits: Tensor, size: Sequence[int]) -> Iterator[tuple[int, slice, Tensor]]:
    """The tiles of logits [N, K, h, w] at `size`: image, rows, float [rows, K, W]."""
    maps = to_working_dtype(logits)
    tiling = Tiling(logits.shape[2:], size, logits.shape[1], maps)
    for image, one in enumerate(maps):
        wide = tiling.interpolate_columns(one)
        for band in tiling.bands:
            yield image, band.rows, interpolate_rows(wide, band)


def to_working_dtype(logits: Tensor) -> Tensor:
    """Logits of any shape in their working dtype: float64 if they are, else float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


@torch.no_grad()
def best_channels(logits: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The greatest logit of every pixel and the first channel that has it, of logits [N, K, h, w] at `size`.

    Returns:
        float [N, H, W] and uint8 [N, H, W] (int16 of more than 256 channels).
    """
    count, (height, width) = logits.shape[1], size
    small = torch.uint8 if count <= 256 else torch.int16
    best = torch.empty(len(logits), height, width, device=logits.device, dtype=to_working_dtype(logits[:0]).dtype)
    channel = torch.empty(best.shape, device=logits.device, dtype=small)
    # `max` with indices is far slower than `amax`: the first channel that attains the maximum has the greatest of these ranks.
    rank = torch.arange(count - 1, -1, -1, device=logits.device, dtype=small).view(1, -1, 1)
    with torch.autocast(logits.device.type, enabled=False):
        for image, rows, tile in tiles(logits, size):
            top = torch.amax(tile, dim=1, keepdim=True)
            best[image, rows] = top.squeeze(1)
            channel[image, rows] = count - 1 - ((tile == top) * rank).amax(dim=1)
    return best, channel
