"""Networks made cheaper compute what they computed before."""

import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import conv2d

from eircli.config.backbones import BACKBONES
from eircli.config.manifest import Model
from eircli.model import tap_convolution
from eircli.model.acceleration import _keeping_statistics, checkpoint_activations, compile_model, fold_batchnorm, lower_weights
from eircli.model.deeplab import DeepLab
from eircli.model.tap_convolution import TapByTap, use_tap_convolutions

SMALL = {"weights": "none", "aspp_channels": 16, "aspp_rates": (1, 2)}


def network(backbone: str) -> DeepLab:
    """A network whose BatchNorms have learned something."""
    torch.manual_seed(0)
    model = DeepLab(Model.model_validate({"backbone": backbone, **SMALL}), [3])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
    return model


def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def photographs(folder: Path) -> Tensor:
    """uint8 [2, 3, 96, 96]: two photographs."""
    files = sorted((folder / "voc-mini").rglob("*.jpg"))[:2]
    pictures = [np.array(Image.open(file).convert("RGB").resize((96, 96))) for file in files]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_folding_takes_every_batchnorm_and_changes_nothing(backbone: str, real_images: Path) -> None:
    """Of teachers of every backbone, on photographs."""
    model, shown = network(backbone).eval(), photographs(real_images)
    folded = copy.deepcopy(model)
    fold_batchnorm(folded, shown)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        found, expected = folded.double()(shown), model.double()(shown)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


class ActivatedBatchNorm(nn.BatchNorm2d):
    """BatchNorm that holds its activation, as in some libraries."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu(super().forward(input))


class OwnConvolution(nn.Conv2d):
    """A convolution that does more than one."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).abs()


@pytest.mark.parametrize("pair", [(nn.Conv2d, ActivatedBatchNorm), (OwnConvolution, nn.BatchNorm2d)])
def test_layers_that_do_more_than_torchs_own_are_left_alone(pair: tuple[type[nn.Conv2d], type[nn.BatchNorm2d]]) -> None:
    torch.manual_seed(0)
    convolution, norm = pair
    block = nn.Sequential(convolution(3, 4, 3), norm(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    folded, maps = copy.deepcopy(block), torch.randn(2, 3, 9, 9)
    fold_batchnorm(folded, maps)
    assert [type(m) for m in folded] == [convolution, norm, nn.Conv2d, nn.Identity]
    torch.testing.assert_close(folded(maps), block(maps), rtol=1e-4, atol=1e-5)


class Crossed(nn.Module):
    """Layers that run in another order than they stand in: the norm, then the convolution before it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.as_tensor(self.convolution(self.norm(maps)))


def test_a_norm_that_runs_before_its_neighbour_is_left_alone() -> None:
    torch.manual_seed(0)
    block, maps = Crossed().eval(), torch.randn(2, 3, 9, 9)
    nn.init.uniform_(block.norm.weight, 2, 3)
    folded = copy.deepcopy(block)
    fold_batchnorm(folded, maps)
    assert type(folded.norm) is nn.BatchNorm2d
    torch.testing.assert_close(folded(maps), block(maps))


@pytest.mark.parametrize("backbone", ["tiny", "swin_t"])
def test_low_weights_are_those_that_autocast_would_use(backbone: str) -> None:
    model = network(backbone).eval()
    low = copy.deepcopy(model)
    lower_weights(low, torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(low(images()), model(images()))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_recomputed_activations_give_the_same_gradients_and_statistics(backbone: str) -> None:
    whole, lean = network(backbone), network(backbone)
    checkpoint_activations(lean)
    for model in (whole, lean):
        model.train_mode(frozen_batchnorm=False, dropout=True)
        torch.manual_seed(1)
        model(images()).square().mean().backward()
    assert whole.state_dict().keys() == lean.state_dict().keys()
    for name, values in whole.state_dict().items():
        assert torch.equal(values, lean.state_dict()[name]), name
    for (name, one), other in zip(whole.named_parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_recomputing_keeps_less_for_the_backward_pass() -> None:
    def kept(model: DeepLab) -> int:
        sizes = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model.train_mode(frozen_batchnorm=True, dropout=False)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _ = model(images())
        return sum(sizes.values()) - sum(p.untyped_storage().nbytes() for p in model.parameters())

    whole, lean = network("resnet18"), network("resnet18")
    checkpoint_activations(lean)
    assert kept(lean) < kept(whole) / 2


@pytest.mark.parametrize("rate", [6, 9, 18])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 1e-2)])
def test_a_convolution_tap_by_tap_is_the_convolution(rate: int, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(rate)
    maps = torch.randn(2, 5, 11, 14, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(4, 5, 3, 3, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    found, expected = cast(Any, TapByTap).apply(maps, weight, rate), conv2d(maps, weight, padding=rate, dilation=rate)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=5 * tolerance)
    gradient = torch.randn(expected.shape, generator=generator, dtype=torch.float64).to(dtype)
    pairs = zip(*(torch.autograd.grad(out, (maps, weight), gradient) for out in (found, expected)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=5 * tolerance)


def test_a_network_taken_apart_computes_the_same_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_convolution, "MIN_CHANNELS", 1)
    wide = Model.model_validate({"backbone": "tiny", **SMALL, "aspp_rates": (6, 12)})
    torch.manual_seed(0)
    model = DeepLab(wide, [3])
    model.train_mode(frozen_batchnorm=True, dropout=False)
    model.requires_grad_(True)
    apart = copy.deepcopy(model)
    use_tap_convolutions(apart)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = apart(images()), model(images())
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    for out in (found, expected):
        out.float().square().sum().backward()
    for (name, one), other in zip(apart.named_parameters(), model.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None
        assert one.grad.dtype == torch.float32
        assert (one.grad - other.grad).norm() <= 0.05 * other.grad.norm() + 1e-6, name


def test_a_compiled_network_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compilation = torch.compile
    # Traced as a compiler would have it, then run as it is: generating code takes a minute.
    monkeypatch.setattr(torch, "compile", lambda call, mode: compilation(call, backend="eager"))
    model = network("tiny").eval()
    compiled = copy.deepcopy(model)
    compile_model(compiled, "default")
    assert model.state_dict().keys() == compiled.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()))


def test_recomputing_keeps_the_statistics_of_synchronized_batchnorm_too() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4))
    with _keeping_statistics(block):
        assert block[1].momentum == 0
    assert block[1].momentum == 0.1
