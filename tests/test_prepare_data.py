"""Public data sets from their archives: downloaded, resumed, checked, unpacked safely and laid out, from a server of the test's own."""

import gzip
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from eircli.common.errors import UserError
from eircli.config.datasets import Ade20k, Voc
from eircli.data.open import open_dataset
from eircli.data.sources import archives
from eircli.data.sources.archives import Archive
from eircli.data.sources.download import download
from eircli.data.sources.sbd import train_aug
from eircli.data.sources.unpack import below, unpack
from eircli.stages import prepare_data as stage
from eircli.stages.prepare_data import prepare_data
from tests.test_cli import eir

SIZE = (6, 8)
TRAIN, VAL, SBD_TRAIN, SBD_VAL = ["v1", "v2"], ["v3"], ["v1", "s1"], ["v3", "s2", "s3"]
AUG = ["s1", "s2", "s3", "v1", "v2"]
"""The answer, worked out by hand."""


@dataclass
class Server:
    """Serves some bytes, as well as it is told to."""

    files: dict[str, bytes]
    ranges: bool = True
    cut_after: int | None = None
    """Close the connection after this many bytes of an answer, `cuts` times."""
    cuts: int = 0
    slow: float = 0.0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    base: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server({})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            told.asked.append((self.path, wanted))
            content = told.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and told.ranges else 0
            if start >= len(content) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            rest = content[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if told.cut_after is not None and told.cuts > 0:
                told.cuts -= 1
                rest = rest[: told.cut_after]
            for at in range(0, len(rest), 2**16):
                self.wfile.write(rest[at : at + 2**16])
                time.sleep(told.slow)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        told.base = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield told
        http.shutdown()


def encoded(values: Any, kind: str, palette: bool = False) -> bytes:
    picture = Image.fromarray(np.asarray(values, np.uint8), "P" if palette else None)
    if palette:
        picture.putpalette([channel for i in range(256) for channel in (i, 255 - i, i // 2)])
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def photo(seed: int) -> bytes:
    return encoded(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3)), "JPEG")


def mask(*ids: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    label = np.zeros(SIZE, np.uint8)
    for row, class_id in enumerate(ids):
        label[row] = class_id
    return label


def tar(members: dict[str, bytes], compressed: bool = False) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(file.getvalue()) if compressed else file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def voc_members() -> dict[str, bytes]:
    top = "VOCdevkit/VOC2012"
    names = sorted({*TRAIN, *VAL, *SBD_TRAIN, *SBD_VAL})
    members = {f"{top}/JPEGImages/{name}.jpg": photo(number) for number, name in enumerate(names)}
    for number, name in enumerate([*TRAIN, *VAL], start=1):
        members[f"{top}/SegmentationClass/{name}.png"] = encoded(mask(number, 255), "PNG", palette=True)
    members |= {
        f"{top}/ImageSets/Segmentation/train.txt": "\n".join(TRAIN).encode() + b"\n",
        f"{top}/ImageSets/Segmentation/val.txt": "\n".join(VAL).encode() + b"\n",
        f"{top}/Annotations/v1.xml": b"not wanted",
    }
    return members


def mat(values: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    savemat(file, {"GTcls": {"Segmentation": values, "CategoriesPresent": np.unique(values)}}, do_compression=True)  # type: ignore[arg-type]
    return file.getvalue()


def sbd_members() -> dict[str, bytes]:
    top = "benchmark_RELEASE/dataset"
    names = sorted({*SBD_TRAIN, *SBD_VAL})
    members = {f"{top}/cls/{name}.mat": mat(mask(10 + number)) for number, name in enumerate(names)}
    members |= {f"{top}/train.txt": "\n".join(SBD_TRAIN).encode(), f"{top}/val.txt": "\n".join(SBD_VAL).encode()}
    return members


def ade_members() -> dict[str, bytes]:
    members = {"ADEChallengeData2016/objectInfo150.txt": b"names"}
    for split, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            members[f"ADEChallengeData2016/images/{split}/{split[0]}{number}.jpg"] = photo(number)
            members[f"ADEChallengeData2016/annotations/{split}/{split[0]}{number}.png"] = encoded(mask(number + 1), "PNG")
    return members


def digest(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def small(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The known archives, replaced by small ones of the same layout on the server."""
    server.files = {"VOC.tar": tar(voc_members()), "SBD.tgz": tar(sbd_members(), True), "ADE.zip": zipped(ade_members())}
    known = {
        name: Archive(name, f"{server.base}/{name}", len(content), digest(content)) for name, content in server.files.items()
    }
    voc, sbd, ade = known.values()
    monkeypatch.setattr(archives, "VOC", voc)
    monkeypatch.setattr(archives, "SBD", sbd)
    monkeypatch.setattr(archives, "ADE20K", replace(ade, size=None, md5=None))
    monkeypatch.setattr(stage, "ARCHIVES", {"voc": (voc, sbd), "ade20k": (archives.ADE20K,)})
    return server


def silent(_: str) -> None:
    pass


def prepared(root: Path, *files: Path, any_checksum: bool = False) -> stage.Prepared:
    return prepare_data("voc", root, files, (), any_checksum, silent)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_voc_from_the_server_to_the_data_set(small: Server, tmp_path: Path) -> None:
    made = prepared(tmp_path)
    assert made.images == {"train": 2, "train_aug": 5, "val": 1}
    assert set(made.differs) == {"train", "train_aug", "val"}
    data = open_dataset(Voc(kind="voc", root=tmp_path))
    assert data.train.ids == AUG
    assert data.val.ids == VAL
    # VOC's own masks where it has them, borders to ignore included; SBD's elsewhere.
    expected = {"v1": mask(1, 255), "v2": mask(2, 255), "s1": mask(10), "s2": mask(11), "s3": mask(12)}
    for position, name in enumerate(data.train.ids):
        np.testing.assert_array_equal(data.train.load(position).label, expected[name])
        with Image.open(tmp_path / f"SegmentationClassAug/{name}.png") as file:
            assert file.mode == "L"
    assert not (tmp_path / "Annotations").exists()
    assert not list(tmp_path.glob(".unpacking-*"))


def test_what_is_complete_is_not_done_again(small: Server, tmp_path: Path) -> None:
    prepared(tmp_path)
    before, asked = tree(tmp_path), len(small.asked)
    for file in (tmp_path / "archives").iterdir():
        file.unlink()
    again = prepared(tmp_path)
    assert len(small.asked) == asked
    assert again.archives == []
    assert {k: v for k, v in before.items() if not k.startswith("archives")} == tree(tmp_path)


def test_only_the_missing_part_is_made(small: Server, tmp_path: Path) -> None:
    prepared(tmp_path)
    (tmp_path / "ImageSets/Segmentation/train_aug.txt").unlink()
    with pytest.raises(UserError, match=r"train_aug\.txt: missing, though .*SegmentationClassAug is there; move that folder"):
        prepared(tmp_path)
    for file in (tmp_path / "SegmentationClassAug").iterdir():
        file.unlink()
    (tmp_path / "SegmentationClassAug").rmdir()
    asked = len(small.asked)
    prepared(tmp_path)
    assert len(small.asked) == asked
    assert (tmp_path / "ImageSets/Segmentation/train_aug.txt").read_text().split() == AUG


def test_voc_without_its_augmented_labels_is_told_where_they_come_from(small: Server, tmp_path: Path) -> None:
    prepared(tmp_path)
    (tmp_path / "SegmentationClassAug").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"SegmentationClassAug: no such folder; make it with eir prepare-data voc"):
        open_dataset(Voc(kind="voc", root=tmp_path))
    (tmp_path / "ImageSets/Segmentation/train_aug.txt").unlink()
    with pytest.raises(UserError, match=r"train_aug\.txt: missing: this list is SBD's.*eir prepare-data voc"):
        open_dataset(Voc(kind="voc", root=tmp_path))


def test_ade20k(small: Server, tmp_path: Path) -> None:
    said: list[str] = []
    made = prepare_data("ade20k", tmp_path, (), (), False, said.append)
    assert made.images == {"training": 3, "validation": 2}
    data = open_dataset(Ade20k(kind="ade20k", root=tmp_path))
    assert data.train.ids == ["t0", "t1", "t2"]
    assert (tmp_path / "objectInfo150.txt").read_text() == "names"
    found = hashlib.sha256(small.files["ADE.zip"]).hexdigest()
    assert any(found in line for line in said)
    assert (tmp_path / "archives/ADE.zip.sha256").read_text().split() == [found, "ADE.zip"]


def test_a_recorded_sha256_holds_from_then_on(small: Server, tmp_path: Path) -> None:
    prepare_data("ade20k", tmp_path, (), (), False, silent)
    other = tmp_path / "other.zip"
    other.write_bytes(zipped(ade_members() | {"x": b"y"}))
    (tmp_path / "images/training/t0.jpg").unlink()
    with pytest.raises(UserError, match=r"its SHA-256 .* is not the one in"):
        prepare_data("ade20k", tmp_path, [other], (), False, silent)


def test_archives_that_the_user_has(small: Server, tmp_path: Path) -> None:
    for name, content in small.files.items():
        (tmp_path / name).write_bytes(content)
    prepared(tmp_path / "root", tmp_path / "SBD.tgz", tmp_path / "VOC.tar")
    assert small.asked == []
    assert (tmp_path / "VOC.tar").read_bytes() == small.files["VOC.tar"]
    with pytest.raises(UserError, match=r"--from .*ADE\.zip: must be named as the archive that it is, VOC\.tar or SBD\.tgz"):
        prepared(tmp_path / "root", tmp_path / "ADE.zip")
    with pytest.raises(UserError, match="no such file"):
        prepared(tmp_path / "root", tmp_path / "nothing.tar")


def random_bytes(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count)


def test_a_cut_connection_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.files, server.cut_after, server.cuts = {"a": random_bytes(5_000_000)}, 2_000_000, 2
    download(f"{server.base}/a", tmp_path / "a", 5_000_000, silent)
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert [wanted for _, wanted in server.asked] == [None, "bytes=2000000-", "bytes=4000000-"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_one_that_breaks_again_and_again_leaves_its_part_for_the_next_call(server: Server, tmp_path: Path) -> None:
    server.files, server.cut_after, server.cuts = {"a": random_bytes(2_000_000)}, 100_000, 5
    with pytest.raises(UserError, match=r"broke off 5 times; the same command goes on after 500,000 bytes"):
        download(f"{server.base}/a", tmp_path / "a", None, silent)
    assert (tmp_path / "a.part").read_bytes() == server.files["a"][:500_000]
    download(f"{server.base}/a", tmp_path / "a", None, silent)
    assert server.asked[-1] == ("/a", "bytes=500000-")
    assert (tmp_path / "a").read_bytes() == server.files["a"]


def test_a_server_without_ranges_is_read_from_the_beginning(server: Server, tmp_path: Path) -> None:
    server.files, server.ranges = {"a": random_bytes(300_000)}, False
    (tmp_path / "a.part").write_bytes(b"x" * 1000)
    said: list[str] = []
    download(f"{server.base}/a", tmp_path / "a", None, said.append)
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert any("does not continue a download" in line for line in said)


def test_a_part_that_is_the_whole_is_taken(server: Server, tmp_path: Path) -> None:
    server.files = {"a": random_bytes(1000)}
    (tmp_path / "a.part").write_bytes(server.files["a"])
    download(f"{server.base}/a", tmp_path / "a", None, silent)
    assert (tmp_path / "a").read_bytes() == server.files["a"]


def test_the_server_refuses(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/nothing: the server answers 404 \(Not Found\); give another address with --url"):
        download(f"{server.base}/nothing", tmp_path / "a", None, silent)
    with pytest.raises(UserError, match="cannot be reached"):
        download("http://127.0.0.1:9/a", tmp_path / "a", None, silent)
    server.files = {"a": b"12345"}
    with pytest.raises(UserError, match="has 5 bytes, the known archive 6"):
        download(f"{server.base}/a", tmp_path / "a", 6, silent)
    (tmp_path / "a.part").write_bytes(b"1234567")
    with pytest.raises(UserError, match="answers 416"):
        download(f"{server.base}/a", tmp_path / "a", None, silent)
    assert not (tmp_path / "a").exists()


def test_a_wrong_checksum(small: Server, tmp_path: Path) -> None:
    content = bytearray(small.files["VOC.tar"])
    content[-1] ^= 1
    small.files["VOC.tar"] = bytes(content)
    with pytest.raises(UserError, match=r"archives/VOC\.tar: its MD5 is [0-9a-f]{32}, that of VOC\.tar [0-9a-f]{32}; delete it"):
        prepared(tmp_path)
    assert not (tmp_path / "JPEGImages").exists()
    assert prepared(tmp_path, any_checksum=True).images["train_aug"] == 5


@pytest.mark.parametrize("name", ["VOC.tar", "SBD.tgz", "ADE.zip"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_truncated_archive(small: Server, tmp_path: Path, name: str, share: float) -> None:
    file = tmp_path / name
    file.write_bytes(small.files[name][: int(len(small.files[name]) * share)])
    root = tmp_path / "root"
    with pytest.raises(UserError, match=re.escape(str(file)) + ".*(cut short|damaged)"):
        prepare_data("ade20k" if name == "ADE.zip" else "voc", root, [file], (), True, silent)
    assert not any((root / folder).exists() for folder in ("images", "SegmentationClassAug"))
    assert name == "SBD.tgz" or not (root / "JPEGImages").exists()
    assert not list(root.glob(".unpacking-*"))


TOP = "VOCdevkit/VOC2012/JPEGImages"


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["../out", "/etc/out", f"{TOP}/../../../../out", "C:/out", f"{TOP}/..\\out"])
def test_a_member_that_leads_out_is_refused(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes], name: str) -> None:
    file = tmp_path / "deep/in/archive"
    file.parent.mkdir(parents=True)
    file.write_bytes(pack({f"{TOP}/a.jpg": b"a", name: b"out"}))
    with pytest.raises(UserError, match="leads out of the folder"):
        unpack(file, tmp_path / "deep/in/folder", below("VOCdevkit/VOC2012", "JPEGImages"))
    assert not list(tmp_path.rglob("out"))


def test_links_are_refused(tmp_path: Path) -> None:
    linked = tarfile.TarInfo(f"{TOP}/a.jpg")
    linked.type, linked.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.addfile(linked)
    entry = zipfile.ZipInfo(f"{TOP}/a.jpg")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr(entry, "/etc/passwd")
    for kind in ("tar", "zip"):
        with pytest.raises(UserError, match="link"):
            unpack(tmp_path / kind, tmp_path / "folder", below("VOCdevkit/VOC2012", "JPEGImages"))
    assert not (tmp_path / "folder").exists()


def test_something_incomplete_in_the_way_is_not_overwritten(small: Server, tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages/mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"JPEGImages: is there, but lacks s1\.jpg \(6 such files\); move it away"):
        prepared(tmp_path)
    assert [path.name for path in (tmp_path / "JPEGImages").iterdir()] == ["mine.jpg"]
    assert not (tmp_path / "SegmentationClass").exists()


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_the_rule_of_train_aug(sbd: set[int], train: set[int], val: set[int]) -> None:
    names = [[f"{number:02}" for number in numbers] for numbers in (sbd, train, val)]
    slow = [name for name in (f"{n:02}" for n in range(31)) if (name in names[0] or name in names[1]) and name not in names[2]]
    assert train_aug(*names) == slow


def test_the_rule_gives_the_published_lists(real_images: Path) -> None:
    """SBD's own lists are not here: any that hold what VOC's training list lacks, with validation images among them."""
    aug, val = (
        [line.split()[0] for line in (real_images / f"voc-index/{name}.txt").read_text().splitlines()]
        for name in ("train_aug", "val")
    )
    assert (len(aug), len(val)) == (10_582, 1_449)
    assert not set(aug) & set(val)
    voc_train = aug[::7]
    sbd = [name for number, name in enumerate(aug) if number % 7 or number % 14] + val[::2]
    assert train_aug(sbd, voc_train, val) == aug


def test_the_command(small: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    root, mirror = tmp_path / "voc", [word for name in ("VOC.tar", "SBD.tgz") for word in ("--url", f"{small.base}/{name}")]
    assert eir("prepare-data", "voc", "--root", str(root), *mirror, "--json", monkeypatch=monkeypatch) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["images"] == {"train": 2, "train_aug": 5, "val": 1}
    assert f"next: eir show-step configs/voc-15-5-eir.yaml --step 0 --set dataset.root={root}" in printed.err
    assert eir("prepare-data", "voc", "--root", str(root), monkeypatch=monkeypatch) == 0
    assert "train_aug has 5 images, the published data set 10,582" in capfd.readouterr().out
    for wrong in ("ftp://a/VOC.tar", "http://a/b.tar"):
        assert eir("prepare-data", "voc", "--root", str(root), "--url", wrong, monkeypatch=monkeypatch) == 2
        assert f"eir: --url {wrong}: must" in capfd.readouterr().err


def test_ctrl_c_keeps_what_has_come(server: Server, tmp_path: Path) -> None:
    """A mirror of another archive, interrupted on its way, then taken up by the same command."""
    content = zipped(ade_members() | {"padding": random_bytes(8_000_000)})
    server.files, server.slow = {"ade.zip": content}, 0.2
    command = [
        sys.executable,
        "-m",
        "eircli",
        "prepare-data",
        "ade20k",
        "--root",
        str(tmp_path),
        "--url",
        f"{server.base}/ade.zip",
    ]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    part = tmp_path / "archives/ADEChallengeData2016.zip.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGINT)
    _, told = started.communicate(timeout=30)
    assert started.returncode == 130, told
    assert "the same command goes on from here" in told
    assert "Traceback" not in told
    have = part.stat().st_size
    assert 0 < have < len(content)
    server.slow = 0
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert server.asked[-1] == ("/ade.zip", f"bytes={have}-")
    assert (tmp_path / "archives/ADEChallengeData2016.zip").read_bytes() == content
    assert len(list((tmp_path / "images/training").iterdir())) == 3


def test_ctrl_c_while_unpacking_leaves_nothing_half_made(small: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("eircli.data.sources.unpack.shutil.copyfileobj", interrupted)
        (tmp_path / "archives").mkdir()
        for name in ("VOC.tar", "SBD.tgz"):
            (tmp_path / "archives" / name).write_bytes(small.files[name])
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"archives", ".prepare-data.lock"}
    (tmp_path / ".unpacking-killed").mkdir()
    prepared(tmp_path)
    assert not list(tmp_path.glob(".unpacking-*"))
