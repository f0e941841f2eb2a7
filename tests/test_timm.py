"""timm's networks as backbones: their maps lie on the image, their weights load, they train, resume and are made cheaper."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eircli.cli.app import main
from eircli.common.errors import RunFailed, UserError
from eircli.config.manifest import Model, StepTraining
from eircli.engine.optim import build_optimizer
from eircli.engine.parallel import _synchronize_batchnorm
from eircli.methods.finetune import Finetune
from eircli.model.acceleration import checkpoint_activations, fold_batchnorm, lower_weights
from eircli.model.backbones import build_backbone, normalisation, weights_license
from eircli.model.deeplab import DeepLab
from eircli.run.run import open_run
from eircli.stages.train import train
from tests.test_acceleration import photographs

timm = pytest.importorskip("timm")

from eircli.model.backbones.timm_network import leaves, on_image, stage_indices  # noqa: E402

TINY = Path(__file__).parent / "tiny.yaml"

NETWORKS = {
    "resnet10t": (512, 16),
    "convnext_atto": (320, 16),
    "mobilenetv3_small_050": (288, 16),
    "regnetx_002": (368, 16),
    "efficientvit_b0": (128, 16),
    "swin_s3_tiny_224": (768, 16),
    "vit_tiny_patch16_224": (192, 16),
    "vit_small_patch14_dinov2": (384, 14),
    "vit_tiny_patch16_dinov3_qkvb": (192, 16),
    "test_vit": (64, 16),
}
"""Channels and stride."""

SMALL = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_nfnet")


def model_of(name: str, **settings: object) -> Model:
    fixed = {"weights": "none", "aspp_channels": 16, "aspp_rates": (1, 2)}
    return Model.model_validate({"backbone": f"timm:{name}", **fixed, **settings})


def network(name: str) -> DeepLab:
    """A network whose BatchNorms have learned something."""
    torch.manual_seed(0)
    model = DeepLab(model_of(name), [3])
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
    return model


def images(height: int = 64, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_image_gives_a_grid_over_exactly_it_and_every_parameter_learns(name: str) -> None:
    channels, stride = NETWORKS[name]
    torch.manual_seed(0)
    backbone = build_backbone(model_of(name), load_weights=False).eval()
    assert (backbone.channels, backbone.stride) == (channels, stride)
    for size in ((64, 96), (70, 101), (32, 32)):
        stages = backbone(torch.rand(1, 3, *size))
        assert len(stages) == 4
        assert stages[-1].shape == (1, channels, *(-(-side // stride) for side in size))
    backbone(torch.rand(1, 3, 64, 96))[-1].square().mean().backward()
    without = [parameter for parameter in backbone.parameters() if parameter.grad is None]
    assert not any(parameter.requires_grad for parameter in without)
    assert sum(p.numel() for p in without) < 0.01 * sum(p.numel() for p in backbone.parameters())


def test_a_plain_transformers_maps_are_its_own() -> None:
    """The last of them, with timm's own final norm, where nothing is padded."""
    torch.manual_seed(0)
    backbone = build_backbone(model_of("test_vit"), load_weights=False).eval()
    theirs = timm.create_model("test_vit", dynamic_img_size=True, num_classes=0).eval()
    theirs.load_state_dict({k.removeprefix("network."): v for k, v in backbone.state_dict().items()}, strict=False)
    image = torch.rand(1, 3, 64, 96)
    tokens = theirs.forward_features(image)[:, theirs.num_prefix_tokens :]
    assert not torch.equal(tokens, theirs.blocks(tokens)), "the comparison says something"
    torch.testing.assert_close(backbone(image)[-1], tokens.reshape(1, 4, 6, -1).permute(0, 3, 1, 2))


def test_a_cnn_of_timms_is_torchvisions_dilated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    weights = str(tmp_path / "resnet50.pth")
    ours = build_backbone(model_of("resnet50", weights=weights), load_weights=True).eval()
    wanted = build_backbone(Model(backbone="resnet50", weights=weights), load_weights=True).eval()
    image = torch.rand(1, 3, 64, 96)
    for found, expected in zip(ours(image), wanted(image), strict=True):
        torch.testing.assert_close(found, expected)


def test_stages_are_the_last_four_or_quarters_of_the_depth() -> None:
    assert stage_indices([2, 4, 8, 16, 16]) == (1, 2, 3, 4)
    assert stage_indices([16, 32, 64]) == (0, 1, 2)
    assert stage_indices([14] * 12) == (2, 5, 8, 11)
    assert stage_indices([16] * 6) == (0, 2, 3, 5)


