"""A memory kind, a backbone and a command, each added to a copy of the package as one file and one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

KIND = '''
from eircli.memory.kinds.images import ImageMemory


class FirstImages(ImageMemory):
    """The first image of every class, whatever the budget."""

    name = "first-images"

    def class_order(self, ranked):
        return {class_id: positions[:1] for class_id, positions in ranked.items()}


KIND = FirstImages()
'''

BACKBONE = '''
from torch import nn

from eircli.model.backbones.base import Backbone


def build(name):
    return Patches()


class Patches(Backbone):
    """Patches of 8 pixels a side, each by itself."""

    channels, stride, block_types = 12, 8, (nn.Sequential,)

    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(3, 12, 8, 8), nn.BatchNorm2d(12), nn.ReLU())

    def forward(self, images):
        return [self.embed(images)]

'''

COMMAND = '''
from eircli.cli.options import Recipe, open_one

EXAMPLE = "eir classes configs/shapes-6-2-eir.yaml"


def command(recipe: Recipe) -> None:
    """Print the names of a run's classes."""
    print("\\n".join(open_one(recipe, None, None).classes))
'''


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package to be changed."""
    shutil.copytree(ROOT / "eircli", tmp_path / "eircli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/tiny.yaml", tmp_path / "tiny.yaml")
    return tmp_path


def add_line(file: Path, after: str, line: str) -> None:
    text = file.read_text()
    assert after in text
    file.write_text(text.replace(after, f"{after}\n    {line}", 1))


def eir(copy: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(copy), "EIR_CACHE": str(copy / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "eircli", *arguments], check=False, capture_output=True, text=True, cwd=copy, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_memory_kind_a_backbone_and_a_command(copy: Path) -> None:
    (copy / "eircli/memory/kinds/first_images.py").write_text(KIND)
    (copy / "eircli/model/backbones/patches.py").write_text(BACKBONE)
    (copy / "eircli/cli/classes.py").write_text(COMMAND)
    line = 'MemoryKindEntry("first-images", bounded=False, from_model=False),'
    add_line(copy / "eircli/config/memory_kinds.py", "ENTRIES = (", line)
    add_line(copy / "eircli/config/backbones.py", "BACKBONES = {", '"patches": BackboneEntry("patches"),')
    add_line(copy / "eircli/cli/app.py", "COMMANDS = (", '"classes",')
    methods = copy / "eircli/config/replay.py"  # a method that keeps the new kind: image replay, for once
    methods.write_text(
        methods.read_text().replace('Literal["images", "foveated"] = "images"', 'Literal["first-images"] = "first-images"')
    )
    settings = ["method={name: image-replay}", "model.backbone=patches", "runtime.checkpoint_activations=true"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    finished = json.loads(eir(copy, "run-protocol", "tiny.yaml", *overrides, "--json"))["runs"][0]
    assert [len(step["classes"]) for step in finished["steps"]] == [3, 4, 5]
    facts = json.loads(eir(copy, "build-memory", "runs/tiny-seed0", "--step", "2", "--json"))
    assert facts["kind"] == "first-images"
    assert sum(facts["per_class"].values()) == facts["exemplars"] <= 3
    assert json.loads(eir(copy, "compare", "runs/tiny-seed0", "--json"))["runs"][0]["budget"] is None
    assert eir(copy, "classes", "runs/tiny-seed0").splitlines()[0] == "striped red disc"
    assert "Print the names of a run's classes." in eir(copy, "--help")
