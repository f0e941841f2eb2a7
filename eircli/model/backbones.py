"""Feature extractors: torchvision's ResNets and Swins at output stride 16, and a tiny residual network at stride 4.

Each turns images [N, 3, H, W] into the maps of its stages, the last of them the features.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torch.hub import load_state_dict_from_url
from torch.nn.functional import interpolate

from eircli.common.errors import UserError
from eircli.config.manifest import Model
from eircli.model.safe_loading import read_tensors

IMAGENET = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url,
    "resnet101": torchvision.models.ResNet101_Weights.IMAGENET1K_V1.url,
    "swin_t": torchvision.models.Swin_T_Weights.IMAGENET1K_V1.url,
    "swin_s": torchvision.models.Swin_S_Weights.IMAGENET1K_V1.url,
    "swin_b": torchvision.models.Swin_B_Weights.IMAGENET1K_V1.url,
}
"""Where torchvision keeps the weights; the file's name holds its hash, which is checked."""


def build_backbone(config: Model, load_weights: bool) -> tuple[nn.Module, int]:
    """The backbone of a manifest and the channels of its features.

    Args:
        load_weights: start from `config.weights`; False leaves them random, for a checkpoint to fill.

    Raises:
        UserError: weights that cannot be fetched, read, or do not fit.
    """
    if config.backbone == "tiny":
        backbone: nn.Module = TinyBackbone()
        channels = TinyBackbone.channels
    elif config.backbone.startswith("swin"):
        swin = getattr(torchvision.models, config.backbone)(weights=None)
        channels = swin.head.in_features
        backbone = SwinFeatures(swin)
    else:
        resnet = getattr(torchvision.models, config.backbone)(weights=None)
        channels = resnet.fc.in_features
        resnet.fc = nn.Identity()
        dilate(resnet.layer4)
        backbone = ResNetFeatures(resnet)
    if load_weights and config.weights != "none":
        _load(backbone, _weights(config), config)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = config.batchnorm_momentum
    return backbone, channels


class ResNetFeatures(nn.Module):
    """A ResNet without pooling and classifier; its last stage has C channels at H/16 × W/16."""

    prefix, classifier = "layers.", "fc."

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for name, child in resnet.named_children():
            if name not in ("avgpool", "fc"):
                self.layers.add_module(name, child)

    def forward(self, images: Tensor) -> list[Tensor]:
        stages = []
        for name, layer in self.layers.named_children():
            images = layer(images)
            if name.startswith("layer"):
                stages.append(images)
        return stages


class SwinFeatures(nn.Module):
    """A Swin transformer without pooling and classifier; its last stage, at stride 32, is upsampled to H/16 × W/16."""

    prefix, classifier = "", "head."

    def __init__(self, swin: nn.Module) -> None:
        super().__init__()
        self.features, self.norm = cast(nn.Sequential, swin.features), cast(nn.Module, swin.norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        stages, maps = [], images
        for number, layer in enumerate(self.features):
            maps = layer(maps)
            if number % 2:  # between the stages' blocks stand patch embedding and merging
                stages.append(maps.permute(0, 3, 1, 2))
        last = self.norm(maps).permute(0, 3, 1, 2)
        return [*stages[:-1], interpolate(last, stages[-2].shape[2:], mode="bilinear", align_corners=False)]


def dilate(stage: nn.Sequential) -> None:
    """Take the stride out of a ResNet's stage: its blocks after the first see as far through dilation 2."""
    for number, block in enumerate(stage):
        for convolution in (m for m in block.modules() if isinstance(m, nn.Conv2d)):
            convolution.stride = (1, 1)
            if convolution.kernel_size == (3, 3) and number > 0:
                convolution.dilation = convolution.padding = (2, 2)


class TinyBackbone(nn.Module):
    """A small residual network for small images; its last stage has 64 channels at H/4 × W/4, dilated."""

    channels = 64

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_bn_relu(3, 24, stride=2)
        self.stages = nn.Sequential(
            ResidualBlock(24, 24), ResidualBlock(24, 48, stride=2), ResidualBlock(48, 48), ResidualBlock(48, 64, dilation=2)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, stages = self.stem(images), []
        for stage in self.stages:
            maps = stage(maps)
            stages.append(maps)
        return stages


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv_bn_relu(channels_in, channels, stride, dilation),
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels),
        )
        same = stride == 1 and channels_in == channels
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.body(features) + self.shortcut(features))


def _conv_bn_relu(channels_in: int, channels: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def _weights(config: Model) -> dict[str, Tensor]:
    if config.weights == "imagenet":
        if config.backbone not in IMAGENET:
            raise UserError(
                f"model.weights: there are no ImageNet weights of {config.backbone}; set model.weights to none or a file"
            )
        try:
            return cast(
                dict[str, Tensor], load_state_dict_from_url(IMAGENET[config.backbone], check_hash=True, weights_only=True)
            )
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"model.weights: could not fetch the ImageNet weights of {config.backbone} ({error}); connect, or give a state-dict file, or none"
            ) from None
    path = Path(config.weights)
    if not path.is_file():
        raise UserError(f"model.weights: {path} is no file; give imagenet, none, or a state-dict file")
    return {name.removeprefix("backbone."): tensor for name, tensor in read_tensors(path).tensors.items()}


def _load(backbone: nn.Module, state: dict[str, Tensor], config: Model) -> None:
    if isinstance(backbone, ResNetFeatures | SwinFeatures):
        foreign = (backbone.classifier, "classifier.", "aux_classifier.", "aspp.", "cls.")
        state = {f"{backbone.prefix}{key}": value for key, value in state.items() if not key.startswith(foreign)}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model.weights: {config.weights} does not fit {config.backbone}: {reason}") from None