@pytest.mark.parametrize(("size", "pixels", "stride"), [((512, 545), 14, 14), ((70, 101), 32, 16), ((65, 33), 16, 16)])
def test_padded_maps_are_sampled_at_the_centres_of_the_images_cells(size: tuple[int, int], pixels: int, stride: int) -> None:
    height, width = (-(-side // pixels) for side in size)
    maps = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    found = on_image(maps, pixels, size, stride)
    rows, columns = (-(-side // stride) for side in size)
    assert found.shape == (1, 2, rows, columns)
    for row in range(rows):
        for column in range(columns):
            # The cell's centre in pixels, then in cells of the maps, whose centres lie at halves.
            y = min(max((row + 0.5) * size[0] / rows / pixels - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * size[1] / columns / pixels - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = (1 - x + left) * maps[0, :, top, left] + (x - left) * maps[0, :, top, right]
            lower = (1 - x + left) * maps[0, :, bottom, left] + (x - left) * maps[0, :, bottom, right]
            torch.testing.assert_close(found[0, :, row, column], (1 - y + top) * upper + (y - top) * lower, atol=1e-5, rtol=0)


def test_maps_that_lie_on_the_image_are_left_as_they_are() -> None:
    maps = torch.rand(1, 2, 4, 6)
    assert on_image(maps, 16, (64, 96), 16) is maps
    expected = torch.nn.functional.interpolate(maps, (8, 12), mode="bilinear")
    torch.testing.assert_close(on_image(maps, 32, (128, 192), 16), expected)


def test_parameters_without_a_part_in_the_maps_are_found() -> None:
    used, unused, frozen = (nn.Parameter(torch.ones(2)) for _ in range(3))
    maps = [used * 2, (used + frozen).exp()]
    assert leaves(maps) == {id(used), id(frozen)}
    assert id(unused) not in leaves(maps)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet9999", r"model\.backbone: timm [\d.]+ has no network 'resnet9999'; did you mean resnet\w* or resnet\w* or "),
        ("qqqqqqq", r"has no network 'qqqqqqq'; timm\.list_models\(\) has the names"),
        ("hf-hub:someone/else", "has no network 'hf-hub:someone/else'"),
        ("resnet18.nobody", r"resnet18 has no weights 'nobody'; it has .*a1_in1k"),
        ("cait_xxs24_224", r"timm's cait_xxs24_224 does not give maps of images of any size, as a backbone must \(Input height"),
    ],
)
def test_what_timm_does_not_have_is_said_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        build_backbone(model_of(name), load_weights=False)
    assert "\n" not in str(raised.value)


def test_an_unknown_network_ends_a_command_with_2_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(TINY), "--step", "0", "--run-dir", str(tmp_path / "run"), "--set", "model.backbone=timm:resnt18"]
    monkeypatch.setattr("sys.argv", ["eir", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "has no network 'resnt18'; did you mean resnet18" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", ["pth", "wrapped.pth", "safetensors"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_weights_of_a_whole_classifier_from_a_file(name: str, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state, path = timm.create_model(name, num_classes=7).state_dict(), tmp_path / f"classifier.{suffix}"
    if suffix == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        prefixed = {f"module.{key}": value for key, value in state.items()}
        torch.save({"epoch": 3, "state_dict": prefixed} if "wrapped" in suffix else state, path)
    backbone = build_backbone(model_of(name, weights=str(path)), load_weights=True)
    loaded = {key.removeprefix("network."): value for key, value in backbone.state_dict().items()}
    assert loaded.keys() < state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    assert {key.split(".")[0] for key in state.keys() - loaded.keys()} <= {"head", "fc", "fc_norm"}


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save({key: value for key, value in state.items() if key != "conv1.0.weight"}, tmp_path / "less.pth")
    with pytest.raises(UserError, match=r"less\.pth does not fit timm:test_resnet: .*conv1\.0\.weight"):
        build_backbone(model_of("test_resnet", weights=str(tmp_path / "less.pth")), load_weights=True)
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"bad\.safetensors: cannot be loaded safely"):
        build_backbone(model_of("test_resnet", weights=str(tmp_path / "bad.safetensors")), load_weights=True)


def test_weights_of_a_tag_come_from_the_hub_or_its_absence_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    backbone = build_backbone(model_of("test_vit", weights="imagenet"), load_weights=True)
    assert torch.equal(backbone.state_dict()["network.blocks.1.attn.qkv.weight"], state["blocks.1.attn.qkv.weight"])

    def fails(*_: object, **__: object) -> dict[str, Tensor]:
        raise ConnectionError("no route to the hub\nsecond line")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fails)
    with pytest.raises(
        UserError, match=r"could not fetch the weights of timm:test_vit \(no route to the hub\); connect, or give"
    ):
        build_backbone(model_of("test_vit", weights="imagenet"), load_weights=True)
    with pytest.raises(UserError, match="timm has no weights of timm:test_vit4; set"):
        build_backbone(model_of("test_vit4", weights="imagenet"), load_weights=True)


def test_images_and_canvas_are_as_the_weights_want_them() -> None:
    """Half of the range, not ImageNet's mean, for weights trained so; the tag decides."""
    assert [*normalisation("timm:vit_tiny_patch16_224")] == [(127.5,) * 3] * 2
    assert normalisation("timm:vit_tiny_patch16_224").canvas == (128, 128, 128)
    assert normalisation("timm:resnet18.tv_in1k").mean == pytest.approx(normalisation("resnet18").mean)
    assert normalisation("resnet18").canvas == (124, 116, 104)
    model = DeepLab(model_of("test_vit"), [1])
    assert model.mean.flatten().tolist() == pytest.approx(normalisation("timm:test_vit").mean)
    assert "mean" not in model.state_dict()


def test_licences_of_weights() -> None:
    assert weights_license(model_of("vit_tiny_patch16_224", weights="imagenet")) == "apache-2.0"
    assert weights_license(model_of("convnextv2_atto.fcmae_ft_in1k", weights="imagenet")) == "cc-by-nc-4.0"
    assert weights_license(model_of("resnet18")) is None
    assert weights_license(model_of("resnet18", weights="mine.pth")) == "unknown"
    assert weights_license(Model(backbone="resnet101")) == "bsd-3-clause"


@pytest.mark.parametrize("decay", [None, 0.5])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_parameter_learns_at_its_own_rate(optimizer: str, decay: float | None) -> None:
    """Of a transformer of six blocks: by its names, the stem is depth 0, block k depth k + 1, and so is what follows it."""
    settings = {"iterations": 1, "lr": 0.01, "optimizer": optimizer, "layer_decay": decay, "weight_decay": 0.05}
    config = StepTraining.model_validate({**settings, "weight_decay_on": "all", "head_lr_factor": 3})
    model = DeepLab(model_of("test_vit"), [2, 1])
    found = build_optimizer(model.parameter_groups(), config)
    group_of = {id(p): group for group in found.param_groups for p in group["params"]}
    assert len(group_of) == sum(len(group["params"]) for group in found.param_groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        word = name.split(".")
        if word[0] != "backbone":
            rate = 0.03
        elif decay is None:
            rate = 0.01
        else:
            depth = int(word[3]) + 1 if word[2] == "blocks" else {"norm": 6}.get(word[2], 0)
            rate = 0.01 * 0.5 ** (6 - depth)
        assert group_of[id(parameter)]["lr"] == pytest.approx(rate), name
        plain = parameter.ndim == 1 or word[-1] in ("cls_token", "pos_embed", "reg_token")
        assert group_of[id(parameter)]["weight_decay"] == (0 if optimizer == "adamw" and plain else 0.05), name
    if optimizer == "adamw":
        assert all(group["betas"] == (0.9, 0.999) for group in found.param_groups)


def test_a_cnns_depths_are_its_blocks() -> None:
    depths = DeepLab(model_of("test_resnet"), [1]).backbone.by_depth()
    blocks = [
        block for layer in timm.create_model("test_resnet").children() if isinstance(layer, nn.Sequential) for block in layer
    ]
    blocks = [block for block in blocks if hasattr(block, "conv1")]
    assert [sum(p.numel() for p in depth) for depth in depths[1:]] == [sum(p.numel() for p in b.parameters()) for b in blocks]


@pytest.mark.parametrize("name", SMALL)
def test_recomputed_activations_give_the_same_gradients_and_statistics(name: str) -> None:
    whole, lean = network(name), network(name)
    checkpoint_activations(lean)
    for model in (whole, lean):
        model.train_mode(frozen_batchnorm=False, dropout=True)
        torch.manual_seed(1)
        model(images()).square().mean().backward()
    for key, values in whole.state_dict().items():
        torch.testing.assert_close(lean.state_dict()[key], values, msg=key)
    for (key, one), other in zip(whole.named_parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=key)


def test_a_network_whose_blocks_are_not_known_is_not_recomputed_or_decayed() -> None:
    model = DeepLab(model_of("csatv2"), [1])
    with pytest.raises(UserError, match=r"runtime\.checkpoint_activations: the blocks of timm:csatv2 are not known"):
        checkpoint_activations(model)
    with pytest.raises(UserError, match=r"train\.layer_decay: the blocks of this backbone are not known"):
        build_optimizer(model.parameter_groups(), StepTraining(iterations=1, layer_decay=0.9))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "regnetx_002", "efficientvit_b0"])
def test_folding_keeps_activations_and_changes_nothing(name: str, real_images: Path) -> None:
    model, shown = network(name).eval(), photographs(real_images)
    folded = copy.deepcopy(model)
    fold_batchnorm(folded, shown)
    assert not [m for m in folded.modules() if isinstance(m, _BatchNorm)]
    with torch.no_grad():
        found, expected = folded.double()(shown), model.double()(shown)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


@pytest.mark.parametrize("name", SMALL)
def test_low_weights_are_those_that_autocast_would_use(name: str) -> None:
    model = network(name).eval()
    low = copy.deepcopy(model)
    lower_weights(low, torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(low(images(70, 101)), model(images(70, 101)))


def test_frozen_batchnorm_and_dropout_of_timms_layers() -> None:
    model = network("fasternet_t0")
    paths = [m for m in model.modules() if type(m).__name__ == "DropPath"]
    for module in paths:
        setattr(module, "drop_prob", 0.5)  # noqa: B010
    model.train_mode(frozen_batchnorm=True, dropout=True)
    assert not torch.equal(model(images()), model(images()))
    model.train_mode(frozen_batchnorm=True, dropout=False)
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert torch.equal(model(images()), model(images()))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert not any(p.requires_grad for m in model.modules() if isinstance(m, _BatchNorm) for p in m.parameters())


def test_batchnorm_over_several_processes_keeps_timms_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one process, where it is BatchNorm."""
    whole, shared = (network("test_efficientnet").backbone.train() for _ in range(2))
    _synchronize_batchnorm(shared)
    assert {type(m).__name__ for m in shared.modules() if isinstance(m, _BatchNorm)} == {"ActivatedSynchronizedBatchNorm"}
    image = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(shared(image)[-1], whole(image)[-1], rtol=1e-3, atol=1e-4)
    for key, values in whole.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[key], values, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize(("name", "optimizer"), [("test_resnet", "sgd"), ("test_vit", "adamw")])
def test_a_run_trains_and_resumes_bit_for_bit(name: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [f"model.backbone=timm:{name}", f"train.optimizer={optimizer}", "train.layer_decay=0.8", "train.lr=0.001"]
    settings += [
        "train.base.lr=0.001",
        "train.base.iterations=4",
        "runtime.checkpoint_minutes=0",
        "model.batchnorm_momentum=0.1",
    ]
    lines: list[str] = []
    whole, broken = (open_run(TINY, settings, tmp_path / part) for part in ("whole", "broken"))
    with whole.locked():
        for step in (0, 1):
            train(whole, step, lines.append)
    losses, calls = Finetune.losses, 0

    def failing(*arguments: object) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RunFailed("the power goes out")
        return losses(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Finetune, "losses", failing)
    with broken.locked(), pytest.raises(RunFailed):
        train(broken, 0, lines.append)
    monkeypatch.setattr(Finetune, "losses", losses)
    with broken.locked():
        for step in (0, 1):
            train(broken, step, lines.append)
    assert any("going on at iteration" in line for line in lines)
    for step in (0, 1):
        one, other = (run.model(step).state_dict() for run in (whole, broken))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    moved = [not torch.equal(whole.model(1).state_dict()[key], value) for key, value in whole.model(0).state_dict().items()]
    assert any(moved)


def test_the_licence_is_recorded_and_a_closed_one_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "mine.pth")
    settings = [
        "model.backbone=timm:test_vit",
        f"model.weights={tmp_path / 'mine.pth'}",
        "train.base.iterations=2",
        "train.base.lr=0.001",
    ]
    lines: list[str] = []
    run = open_run(TINY, settings, tmp_path / "run")
    with run.locked():
        train(run, 0, lines.append)
    assert run.directory.steps[0]["checkpoint"].facts["weights_license"] == "unknown"
    assert len([line for line in lines if "starting weights' licence is unknown" in line]) == 1
