"""`eir init`: a recipe for a folder of images, sized for the machine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution

import yaml

from eircli.config.backbones import BACKBONES, DEFAULT_BACKBONE, PRETRAINED_ON_CPU, SCRATCH_ON_CPU
from eircli.config.manifest import Manifest
from eircli.config.methods import DEFAULT_METHOD
from eircli.data.check.report import DataReport

SMALLEST_CROP = 96
"""The least side of training crops on a GPU that the paper's network makes something of, pixels."""

FITTING = 0.6
"""Images whose short side is at least this share of the paper's crop are cropped as the paper does; VOC's have 0.65 and more, mostly."""

GPU = """\
{method}
model: {{backbone: {backbone}}}           # the paper's; resnet50 and resnet18 are faster
memory: {{budget: {budget}{selection}}}                  # instances of old classes kept, all classes together
train:
  epochs: {epochs}                           # passes over a step's images
  batch_size: {batch}                       # halve it where the GPU's memory does not suffice
"""

LARGE_IMAGES = "method: {{name: {method}}}                  # crops of 512 px, as the paper has them"

SMALL_IMAGES = """\
method: {{name: {method}, slot: {slot}}}        # slot: side of the squares that old instances are pasted into, half the crop
data: {{crop_size: {crop}}}                 # side of the training crops; the smallest image has a short side of {short} px"""

PRETRAINED = """\
method: {{name: {method}, slot: 64}}           # slot: side of the squares that old instances are pasted into, half the crop
data: {{crop_size: 128, short_side: 128, cache: ram}}   # images at a short side of 128 px, to be quick without a GPU
model: {{backbone: {backbone}, aspp_channels: 128, aspp_rates: [2, 4]}}   # pretrained on ImageNet, out of a package
memory: {{budget: {budget}{selection}}}                   # instances of old classes kept, all classes together
train:
  iterations: 100                      # of every later step
  batch_size: 12
  lr: 0.006
  clip_grad_norm: 2.0
  base: {{iterations: 300, lr: 0.01, head_lr_factor: 10, warmup: 0.05}}   # the first step
evaluate: {{batch_size: 10}}
runtime: {{workers: 0}}
"""

SCRATCH = """\
# From scratch; pip install 'eircli[lite0]' and eir init again for a pretrained network, which learns far more from few images.
method: {{name: {method}, slot: 48}}           # slot: side of the squares that old instances are pasted into, half the crop
data: {{crop_size: 96, short_side: 96, cache: ram}}    # images at a short side of 96 px, to be quick without a GPU
model: {{backbone: {backbone}, weights: none, aspp_channels: 48, aspp_rates: [2, 5], batchnorm_momentum: 0.1}}
memory: {{budget: {budget}{selection}}}                  # instances of old classes kept, all classes together
train:
  iterations: 200                      # of every later step
  batch_size: 16
  lr: 0.005
  clip_grad_norm: 2.0
  base: {{iterations: 2500, lr: 0.2, head_lr_factor: 1, warmup: 0.02}}   # the first step
runtime: {{workers: 0}}
"""


def recipe_text(file: str, dataset: Mapping[str, object], report: DataReport, paper: Manifest, gpu: bool) -> str:
    """A recipe, with comments, for a data set that was read: all classes but the last few first.

    Args:
        file: the recipe's own path, for its first line.
        paper: what naming the data set alone means.
    """
    section = yaml.safe_dump(dict(dataset), sort_keys=False, allow_unicode=True)
    names = [f"#   {row.id} {row.name}" for row in report.classes]
    lines = [
        f"# eir run-protocol {file}",
        "#",
        f"# Written by eir init for {report.train.images:,} training and {report.test.images:,} test images, and these classes by id:",
        *names,
        "# What a key means stands in eircli/config/manifest.py; what is not here has the paper's value.",
        "dataset:",
        *(f"  {line}" for line in section.splitlines()),
        f'protocol: {{schedule: "{schedule(len(names))}"}}   # change: classes of the first step, then of each later one; or lists of class ids',
        _settings(report, paper, gpu),
    ]
    return "\n".join(lines)


def schedule(count: int) -> str:
    """All classes but about a fifth first, then these.

    Example:
        >>> schedule(20), schedule(3), schedule(1)
        ('16-4', '2-1', 'joint')
    """
    last = max(count // 5, 1)
    return f"{count - last}-{last}" if count > 1 else "joint"


def _settings(report: DataReport, paper: Manifest, gpu: bool) -> str:
    count = len(report.classes)
    selection = ", selection: instance" if paper.dataset.knows_instances else ""
    if not gpu:
        pretrained = _pretrained_is_installed()
        template, backbone, budget = (PRETRAINED, PRETRAINED_ON_CPU, 60) if pretrained else (SCRATCH, SCRATCH_ON_CPU, 100)
        return template.format(method=DEFAULT_METHOD, backbone=backbone, budget=max(budget, count), selection=selection)
    short = min(report.train.smallest or (paper.data.crop_size, paper.data.crop_size))
    crop = min(paper.data.crop_size, max(SMALLEST_CROP, short // 32 * 32))
    method = LARGE_IMAGES if short >= FITTING * paper.data.crop_size else SMALL_IMAGES
    return GPU.format(
        method=method.format(method=DEFAULT_METHOD, crop=crop, slot=crop // 2, short=short),
        backbone=DEFAULT_BACKBONE,
        budget=max(paper.memory.limit.amount, count),
        selection=selection,
        epochs=f"{paper.train.epochs:g}",
        batch=paper.train.batch_size,
    )


def _pretrained_is_installed() -> bool:
    try:
        return all(distribution(name) is not None for name in (str(BACKBONES[PRETRAINED_ON_CPU].weights), "timm"))
    except PackageNotFoundError:
        return False
