"""DeepLabV3 with one classifier for the background and one per step (methods/README.md §2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.ops import StochasticDepth

from eircli.common.types import BACKGROUND, ParameterGroups
from eircli.model.backbones import build_backbone, normalisation
from eircli.model.optional_layers import drops_paths
from eircli.model.tiles import best_channels

if TYPE_CHECKING:
    from eircli.config.manifest import Model
    from eircli.config.section import Activation


RARE = 0.01
"""The probability, everywhere, of new classes whose classifiers start as `rare` (focal loss, Lin et al. 2017, §4.1)."""


class DeepLab(nn.Module):
    """Images in 0..255 to logits over the background and all classes, in the order learned.

    Args:
        config: the manifest's `model` section.
        classes_per_step: how many classes each step so far has learned.
        load_weights: start the backbone from `config.weights`.
        reserved: how many classes of later steps have their classifiers already.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Model, classes_per_step: Sequence[int], load_weights: bool = False, reserved: int = 0) -> None:
        super().__init__()
        self.config = config
        width = config.aspp_channels
        for name, values in normalisation(config.backbone)._asdict().items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.backbone = build_backbone(config, load_weights)
        aspp = ASPP(self.backbone.channels, list(config.aspp_rates), width)
        for module in aspp.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
        self.head = nn.Sequential(aspp, nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.classifiers = nn.ModuleList(nn.Conv2d(width, n, 1) for n in (1, *classes_per_step))
        self.unknown = nn.Conv2d(width, 1, 1) if config.unknown_class and len(classes_per_step) > 1 else None
        """The classifier of the unknown class (`model.unknown_class`); not part of the logits."""
        self.reserved = nn.Conv2d(width, reserved, 1) if reserved else None
        """The classifiers of classes that later steps learn, in their order; not part of the logits."""
        cast(Any, self).to(memory_format=torch.channels_last)  # the faster layout for convolutions, on CPU and GPU alike

    def stages(self, images: Tensor) -> list[Tensor]:
        """The maps of the backbone's stages, then the head's features.

        uint8 or float [N, 3, H, W] in 0..255 → list of float [N, C_i, h_i, w_i].
        """
        maps: list[Tensor] = self.backbone(((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        return [*maps, self.head(maps[-1])]

    def features(self, images: Tensor) -> Tensor:
        """uint8 or float [N, 3, H, W] in 0..255 → float [N, width, h, w]."""
        return self.stages(images)[-1]

    def classify(self, features: Tensor) -> Tensor:
        """float [N, width, h, w] → logits [N, K, h, w]."""
        background, *foreground = self.classifiers
        before = background(features.detach() if self.config.detach_background else features)
        return torch.cat([before, *(classifier(features) for classifier in foreground)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 or float [N, 3, H, W] in 0..255 → logits [N, K, h, w] at the features' stride; see `upsample`."""
        return self.classify(self.features(images))

    @torch.no_grad()
    def add_classes(self, count: int) -> None:
        """Grow by a classifier for `count` new classes, started as `config.new_classifier` says.

        "similar" needs images, so here it is at random: see `start_from_similar`.
        The logits of the old classes stay as they are; background's too, unless its probability is split: then
        the softmax probabilities of background and new classes are equal and sum to background's before (MiB, eq. 10-11).
        Where classifiers are reserved, the next of them are taken instead.
        """
        background = cast(nn.Conv2d, self.classifiers[0])
        new = nn.Conv2d(background.in_channels, count, 1).to(background.weight.device)
        if self.config.unknown_class and self.unknown is None:
            self.unknown = copy.deepcopy(background)
        if self.config.new_classifier == "rare":
            new.weight.zero_()
            cast(Tensor, new.bias).fill_(math.log(RARE / (1 - RARE)))
        elif self.config.new_classifier not in ("random", "similar"):
            like = self.unknown if self.config.new_classifier == "unknown" and self.unknown is not None else background
            new.weight.copy_(like.weight.expand_as(new.weight))
            cast(Tensor, new.bias).copy_(cast(Tensor, like.bias).expand(count))
        if self.config.new_classifier == "balanced":
            for classifier in (background, new):
                cast(Tensor, classifier.bias).sub_(math.log(1 + count))
        if self.reserved is not None:
            left = self.reserved.out_channels - count
            new, self.reserved = _rows(self.reserved, slice(count)), _rows(self.reserved, slice(count, None)) if left else None
        self.classifiers.append(new)

    def parameter_groups(self) -> ParameterGroups:
        """The parameters of the backbone by depth, of the head with all but the newest classifier, of the newest classifier.

        The unknown class's classifier counts with the newest, and so do those reserved.
        """
        *older, newest = self.classifiers
        head = [*self.head.parameters(), *(p for classifier in older for p in classifier.parameters())]
        beside = [p for classifier in (self.unknown, self.reserved) if classifier is not None for p in classifier.parameters()]
        # Named so, and not a bias or a scale: what remains are norms, biases, and embeddings of positions and tokens.
        matrices = {id(p) for name, p in self.named_parameters() if name.endswith("weight") and p.ndim > 1}
        return ParameterGroups(self.backbone.by_depth(), head, [*newest.parameters(), *beside], matrices)

    def train_mode(self, frozen_batchnorm: bool, dropout: bool) -> None:
        """Training mode, with BatchNorm and dropout in evaluation mode where asked for.

        Args:
            frozen_batchnorm: BatchNorm uses and keeps its running statistics, and its affine parameters do not learn.
            dropout: whether dropout and stochastic depth are on.
        """
        self.train()
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.train(not frozen_batchnorm).requires_grad_(not frozen_batchnorm)
            if not dropout and (isinstance(module, _DropoutNd | StochasticDepth) or drops_paths(module)):
                module.eval()

    def frozen_copy(self) -> DeepLab:
        """A frozen copy in evaluation mode: the teacher of the next step."""
        teacher = copy.deepcopy(self).eval()
        return teacher.requires_grad_(False)


def _rows(classifier: nn.Conv2d, rows: slice) -> nn.Conv2d:
    """A classifier of some of another's channels."""
    weight, bias = classifier.weight[rows], cast(Tensor, classifier.bias)[rows]
    some = nn.Conv2d(classifier.in_channels, len(weight), 1).to(weight.device)
    some.weight.copy_(weight)
    cast(Tensor, some.bias).copy_(bias)
    return some


def upsample(logits: Tensor, size: Iterable[int]) -> Tensor:
    """Logits [N, K, h, w] → float32 [N, K, H, W] of `size` (H, W), bilinear with `align_corners=False`."""
    raised: Tensor = interpolate(logits.float(), tuple(size), mode="bilinear", align_corners=False)
    return raised


def predict(
    logits: Tensor, activation: Activation = "sigmoid", size: Sequence[int] | None = None, least_logit: float = 0.0
) -> Tensor:
    """Logits [N, K, h, w] → predicted channels uint8 [N, H, W], upsampled to `size` (H, W) if it is given.

    sigmoid: the best foreground channel where its logit exceeds `least_logit` (by default its sigmoid 0.5), else background
    (methods/README.md §2); softmax: the best channel.

    Example:
        >>> predict(torch.tensor([9.0, -1.0, 2.0]).view(1, 3, 1, 1))
        tensor([[[2]]], dtype=torch.uint8)
    """
    size = logits.shape[2:] if size is None else size
    if activation == "softmax":
        return best_channels(logits, size)[1]
    best, channel = best_channels(logits[:, 1:], size)
    return torch.where(best > least_logit, channel + 1, BACKGROUND)
