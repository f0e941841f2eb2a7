"""The network: growing, prediction, output strides, weights."""

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from eircli.errors import UserError
from eircli.manifest import Model
from eircli.model.backbones import IMAGENET, build_backbone
from eircli.model.deeplab import DeepLab, predict, upsample

TINY = Model(backbone="tiny", weights="none", aspp_channels=16, aspp_rates=(1, 2))


def images(side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("start", ["background", "random"])
def test_growing_leaves_old_logits_as_they_are(start: str) -> None:
    torch.manual_seed(0)
    model = DeepLab(TINY.model_copy(update={"new_classifier": start}), [3]).eval()
    before = model(images())
    model.add_classes(2)
    after = model(images())
    assert after.shape[1] == 6
    assert torch.equal(after[:, :4], before)
    same = torch.allclose(after[:, 4:], before[:, :1].expand(-1, 2, -1, -1), atol=1e-6)
    assert same == (start == "background")
    again = DeepLab(TINY, [3, 2]).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images()), after)


def test_the_background_does_not_shape_the_features() -> None:
    for detach in (True, False):
        model = DeepLab(TINY.model_copy(update={"detach_background": detach}), [2])
        model(images())[:, 0].sum().backward()
        gradient = next(model.backbone.parameters()).grad
        assert gradient is not None
        assert bool(gradient.any()) is not detach


@pytest.mark.parametrize(("name", "stride"), [("tiny", 4), ("resnet18", 16), ("resnet50", 16)])
def test_output_stride(name: str, stride: int) -> None:
    backbone, channels = build_backbone(TINY.model_copy(update={"backbone": name}), load_weights=False)
    assert backbone.eval()(torch.rand(1, 3, 64, 96))[-1].shape == (1, channels, 64 // stride, 96 // stride)


def test_dilation_is_torchvisions() -> None:
    ours, _ = build_backbone(Model(backbone="resnet50"), load_weights=False)
    theirs = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
    mine = [m for m in ours.modules() if isinstance(m, nn.Conv2d)]
    wanted = [m for m in theirs.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.stride, m.dilation, m.padding) for m in mine] == [(m.stride, m.dilation, m.padding) for m in wanted]


def test_tiny_is_tiny() -> None:
    model = DeepLab(Model(backbone="tiny", weights="none", aspp_channels=48, aspp_rates=(2, 5)), [6, 2, 2])
    assert 230_000 < sum(p.numel() for p in model.parameters()) < 270_000


def test_weights_from_a_file(tmp_path: Path) -> None:
    resnet = torchvision.models.resnet18(weights=None)
    torch.save(resnet.state_dict(), tmp_path / "r18.pt")
    config = Model(backbone="resnet18", weights=str(tmp_path / "r18.pt"))
    backbone, _ = build_backbone(config, load_weights=True)
    assert torch.equal(next(backbone.parameters()), resnet.conv1.weight)
    with pytest.raises(UserError, match=r"r18\.pt does not fit resnet50"):
        build_backbone(config.model_copy(update={"backbone": "resnet50"}), load_weights=True)
    with pytest.raises(UserError, match=r"model\.weights: nothing\.pt is no file"):
        build_backbone(Model(backbone="resnet18", weights="nothing.pt"), load_weights=True)
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"bad\.pt is no state dict"):
        build_backbone(Model(backbone="resnet18", weights=str(tmp_path / "bad.pt")), load_weights=True)
    with pytest.raises(UserError, match="no ImageNet weights of tiny"):
        build_backbone(Model(backbone="tiny"), load_weights=True)


def test_imagenet_weights_are_fetched_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real download, from a server of our own."""
    resnet = torchvision.models.resnet18(weights=None)
    torch.save(resnet.state_dict(), tmp_path / "weights")
    digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()[:8]
    right, wrong = f"resnet18-{digest}.pth", "resnet18-00000000.pth"
    for name in (right, wrong):
        (tmp_path / name).write_bytes((tmp_path / "weights").read_bytes())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    config = Model(backbone="resnet18")
    try:
        monkeypatch.setitem(IMAGENET, "resnet18", f"{base}/{right}")
        backbone, _ = build_backbone(config, load_weights=True)
        assert torch.equal(next(backbone.parameters()), resnet.conv1.weight)
        for bad in (f"{base}/{wrong}", f"{base}/missing-{digest}.pth"):
            monkeypatch.setitem(IMAGENET, "resnet18", bad)
            with pytest.raises(UserError, match="could not fetch the ImageNet weights of resnet18"):
                build_backbone(config, load_weights=True)
    finally:
        server.shutdown()
        server.server_close()


def test_prediction_is_the_best_class_above_one_half_else_background() -> None:
    logits = torch.tensor([[9.0, -1.0, -2.0], [-9.0, 0.1, 0.2], [9.0, 0.3, -5.0], [-9.0, -0.1, -0.2]]).T.view(1, 3, 2, 2)
    assert predict(logits).flatten().tolist() == [0, 2, 1, 0]


def test_upsampling_is_bilinear_in_float32() -> None:
    low = torch.rand(1, 2, 4, 5).bfloat16()
    high = upsample(low, (8, 11))
    assert high.dtype == torch.float32
    expected = torch.nn.functional.interpolate(low.float(), (8, 11), mode="bilinear", align_corners=False)
    assert torch.equal(high, expected)


def test_training_mode() -> None:
    model = DeepLab(TINY, [2])
    model.train_mode(frozen_batchnorm=True, dropout=False)
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert torch.equal(model(images()), model(images()))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model.train_mode(frozen_batchnorm=False, dropout=True)
    model(images())
    assert any(not torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_parameter_groups_hold_every_parameter_once() -> None:
    model = DeepLab(TINY, [2, 1])
    groups = [parameter for group in model.parameter_groups() for parameter in group]
    assert len(groups) == len({id(p) for p in groups}) == len(list(model.parameters()))
    assert {id(p) for p in model.parameter_groups()[2]} == {id(p) for p in model.classifiers[-1].parameters()}


def test_teacher_is_frozen() -> None:
    model = DeepLab(TINY, [2])
    teacher = model.frozen_copy()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not teacher.training
