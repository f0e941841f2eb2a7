"""Shapes of the paper's mathematics are checked while tests run; real images are found, or their tests skipped."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(
    [
        "eircli.memory.replay",
        "eircli.memory.fusion",
        "eircli.memory.decoded",
        "eircli.methods.losses",
        "eircli.methods.tiled_losses",
    ],
    "beartype.beartype",
)

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIR_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images; skips where there is none."""
    folder = Path(os.environ.get("EIR_TEST_DATA") or ROOT / "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is not there; set EIR_TEST_DATA")
    return folder


@pytest.fixture
def configs() -> Path:
    """The folder of recipes."""
    return ROOT / "configs"
