"""`eir export`: files that other programs run, held against the model."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import eircli
from eircli.cli.app import main
from eircli.common.errors import UserError
from eircli.stages import export as stage
from tests.test_predict import scene

TINY = Path(__file__).parent / "tiny.yaml"


# torch's exporter warns of its own ways.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["eir", "mib"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose predictions are read by sigmoid, and one by soft-max; class ids are learned out of order."""
    folder = tmp_path_factory.mktemp("export") / "run"
    run = eircli.open_run(TINY, ["protocol.schedule=[[3, 1], [2]]", f"method.name={request.param}"], folder)
    for step in range(2):
        eircli.train(run, step)
    return folder


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_file_maps_images_to_class_ids(
    trained: Path, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file alone, by its own runtime, against the predictor, on sizes that the export has not seen."""
    onnxruntime = pytest.importorskip("onnxruntime") if format == "onnx" else None
    path = tmp_path / f"model.{format}"
    monkeypatch.setattr(sys, "argv", ["eir", "export", str(trained), "--format", format, "--out", str(path), "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    facts = json.loads(capfd.readouterr().out.strip().splitlines()[-1])
    assert facts["classes"] == {"background": 0, **{eircli.open_run(trained).class_name(i): i for i in (3, 1, 2)}}
    predictor = eircli.load(trained)
    for number, size in enumerate([(40, 56), (33, 31), (64, 64)]):
        image = scene(size, number)
        batch = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        if onnxruntime is not None:
            session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
            found = session.run(["class_ids"], {"images": batch})[0][0]
            told = session.get_modelmeta().custom_metadata_map
        else:
            extra = {"eir.json": ""}
            module = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra).module()
            found = module(torch.from_numpy(batch))[0][0].numpy()
            told = json.loads(extra["eir.json"])
        assert json.loads(told["classes"]) == facts["classes"]
        expected = predictor.class_ids[predictor.predict(image)]
        assert (found != expected).mean() < 0.002, "but for rounding at borders"


def test_a_file_that_differs_is_not_written(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_differences", lambda maps, run, sizes: (0.5, 0.1))
    with pytest.raises(UserError, match="differs from the model"):
        stage.export(eircli.open_run(trained), 1, "pt2", tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_without_the_extra_it_says_so(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs the package onnxruntime; install the extra onnx"):
        stage.export(eircli.open_run(trained), 1, "onnx", tmp_path / "model.onnx")


def test_a_size_can_be_fixed(trained: Path, tmp_path: Path) -> None:
    found = stage.export(eircli.open_run(trained), 1, "pt2", tmp_path / "model.pt2", (48, 40))
    assert found.differing_pixels < 0.002
    module = torch.export.load(tmp_path / "model.pt2").module()
    assert module(torch.zeros(5, 3, 48, 40, dtype=torch.uint8))[0].shape == (5, 48, 40)
    with pytest.raises(Exception, match=r"48|40|shape"):
        module(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_networks_that_pad_by_the_size_are_known() -> None:
    timm = pytest.importorskip("timm")
    assert stage.pads_by_size(timm.create_model("tf_efficientnet_lite0"))
    assert not stage.pads_by_size(timm.create_model("resnet10t"))
