"""Recipes: the paper's defaults, overrides, and one clear line for whatever is wrong."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from eircli.common.errors import UserError
from eircli.config.fingerprint import base_fingerprint, differing_keys, fingerprint, to_tree
from eircli.config.methods import AnyMethod
from eircli.config.recipe import load_recipe, recipes_in, resolve
from eircli.config.replay import EirPlusSettings, EirSettings, ImageReplaySettings

VOC: dict[str, Any] = {
    "name": "r",
    "dataset": {"kind": "voc", "root": "voc"},
    "protocol": {"schedule": "15-1"},
    "method": {"name": "eir"},
}


def test_naming_dataset_protocol_and_method_is_the_papers_setting() -> None:
    voc = resolve(VOC)
    assert isinstance(voc.method, EirSettings)
    assert (voc.method.slot, voc.method.fillers_below, voc.memory.budget) == (250, 2, 100)
    assert (voc.train.lr, voc.train.base.lr, voc.train.epochs) == (1e-4, 1e-3, 60)
    assert (voc.train.frozen_batchnorm, voc.train.base.frozen_batchnorm) == (True, False)
    ade = resolve({**VOC, "dataset": {"kind": "ade20k", "root": "ade"}})
    assert isinstance(ade.method, EirSettings)
    assert (ade.method.slot, ade.method.fillers_below, ade.memory.budget) == (200, 1, 300)
    assert (ade.train.lr, ade.train.base.lr, ade.train.epochs, ade.train.warmup) == (2.5e-4, 2.5e-3, 100, 0.2)
    assert ade.protocol.unseen_at_test == "ignore"


ADE = {**VOC, "dataset": {"kind": "ade20k", "root": "ade"}}
SHAPES = {**VOC, "dataset": {"kind": "shapes"}}
FOLDER = {**VOC, "dataset": {"kind": "folder", "root": "mine"}}


@pytest.mark.parametrize(
    ("recipe", "method", "later", "base"),
    [
        (VOC, "{name: dkd}", None, None),
        (VOC, "{name: dkd, base_step: own}", None, 2),
        (VOC, "{name: star}", 4, None),
        (VOC, "{name: eir}", None, None),
        (VOC, "{name: dkd, base_step: own, base_positive_weight: 3, positive_weight: 5}", 5, 3),
        (ADE, "{name: dkd}", 35, None),
        (ADE, "{name: dkd, base_step: own}", 35, 35),
        (ADE, "{name: star}", 30, None),
        (ADE, "{name: ssul}", None, None),
        (SHAPES, "{name: star}", None, None),
        (FOLDER, "{name: dkd, base_step: own}", None, None),
    ],
)
def test_positive_weights_are_each_papers(recipe: dict[str, Any], method: str, later: float | None, base: float | None) -> None:
    settings = resolve(recipe, [f"method={method}"]).method
    assert (settings.positive_weight_at(base=False), settings.positive_weight_at(base=True)) == (later, base)


@pytest.mark.parametrize("recipe", [VOC, ADE], ids=["voc", "ade"])
def test_all_methods_share_one_base_step_whatever_their_positive_weights(recipe: dict[str, Any]) -> None:
    names = [settings.model_fields["name"].annotation for settings in get_args(AnyMethod)]
    hashes = {
        base_fingerprint(manifest, [1, 2])
        for name in names
        for manifest in [resolve(recipe, [f"method.name={get_args(name)[0]}"])]
        if not manifest.method.leaves_state
    }
    assert len(names) > 5
    assert len(hashes) == 1
    weighted = resolve(recipe, ["method.base_positive_weight=2"])
    assert base_fingerprint(weighted, [1, 2]) not in hashes


CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("target", [one for file in RECIPES for one in recipes_in(file)], ids=lambda target: target.name)
def test_every_recipe_loads_and_survives_a_round_trip(target: Path) -> None:
    manifest = load_recipe(target)
    assert manifest.name == target.name.replace(".yaml:", "-").removesuffix(".yaml")
    again = resolve(yaml.safe_load(yaml.safe_dump(to_tree(manifest))))
    assert again == manifest


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_says_what_it_is_for(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith(f"# eir run-protocol configs/{file.name}")
    assert "# To expect: " in text
    assert "# Cost: " in text


def comparison(folder: Path, runs: str) -> Path:
    (folder / "one.yaml").write_text(
        "name: mine\ndataset: {kind: shapes}\nprotocol: {schedule: 6-2}\nmethod: {name: eir, slot: 32}\n"
    )
    (folder / "many.yaml").write_text(f"like: one.yaml\nmemory: {{budget: 20}}\nruns: {runs}\n")
    return folder / "many.yaml"


def test_a_comparison_is_its_runs(tmp_path: Path) -> None:
    file = comparison(tmp_path, "{eir: , hard: {method: {paste: hard}}, lwf: {method: {name: lwf}, memory: {budget: 9}}}")
    eir, hard, lwf = (load_recipe(target) for target in recipes_in(file))
    assert [one.name for one in (eir, hard, lwf)] == ["many-eir", "many-hard", "many-lwf"]
    assert differing_keys(eir, load_recipe(tmp_path / "one.yaml", ["memory.budget=20", "name=many-eir"])) == []
    assert differing_keys(eir, hard) == ["name", "method.paste"]
    assert (lwf.method.name, lwf.memory.budget) == ("lwf", 9)
    assert load_recipe(Path(f"{file}:hard"), ["memory.budget=7"]).memory.budget == 7
    assert recipes_in(tmp_path / "one.yaml") == [tmp_path / "one.yaml"]
    (tmp_path / "like.yaml").write_text("like: many.yaml:hard\nseed: 3\n")
    assert differing_keys(hard, load_recipe(tmp_path / "like.yaml")) == ["name", "seed", "dataset.seed"]


def test_a_run_of_a_comparison_takes_another_method_or_length_whole(tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    common = "dataset: {kind: shapes}\nprotocol: {schedule: 6-2}\nmethod: {name: eir, slot: 32}\ntrain: {iterations: 9, base: {iterations: 7}}\n"
    file.write_text(common + "runs: {eir: , ft: {method: {name: finetune}}, ep: {train: {epochs: 1, base: {epochs: 2}}}}\n")
    eir, ft, ep = (load_recipe(target) for target in recipes_in(file))
    assert ft.method.name == "finetune"
    assert (ep.train.epochs, ep.train.base.epochs, ep.train.iterations, ep.train.base.iterations) == (1, 2, None, None)
    assert (eir.train.iterations, eir.train.base.iterations) == (9, 7)


def test_one_recipe_has_no_runs(tmp_path: Path) -> None:
    comparison(tmp_path, "{a: }")
    with pytest.raises(UserError, match=r"one\.yaml is one recipe, not a comparison; leave out :eir"):
        load_recipe(tmp_path / "one.yaml:eir")


@pytest.mark.parametrize(
    ("runs", "target", "message"),
    [
        ("{a: , b: }", "many.yaml", r"many\.yaml: holds several runs; name one, as .*many\.yaml:RUN, of a, b; eir run-protocol"),
        ("{alpha: , beta: }", "many.yaml:alpa", r"many\.yaml: has no run alpa; did you mean alpha\? it has alpha, beta"),
        ("{a: 3}", "many.yaml:a", r"many\.yaml: runs: must map the name of every run to its settings"),
        ("[a]", "many.yaml:a", r"many\.yaml: runs: must map"),
        ("{a: {memory: {budgt: 3}}}", "many.yaml:a", r"many\.yaml:a: unknown key memory\.budgt; did you mean memory\.budget"),
    ],
)
def test_mistakes_in_a_comparison(tmp_path: Path, runs: str, target: str, message: str) -> None:
    comparison(tmp_path, runs)
    with pytest.raises(UserError, match=message):
        load_recipe(tmp_path / target)


def test_recipes_give_the_papers_training_unless_they_are_small(configs: Path) -> None:
    for recipe in [*configs.glob("voc-*.yaml"), *configs.glob("ade-*.yaml")]:
        manifest = load_recipe(recipe)
        paper = resolve(
            {"name": "x", "dataset": to_tree(manifest)["dataset"], "protocol": {"schedule": "joint"}, "method": {"name": "eir"}}
        )
        allowed = {"name", "protocol.schedule"} | ({"model.backbone"} if "swin-b" in recipe.stem else set())
        assert set(differing_keys(paper, manifest)) <= allowed
        assert manifest.model.backbone == ("swin_b" if "swin-b" in recipe.stem else "resnet101")


@pytest.mark.parametrize(
    ("overrides", "lengths"),
    [
        ([], (200, 900)),
        (["train.iterations=7"], (7, 7)),
        (["train.base.iterations=7"], (200, 7)),
        (["train.iterations=7", "train.base.iterations=9"], (7, 9)),
        (["train.base.iterations=9", "train.iterations=7"], (7, 9)),
    ],
)
def test_a_length_from_the_command_line_holds_for_all_steps(overrides: list[str], lengths: tuple[int, int]) -> None:
    recipe = {**VOC, "train": {"iterations": 200, "base": {"iterations": 900}}}
    manifest = resolve(recipe, overrides)
    assert (manifest.training(1).iterations, manifest.training(0).iterations) == lengths
    assert manifest.train.epochs is manifest.train.base.epochs is None


def test_epochs_take_the_place_of_iterations_and_the_other_way_round() -> None:
    recipe = {**VOC, "train": {"iterations": 200, "base": {"iterations": 900}}}
    train = resolve(recipe, ["train.epochs=0.5"]).train
    assert (train.epochs, train.base.epochs, train.iterations, train.base.iterations) == (0.5, 0.5, None, None)
    train = resolve(VOC, ["train.base.iterations=5"]).train
    assert (train.epochs, train.base.epochs, train.base.iterations) == (60, None, 5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.treshold=0.5", r"unknown key method\.treshold; did you mean method\.threshold\?"),
        ("methd.name=eir", r"unknown key methd; did you mean method\?"),
        ("threshold=0.5", r"unknown key threshold; did you mean method\.threshold\?"),
        ("method.distill.wieght=1", r"unknown key method\.distill\.wieght; did you mean method\.distill\.weight\?"),
        ("memory.size=3", r"unknown key memory\.size; memory has: budget, selection, "),
        ("method={name: dkd, threshold: 0.5}", r"unknown key method\.threshold; method dkd has: .*memory, name, distill_weight"),
        ("train.iteration=5", r"unknown key train\.iteration; did you mean train\.iterations\?"),
        (
            "model.backbone=resnet10",
            r"model\.backbone: 'resnet10' is unknown; did you mean resnet101\? one of resnet101, resnet50",
        ),
        ("train.base.iteration=5", r"unknown key train\.base\.iteration; did you mean train\.base\.iterations\?"),
        ("dataset.kind=vok", r"dataset\.kind: 'vok' is unknown; did you mean voc\?"),
        ("method.name=eirr", r"method\.name: 'eirr' is unknown; did you mean eir\?"),
        ("memory.budget=many", r"memory\.budget: 'many' is no budget; give a count .* or bytes such as 500kB"),
        ("memory.budget=0", r"memory\.budget: 0 is no budget"),
        ("memory.budget=0.2B", r"memory\.budget: '0\.2B' is no budget"),
        ("method.paste=soft", r"method\.paste: .*'mixup' or 'hard'"),
        ("method.slot=600", r"method\.slot 600 is larger than data\.crop_size 512"),
        ("data.scale=[2, 1]", r"data: scale: \[2.0, 1.0\] must be two positive numbers"),
        ("train.batch_size=1", r"train\.base: BatchNorm cannot learn from single images"),
        ("memory.budget", r"write key\.path=value"),
        ("memory=3", r"memory: .*"),
        ("seed.x.y=3", r"seed.*"),
        ("train.iterations=[1", r"not valid YAML"),
        ("model.backbone=timm:", r"model\.backbone.*timm"),
        ("method.flip=yes", r"method: flip: true is no value for it"),
        ("seed=no", r"seed: false is no value for it"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        resolve({"seed": 0, **VOC}, [override], "r.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.memory=foveated"], "memory: foveated needs surroundings: ignore or pseudo-labels"),
        (["method.surroundings=pseudo-labels", "method.pseudo_labels=false"], "needs pseudo_labels: true"),
        (
            ["method.thresholds=median", "method.pseudo_labels=false"],
            "thresholds: median and slots: unseen need pseudo_labels: true",
        ),
        (["method.slots=unseen", "method.pseudo_labels=false"], "thresholds: median and slots: unseen need pseudo_labels: true"),
        (
            ["method.name=image-replay", "method.thresholds=median", "method.missing=ignore"],
            "thresholds: median needs pseudo-labels",
        ),
        (["method.fillers=none", "method.pseudo_labels=false"], "fusion pastes nothing"),
        (["method.name=image-replay", "method.distill.loss=decomposed"], "decomposed makes no pseudo-labels"),
        (["train.iterations=7", "train.epochs=9"], r"train\.iterations and train\.epochs: give one of them"),
        (["method.distill.extents=true"], "extents is of loss: decomposed"),
        (["method.standalone_replay=false", "method.replay_share=0.4"], "standalone_replay is false"),
        (["memory.current_labels=true"], r"memory\.current_labels is about whole stored images"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        resolve({"seed": 0, **VOC}, overrides, "r.yaml")
    assert "\n" not in str(error.value)


def test_setting_one_key_of_the_distillation_keeps_the_methods_others() -> None:
    plus = resolve(VOC, ["method.name=eir-plus", "method.distill.weight=3"], "r.yaml").method
    assert isinstance(plus, EirPlusSettings)
    assert (plus.distill.loss, plus.distill.weight, plus.distill.reasoning_weight) == ("decomposed", 3, 0)
    images = resolve(VOC, ["method.name=image-replay", "method.distill.region=all"], "r.yaml").method
    assert isinstance(images, ImageReplaySettings)
    assert not images.distill.is_on


def test_a_wrong_override_is_not_blamed_on_the_recipe() -> None:
    with pytest.raises(UserError, match=r"^--set method\.treshold=0\.5: unknown key method\.treshold"):
        resolve(VOC, ["memory.budget=5", "method.treshold=0.5"], "r.yaml")
    with pytest.raises(UserError, match=r"^--set train\.iterations=abc: "):
        resolve(VOC, ["train.iterations=15", "train.iterations=abc"], "r.yaml")
    with pytest.raises(UserError, match=r"^r\.yaml: unknown key method\.treshold"):
        resolve({**VOC, "method": {"name": "eir", "treshold": 1}}, ["memory.budget=5"], "r.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b", "not a recipe"),
        ("a: [1", "not valid YAML"),
        ("name: x", "dataset: missing"),
        ("dataset: {kind: voc}\nmethod: {name: eir}\nprotocol: {schedule: joint}", r"dataset\.root: missing"),
        ("dataset: {root: x}\nmethod: {name: eir}\nprotocol: {schedule: joint}", r"dataset\.kind: missing"),
        ("dataset: voc\nmethod: {name: eir}", "dataset: must be a mapping"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"mine\.yaml.*{message}"):
        load_recipe(path)


def test_how_and_where_a_run_is_carried_out_is_not_part_of_it() -> None:
    recorded = resolve(VOC)
    moved = resolve(VOC, ["runtime.device=cpu", "dataset.root=elsewhere", "data.cache=disk"])
    assert differing_keys(recorded, moved) == []
    assert fingerprint(recorded) == fingerprint(moved)
    cached = resolve(VOC, ["data.cache=ram"])
    assert base_fingerprint(recorded, [1, 2]) == base_fingerprint(cached, [1, 2])
    other = resolve(VOC, ["method.distill.weight=1", "seed=3"])
    assert sorted(differing_keys(recorded, other)) == ["method.distill.weight", "seed"]
    assert fingerprint(recorded) != fingerprint(other)


def test_shapes_are_drawn_from_the_runs_seed_unless_given() -> None:
    recipe = {**VOC, "dataset": {"kind": "shapes"}}
    assert to_tree(resolve(recipe, ["seed=4"]))["dataset"]["seed"] == 4
    assert to_tree(resolve(recipe, ["seed=4", "dataset.seed=2"]))["dataset"]["seed"] == 2


def test_compiling_and_recomputing_exclude_each_other() -> None:
    with pytest.raises(UserError, match="runtime: compile and checkpoint_activations exclude each other"):
        resolve(VOC, ["runtime.compile=default", "runtime.checkpoint_activations=true"])
