"""`eir show-memory`: what is kept of the old classes, drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eircli
from eircli.common.errors import UserError
from eircli.memory.bank import Bank
from eircli.memory.kinds import memory_kind
from eircli.memory.kinds.exemplars import ExemplarKind
from eircli.reports.colours import palette
from eircli.reports.memory_sheet import draw_memory

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.mark.parametrize(
    ("settings", "name"),
    [([], "instances"), (["method.name=eir-plus", "method.slot=16"], "foveated"), (["method.name=image-replay"], "images")],
)
def test_every_exemplar_is_drawn_with_the_rim_of_its_object(settings: list[str], name: str, tmp_path: Path) -> None:
    run = eircli.open_run(TINY, settings, tmp_path / "run")
    eircli.build_memory(run, 1)
    bank, kind = Bank(tmp_path / "run/step-1/bank.h5"), memory_kind(name)
    assert isinstance(kind, ExemplarKind)
    for class_id, places in bank.classes.items():
        for position in places:
            shown = kind.shown(bank.path).load(position)
            assert shown.image.shape == (*shown.label.shape, 3)
            assert int((shown.label == class_id).sum()) == bank.record(position).area
    path = tmp_path / "sheet.png"
    assert draw_memory(run, 1, 99, path) == len(bank)
    drawn = np.array(Image.open(path))
    for class_id in bank.classes:
        assert (drawn == palette()[class_id]).all(axis=2).any(), "the class's colour is on its rims"
    assert draw_memory(run, 1, 1, path) == len(bank.classes)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    run = eircli.open_run(TINY, [], tmp_path / "none")
    with pytest.raises(UserError, match=r"step 1 has no bank yet; run: eir build-memory"):
        draw_memory(run, 1, 9, tmp_path / "sheet.png")
    run = eircli.open_run(TINY, ["method.name=star", "train.base.iterations=3"], tmp_path / "star")
    eircli.train(run, 0)
    eircli.build_memory(run, 1)
    with pytest.raises(UserError, match="keeps numbers alone, nothing to look at"):
        draw_memory(run, 1, 9, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
