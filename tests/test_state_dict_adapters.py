"""Other programs' checkpoints: adapted, checked, and the same network afterwards."""

import json
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from eircli.cli.app import main
from eircli.common.errors import UserError
from eircli.config.manifest import Model
from eircli.model.deeplab import DeepLab
from eircli.model.safe_loading import load_tensors
from eircli.model.state_dict_adapters import adapt, load_checked, split_classes

RESNET = Model(backbone="resnet50", weights="none")


def dkd_names(model: DeepLab) -> dict[str, Tensor]:
    """A network's state in the naming of the DKD and EIR releases."""
    named = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in (
            ("backbone.layers.", "backbone."),
            ("head.0.", "aspp."),
            ("head.1.", "aspp.last_conv.0."),
            ("head.2.", "aspp.last_conv.1."),
            ("classifiers.", "cls."),
        ):
            if name.startswith(ours):
                named[f"module.{theirs}{name.removeprefix(ours)}"] = tensor
    assert len(named) == len(model.state_dict())
    return named


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    )
    path = tmp_path_factory.mktemp("tv") / "deeplab.pth"
    torch.save(theirs.state_dict(), path)
    return path


def test_torchvisions_deeplab_sees_the_same_after_it_is_imported(torchvision_file: Path) -> None:
    """At torchvision's own stride the two networks are one; so they are here once ours dilates alike."""
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    )
    theirs.load_state_dict(torch.load(torchvision_file, weights_only=True))
    steps = [(3, 1), (20,)]
    adapted = adapt(torchvision_file, load_tensors(torchvision_file).tensors, DeepLab(RESNET, [1]))
    assert adapted.naming == "torchvision"
    assert all(name.startswith("aux_classifier.") for name in adapted.left_out)
    model = DeepLab(RESNET, [2, 1]).eval()
    load_checked(torchvision_file, model, split_classes(torchvision_file, adapted.state, steps))
    features = torch.rand(1, 2048, 9, 9)
    wanted = theirs.eval().classifier(features)
    for ours, his in zip(model.head[0].modules(), theirs.classifier[0].modules(), strict=True):
        if isinstance(ours, torch.nn.Conv2d):
            ours.dilation, ours.padding = his.dilation, his.padding
    found = model.classify(model.head(features))
    torch.testing.assert_close(found, wanted[:, [0, 3, 1, 20]])
    image = torch.rand(1, 3, 32, 32)
    stem = theirs.backbone.layer1(
        theirs.backbone.maxpool(theirs.backbone.relu(theirs.backbone.bn1(theirs.backbone.conv1(image))))
    )
    torch.testing.assert_close(model.backbone(image)[0], stem)


def test_the_naming_of_dkd_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DeepLab(RESNET, [15, 5]).eval()
    torch.save({"state_dict": dkd_names(model), "epoch": 60}, tmp_path / "dkd.pth")
    adapted = adapt(tmp_path / "dkd.pth", load_tensors(tmp_path / "dkd.pth").tensors, model)
    assert adapted.naming == "DKD / EIR"
    assert not adapted.left_out
    torch.manual_seed(1)
    other = DeepLab(RESNET, [15, 5]).eval()
    load_checked(tmp_path / "dkd.pth", other, adapted.state)
    image = 255 * torch.rand(1, 3, 32, 32)
    assert torch.equal(other(image), model(image))


