"""`eir prepare-data`: a public data set, fetched, checked and laid out as its kind wants it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from eircli.common.errors import UserError
from eircli.common.io import write_text
from eircli.common.progress import Say
from eircli.data import ade20k, voc
from eircli.data.files import read_lines
from eircli.data.sources import archives as sources
from eircli.data.sources.archives import Archive
from eircli.data.sources.download import download
from eircli.data.sources.sbd import augment
from eircli.data.sources.unpack import Place, below, unpack

Name = Literal["voc", "ade20k"]

GapIn = Callable[[Path], str | None]
"""The first thing that a folder lacks; None if it is complete."""

ARCHIVES: Mapping[Name, tuple[Archive, ...]] = {"voc": (sources.VOC, sources.SBD), "ade20k": (sources.ADE20K,)}
"""What each data set is made of."""

DEVKIT = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
ADE_FOLDERS = ("images", "annotations")


@dataclass(frozen=True)
class Prepared:
    """What lies where."""

    root: str
    """What `dataset.root` must be."""
    images: dict[str, int]
    """Images of each list or split."""
    known: dict[str, int]
    """How many the published data set has of them."""
    archives: list[str]
    """Downloaded files, which may be deleted now."""

    @property
    def differs(self) -> list[str]:
        """The lists whose count is not the published one."""
        return [name for name, count in self.images.items() if self.known.get(name, count) != count]


@dataclass(frozen=True)
class Sources:
    """Where archives come from, and how strictly they are taken."""

    root: Path
    archives: tuple[Archive, ...]
    files: Mapping[str, Path]
    """Those that the user has, by the archive's name."""
    urls: Mapping[str, str]
    """Other addresses than the known ones, by the archive's name."""
    any_checksum: bool
    say: Say

    @property
    def folder(self) -> Path:
        """Where downloads are kept."""
        return self.root / "archives"

    def file(self, archive: Archive) -> Path:
        """An archive's file, downloaded if need be, checked."""
        path = self.files.get(archive.name, self.folder / archive.name)
        if not path.exists():
            size = None if self.any_checksum else archive.size
            download(self.urls.get(archive.name, archive.url), path, size, self.say)
        sources.check(path, archive, self.folder, self.any_checksum, self.say)
        return path


def prepare_data(name: Name, root: Path, files: Sequence[Path], urls: Sequence[str], any_checksum: bool, say: Say) -> Prepared:
    """Lay out a data set in `root`; what is there and complete is left as it is, and needs no archive.

    Args:
        files: archives that the user has already; the others are downloaded to `root`/archives.
        urls: addresses to take instead of the known ones.
        any_checksum: take archives whose digest is not the known one.

    Raises:
        UserError: an archive cannot be had, is another one, damaged or unsafe; or something incomplete is in the way.
    """
    wanted = ARCHIVES[name]
    given = Sources(root, wanted, sources.given_files(files, wanted), sources.given_urls(urls, wanted), any_checksum, say)
    with _alone(root):
        return {"voc": _voc, "ade20k": _ade20k}[name](given)


def _voc(given: Sources) -> Prepared:
    root, lists = given.root, given.root / "ImageSets/Segmentation"
    if _devkit_gap(root):
        _lay_out(given, sources.VOC, below("VOCdevkit/VOC2012", *DEVKIT), DEVKIT, _devkit_gap)
    if gap := _augmented_gap(root):
        if (root / "SegmentationClassAug").exists():
            raise UserError(f"{gap}, though {root / 'SegmentationClassAug'} is there; move that folder away")
        archive = given.file(sources.SBD)
        with _scratch(root) as scratch:
            names = augment(root, archive, scratch)
            if gap := _missing("JPEGImages", names, _stems(root / "JPEGImages")):
                raise UserError(f"{root}: {gap}, which {archive.name} labels")
            scratch.rename(root / "SegmentationClassAug")
        write_text(lists / "train_aug.txt", "".join(f"{image}\n" for image in names))
    counts = {name: len(read_lines(lists / f"{name}.txt")) for name in voc.IMAGES}
    return Prepared(str(root), counts, voc.IMAGES, _kept(given))


