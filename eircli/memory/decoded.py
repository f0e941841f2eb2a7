"""A bank decoded into memory, for pasting."""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from eircli.common.types import Instance, UInt8Array


@runtime_checkable
class InstanceBank(Protocol):
    """A bank whose exemplars can be pasted."""

    @property
    def index(self) -> NDArray[Any]:
        """The table, [exemplars]: a row each, with its `class_id` and `box`."""
        ...

    def load(self, position: int) -> Instance: ...


class Instances(NamedTuple):
    """A bank decoded into memory: the pixels of all instances concatenated, ordered by channel."""

    pixels: UInt8[Tensor, "total 4"]
    """Red, green, blue, and 1 inside the mask; on the device, or in host memory (`decode`). The other fields are on the device."""
    start: Int[Tensor, " count"]
    """Offset of an instance's first pixel; its pixels follow in row-major order."""
    height: Int[Tensor, " count"]
    width: Int[Tensor, " count"]
    first: Int[Tensor, " channels"]
    """The first instance of each channel, background included."""
    instance_count: Int[Tensor, " channels"]
    """How many instances each channel has."""
    nonempty: Int[Tensor, " nonempty"]
    """The channels that have at least one instance."""


def decode(bank: InstanceBank, table: UInt8Array, old: int, device: torch.device, device_bytes: float = math.inf) -> Instances:
    """Decode all instances of a bank, for the channels 0..`old`.

    Args:
        table: uint8 [256], maps class ids to channels.
        device_bytes: the most bytes of device memory for the pixels; if they need more, they stay in host memory.
    """
    channels = table[bank.index["class_id"]]
    order = np.argsort(channels, kind="stable")
    top, left, bottom, right = torch.from_numpy(bank.index["box"][order].astype(np.int64)).unbind(1)
    height, width, area = bottom - top, right - left, (bottom - top) * (right - left)
    start, total = area.cumsum(0) - area, int(area.sum())
    home = device if 4 * total <= device_bytes else torch.device("cpu")
    pixels = torch.empty(total, 4, dtype=torch.uint8, device=home)
    for position, begin, count in zip(order.tolist(), start.tolist(), area.tolist(), strict=True):
        instance = bank.load(position)
        pixels[begin : begin + count] = torch.from_numpy(np.dstack([instance.image, instance.mask])).view(-1, 4)
    instance_count = torch.from_numpy(np.bincount(channels, minlength=old + 1))
    tables = (start, height, width, instance_count.cumsum(0) - instance_count, instance_count, instance_count.nonzero().flatten())
    return Instances(pixels, *(table.to(device) for table in tables))
