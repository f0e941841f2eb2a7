"""A batch against its parts, as processes and micro-batches take them: draws, losses and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from eircli.common.types import IGNORE, Batch
from eircli.config import manifest
from eircli.config.methods import method_settings
from eircli.config.recipe import resolve
from eircli.config.section import MethodSettings
from eircli.memory.decoded import Instances
from eircli.methods import METHODS, build_method
from eircli.methods.base import Context
from eircli.model.deeplab import DeepLab

OLD, NEW = 2, 1
NETWORK = manifest.Model(backbone="tiny", weights="none", aspp_channels=8, aspp_rates=(1,), unknown_class=True)
IN_PARTS = [name for name in METHODS if (settings := method_settings(name)) and settings.in_parts]
CONFIGS: dict[str, dict[str, Any]] = {
    "eir": {"slot": 8, "threshold": 0.0},
    "eir-plus": {"slot": 8, "threshold": 0.0},
    "eir, decomposed": {"name": "eir", "slot": 8, "threshold": 0.0, "distill": {"loss": "decomposed"}, "paste_over_new": False},
    "image-replay": {"missing": "ignore", "distill": {"weight": 5.0}},
    "image-replay, decomposed": {"name": "image-replay", "missing": "ignore", "distill": {"loss": "decomposed"}},
}
for how in ("ignore", "pseudo-labels"):
    CONFIGS[f"eir, surroundings {how}"] = {"name": "eir", "slot": 8, "threshold": 0.45, "surroundings": how}
VARIANTS = [*IN_PARTS, *(name for name in CONFIGS if name not in METHODS)]


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (4, 8, 8), dtype=torch.uint8, generator=generator)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    for image, rows in enumerate((0, 4, 30, 12)):  # images differ in how much of them counts
        labels[image, :rows] = IGNORE
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Batch(images, labels, seed=7, replayed=torch.tensor([False, True, False, True]))


def instances() -> Instances:
    generator = torch.Generator().manual_seed(0)
    side, number = torch.tensor([5, 7, 4]), torch.tensor([0, 1, 2])
    ends = (side * side).cumsum(0)
    pixels = torch.randint(0, 256, (int(ends[-1]), 4), dtype=torch.uint8, generator=generator)
    pixels[:, 3] = 1
    return Instances(
        pixels, ends - side * side, side, side, torch.tensor([0, 0, 1]), torch.minimum(number, number * 9), torch.tensor([1, 2])
    )


def parts_of(whole: Batch, counted: Callable[[Batch], torch.Tensor]) -> list[Batch]:
    mean = counted(whole).sum() / 2
    return [whole.cut(slice(first, first + 2)).with_(part=(first, 4), pixel_count=mean) for first in (0, 2)]


def prepared_method(name: str) -> tuple[Any, DeepLab]:
    torch.manual_seed(0)
    model = DeepLab(NETWORK, [OLD])
    teacher = model.frozen_copy()
    model.add_classes(NEW)
    config: MethodSettings = resolve(
        {
            "name": "x",
            "dataset": {"kind": "shapes", "size": 32},
            "data": {"crop_size": 32},
            "protocol": {"schedule": "joint"},
            "method": {"name": name, **CONFIGS.get(name, {})},
        },
        ("model.unknown_class=true",),
    ).method
    method = build_method(config, Context(OLD, NEW, teacher, instances()))  # type: ignore[arg-type]
    method.begin(model, lambda: [batch()])
    model.train_mode(frozen_batchnorm=True, dropout=False)
    return method, model


@pytest.mark.parametrize("name", VARIANTS)
def test_the_mean_of_the_parts_is_the_whole(name: str) -> None:
    """Every method's losses and gradients, with different numbers of ignored pixels in the parts."""
    method, model = prepared_method(name)
    whole = method.losses(model, method.prepare(batch()))
    sum(whole.values()).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = [method.losses(model, method.prepare(part)) for part in parts_of(batch(), method.counted_pixels)]
    sum(loss / 2 for losses in found for loss in losses.values()).backward()
    for key in whole:
        torch.testing.assert_close((found[0][key] + found[1][key]) / 2, whole[key], rtol=1e-5, atol=1e-6)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-3, atol=1e-4 * float(expected[key].abs().max()) + 1e-7)


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.endswith("pseudo-labels")])
def test_what_is_counted_is_known_before_a_batch_is_prepared(name: str) -> None:
    method, _ = prepared_method(name)
    prepared = method.prepare(batch())
    valid = prepared.labels != IGNORE if prepared.targets is None else prepared.targets.valid
    assert torch.equal(method.counted_pixels(batch()), valid)


def test_parts_of_a_batch_are_fused_like_the_whole() -> None:
    method, _ = prepared_method("eir")
    whole = method.prepare(batch())
    parts = [method.prepare(part) for part in parts_of(batch(), method.counted_pixels)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    for field in range(3):
        assert torch.equal(torch.cat([part.targets[field] for part in parts]), whole.targets[field])
    assert not torch.equal(whole.images[2:], method.prepare(batch().cut(slice(2, 4))).images)