def test_what_does_not_fit_is_refused_and_named(tmp_path: Path, torchvision_file: Path) -> None:
    state = adapt(torchvision_file, load_tensors(torchvision_file).tensors, DeepLab(RESNET, [1])).state
    with pytest.raises(UserError, match=r"lacks classifier\.4\.bias"):
        split_classes(torchvision_file, {k: v for k, v in state.items() if k != "all_classes.bias"}, [(1,)])
    with pytest.raises(UserError, match="has 21 rows, background included; there is none for class id 21"):
        split_classes(torchvision_file, state, [(21,)])
    split = split_classes(torchvision_file, state, [(1, 2)])
    with pytest.raises(UserError, match="this run's network has"):
        load_checked(torchvision_file, DeepLab(RESNET.model_copy(update={"aspp_channels": 128}), [2]), split)
    with pytest.raises(UserError, match=r"lacks backbone\.layers\.layer3\.6\.conv1\.weight and \d+ more of"):
        load_checked(torchvision_file, DeepLab(RESNET.model_copy(update={"backbone": "resnet101"}), [2]), split)
    with pytest.raises(UserError, match=r"has backbone.*that this network has not"):
        load_checked(torchvision_file, DeepLab(RESNET.model_copy(update={"backbone": "resnet18"}), [2]), split)

    for name, content, message in (
        (
            "resnet.pth",
            torchvision.models.resnet18(weights=None).state_dict(),
            "holds a backbone without classifiers.*--set model.weights=",
        ),
        ("other.pth", {"encoder.weight": torch.ones(1)}, "neither torchvision's DeepLabV3 .* names start with encoder"),
    ):
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=message):
            adapt(tmp_path / name, load_tensors(tmp_path / name).tensors, DeepLab(RESNET, [1]))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("this must never run",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "evil.pth").read_bytes()[:50])
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (
        ("evil.pth", "cannot be loaded safely .it holds more than tensors"),
        ("cut.pth", "cannot be loaded safely"),
        ("list.pth", "holds no state dict"),
        ("none.pth", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            load_tensors(tmp_path / name)
    assert "never run" not in capfd.readouterr().out


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def eir(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["eir", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    recipe = str(Path(__file__).parent / "tiny.yaml")
    net = ["--set", "model.backbone=resnet18", "--set", "model.aspp_channels=8", "--set", "data.crop_size=32"]
    model = DeepLab(Model(backbone="resnet18", weights="none", aspp_channels=8, aspp_rates=(1, 2)), [2])
    torch.save({"state_dict": dkd_names(model)}, tmp_path / "dkd.pth")
    run = ["--run-dir", str(tmp_path / "run")]
    command = ["import-checkpoint", str(tmp_path / "dkd.pth"), "--into", recipe, "--step", "0", *net, *run]
    assert eir(*command, "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["naming"] == "DKD / EIR"
    assert facts["tensors"]["classifiers"] == 4
    assert eir("evaluate", str(tmp_path / "run"), "--step", "0") == 0
    assert eir("train", str(tmp_path / "run"), "--step", "1") == 0
    capfd.readouterr()
    assert eir(*command) == 2
    assert "has a checkpoint already; --again takes its place" in capfd.readouterr().err
    assert eir(*command, "--again") == 0
    assert "taken: " in capfd.readouterr().out
    beyond = [*net, "--run-dir", str(tmp_path / "beyond")]
    assert eir("train", str(tmp_path / "run"), "--step", "1") == 0
    trained = str(tmp_path / "run" / "step-1" / "model.pt")
    assert eir("import-checkpoint", trained, "--into", recipe, "--step", "1", *beyond) == 0
    weights = (tmp_path / "beyond" / "step-1" / "model.pt").read_bytes()
    assert eir("build-memory", str(tmp_path / "beyond"), "--step", "2") == 0
    assert eir("train", str(tmp_path / "beyond"), "--step", "2") == 0
    capfd.readouterr()
    assert eir("run-protocol", str(tmp_path / "beyond"), "--json") == 0
    assert [step["step"] for step in json.loads(capfd.readouterr().out)["runs"][0]["steps"]] == [1, 2]
    assert (tmp_path / "beyond" / "step-1" / "model.pt").read_bytes() == weights, "the import is kept"
    assert not (tmp_path / "beyond" / "step-0").exists(), "nothing before it is made"
    assert eir("status", str(tmp_path / "beyond")) == 0
    assert "nothing, the run is complete" in capfd.readouterr().out
    other = ["--set", "protocol.schedule=[[2, 1], [3], [4]]", *net, "--run-dir", str(tmp_path / "other")]
    ours = str(tmp_path / "run" / "step-0" / "model.pt")
    assert eir("import-checkpoint", ours, "--into", recipe, "--step", "0", *other) == 2
    assert "has learned the classes [1, 2], step 0 here [2, 1]" in capfd.readouterr().err
    assert eir("import-checkpoint", str(tmp_path / "dkd.pth"), "--into", str(tmp_path / "run"), "--step", "1", "--again") == 2
    assert "lacks classifiers.2.weight" in capfd.readouterr().err