def _ade20k(given: Sources) -> Prepared:
    root, extras = given.root, ("objectInfo150.txt", "sceneCategories.txt")
    if _ade_gap(root):
        _lay_out(given, sources.ADE20K, below("ADEChallengeData2016", *ADE_FOLDERS, *extras), ADE_FOLDERS, _ade_gap)
    counts = {split: len(_stems(root / "images" / split)) for split in ade20k.IMAGES}
    return Prepared(str(root), counts, ade20k.IMAGES, _kept(given))


def _devkit_gap(root: Path) -> str | None:
    """The first thing that the devkit's folders lack; None if they are complete."""
    images, masks = _stems(root / "JPEGImages"), _stems(root / "SegmentationClass")
    for name in ("train", "val"):
        path = root / "ImageSets/Segmentation" / f"{name}.txt"
        if not path.is_file():
            return f"{path}: missing"
        names = read_lines(path)
        if gap := _missing("JPEGImages", names, images) or _missing("SegmentationClass", names, masks):
            return f"{root}: {gap}"
    return None


def _augmented_gap(root: Path) -> str | None:
    path = root / "ImageSets/Segmentation/train_aug.txt"
    masks = root / "SegmentationClassAug"
    if not masks.is_dir():
        return f"{masks}: missing"
    if not path.is_file():
        return f"{path}: missing"
    names = [Path(line.split()[0]).stem for line in read_lines(path)]
    gap = _missing(masks.name, names, _stems(masks))
    return f"{root}: {gap}" if gap else None


def _ade_gap(root: Path) -> str | None:
    for split in ade20k.IMAGES:
        images, masks = (_stems(root / folder / split) for folder in ADE_FOLDERS)
        if not images:
            return f"{root / 'images' / split}: holds no image"
        if gap := _missing(f"annotations/{split}", images, masks) or _missing(f"images/{split}", masks, images):
            return f"{root}: {gap}"
    return None


def _missing(folder: str, names: Sequence[str] | set[str], found: set[str]) -> str | None:
    missing = sorted(set(names) - found)
    return f"{folder} lacks {missing[0]} ({len(missing)} such files)" if missing else None


def _stems(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()} if folder.is_dir() else set()


def _lay_out(given: Sources, archive: Archive, place: Place, folders: Sequence[str], gap_in: GapIn) -> None:
    """Unpack an archive, check that it is all there, and move it to its place, folder by folder.

    A folder that an interrupted move has left in its place already is the same, and stays.
    """
    file = given.file(archive)
    with _scratch(given.root) as scratch:
        unpack(file, scratch, place)
        if gap := gap_in(scratch):
            raise UserError(f"{file}: {gap.replace(f'{scratch}', 'it').replace('it: ', '')}; it is cut short or another archive")
        for folder in folders:
            _make_way(scratch / folder, given.root / folder)
        for path in [*(scratch / folder for folder in folders), *(p for p in scratch.iterdir() if p.is_file())]:
            target = given.root / path.relative_to(scratch)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)


def _make_way(fresh: Path, target: Path) -> None:
    """Refuse to leave a folder in place that lacks files; remove an empty one."""
    if not target.exists():
        return
    names = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    if not names:
        shutil.rmtree(target)
    elif missing := sorted(path for path in fresh.rglob("*") if path.is_file() and path.relative_to(fresh) not in names):
        raise UserError(
            f"{target}: is there, but lacks {missing[0].name} ({len(missing)} such files); move it away, and run the command again"
        )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Make the folder, and keep other commands out of it; remove what a killed one has left."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".prepare-data.lock", timeout=0):
            for path in root.glob(".unpacking-*"):
                shutil.rmtree(path)
            yield
    except Timeout:
        raise UserError(f"{root}: another eir prepare-data is at work there; wait for it") from None


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A new folder in `root`, on the same disk as what it is renamed to; removed at the end if it is still there."""
    folder = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=root))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kept(given: Sources) -> list[str]:
    return [str(path) for archive in given.archives if (path := given.folder / archive.name).is_file()]
