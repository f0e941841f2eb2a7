"""Reading and checking image and label files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from eircli.common.errors import UserError
from eircli.common.types import IGNORE, Sample, UInt8Array
from eircli.data.resize import Size, resize_label, size_at

ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}
"""The end marker of a complete file by its first bytes (JPEG, PNG)."""


class FileSplit:
    """A split of image and label files (the `Split` of `types`).

    Args:
        ids: names of the images.
        images, labels: their files, in the same order.
        class_count: label files may hold the ids 0..class_count and 255.
        table: uint8 [256] that maps the ids in the files to those of the data set; None keeps them.
    """

    def __init__(
        self,
        ids: Sequence[str],
        images: Sequence[Path],
        labels: Sequence[Path],
        class_count: int,
        table: UInt8Array | None = None,
    ) -> None:
        self.ids = list(ids)
        self.images, self.labels = list(images), list(labels)
        self.class_count = class_count
        self.table = table

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int, short_side: int | None = None) -> Sample:
        with opened_image(self.images[index]) as file:
            own = file.size
            image = decode(file, size_at(own, short_side))
        return Sample(image, resize_label(self._read_label(index, own), short_side))

    def load_label(self, index: int) -> UInt8Array:
        """uint8 [H, W], class ids; checked."""
        with opened_image(self.images[index]) as image:
            size = image.size
        return self._read_label(index, size)

    def _read_label(self, index: int, size: Size) -> UInt8Array:
        """The label of an image of `size`, checked."""
        path = self.labels[index]
        with opened_image(path) as file:
            mode, label = file.mode, np.array(file)
        if mode not in ("L", "P", "1"):
            raise UserError(
                f"{path}: labels must be a single channel of class ids, this file is coded as {mode}; "
                "dataset.kind: masks reads colours, by a labelmap.txt"
            )
        if label.shape[::-1] != size:
            raise UserError(
                f"{path}: is {label.shape[1]}x{label.shape[0]} pixels, its image {self.images[index].name} is {size[0]}x{size[1]}"
            )
        label = label.astype(np.uint8)
        # uint8 wraps 255 + 1 to 0, so one max() finds ids above class_count and skips ignore.
        if (label + np.uint8(1)).max() > self.class_count + 1:
            wrong = label[label != IGNORE].max()
            raise UserError(f"{path}: holds id {wrong}; ids are 0 (background), 1..{self.class_count} and 255 (ignore)")
        return label if self.table is None else self.table[label]

    def present(self, index: int) -> list[int]:
        check_ending(self.images[index])
        check_ending(self.labels[index])
        # Pillow's histogram reads uint8; np.bincount would convert to int64.
        return np.flatnonzero(Image.fromarray(self.load_label(index)).histogram()).tolist()

    def fingerprint(self) -> str:
        return self._hash(self.images + self.labels)

    def sample_fingerprint(self, index: int) -> str:
        return self._hash([self.images[index], self.labels[index]])

    def _hash(self, files: Sequence[Path]) -> str:
        """A hash of files' names, sizes and modification times, and of the mapping of their ids."""
        digest = hashlib.sha256(repr((self.class_count, None if self.table is None else self.table.tolist())).encode())
        for path in files:
            try:
                status = path.stat()
            except OSError as error:
                raise unreadable(path, error) from None
            digest.update(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


Complain = Callable[[UserError], None]
"""What is done about a file that does not fit: raising the error, or noting it and going on without the file."""


def raise_it(error: UserError) -> None:
    """Complain by raising."""
    raise error


def pair_files(
    images: Path, labels: Path, class_count: int, table: UInt8Array | None = None, complain: Complain = raise_it
) -> FileSplit:
    """The split of a folder of images and a folder of PNG labels of the same names.

    Args:
        table: uint8 [256], as in `FileSplit`.
        complain: is told of every image without a label, label without an image, and image whose name is taken.

    Raises:
        UserError: a missing or empty folder; or what `complain` raises.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; check dataset.root and the names of the splits")
    found = images_by_name(images, complain=complain)
    labelled = {path.stem: path for path in sorted(labels.glob("*.png"))}
    if not found:
        raise UserError(f"{images}: holds no image")
    unpaired = sorted(found.keys() - labelled.keys())
    for name in unpaired:
        complain(UserError(f"{labels / name}.png: missing, the label of {found[name].name} ({len(unpaired)} such images)"))
    lonely = sorted(labelled.keys() - found.keys())
    for name in lonely:
        complain(
            UserError(f"{images / name}.*: missing, the image of the label {labelled[name].name} ({len(lonely)} such labels)")
        )
    names = [name for name in found if name in labelled]
    return FileSplit(names, [found[n] for n in names], [labelled[n] for n in names], class_count, table)


def image_endings() -> set[str]:
    """The endings, in lower case, of the image files that can be read."""
    return {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def images_by_name(folder: Path, recursive: bool = False, complain: Complain = raise_it) -> dict[str, Path]:
    """The image files of a folder, sorted, by their names without the ending; of its subfolders too if `recursive`.

    Raises:
        UserError: two of one name.
    """
    known = image_endings()
    pictures = [path for path in sorted(folder.glob("**/*" if recursive else "*")) if path.suffix.lower() in known]
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in pictures}
    for path in pictures:
        if (other := found[path.relative_to(folder).with_suffix("").as_posix()]) != path:
            complain(UserError(f"{path}: has the same name as {other.name}; keep one of them"))
    return found


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a text file."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None


def decode(file: Image.Image, size: Size) -> UInt8Array:
    """The pixels of an opened image file at `size`, uint8 [H, W, 3], bilinear with antialiasing.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that still is at least twice `size`: it takes less time, and the
    resizing that follows leaves next to no difference.
    """
    box = None
    if size != file.size and (draft := file.draft(None, (2 * size[0], 2 * size[1]))) is not None:
        box = draft[1]  # the region of the draft-decoded pixels that is the image
    picture = file.convert("RGB")
    return np.array(picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR, box))


@contextmanager
def opened_image(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image file, or its content within the file `path`; errors inside the block become a `UserError` that names it."""
    try:
        with Image.open(path if content is None else BytesIO(content)) as file:
            yield file
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for broken PNG chunks
        raise unreadable(path, error) from None


def check_ending(path: Path) -> None:
    """Detect truncated files without decoding them: a JPEG's end marker cannot occur inside its data.

    Raises:
        UserError: the file is truncated, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(0, 2)
            file.seek(max(file.tell() - 1024, 0))
            end = file.read()
    except OSError as error:
        raise unreadable(path, error) from None
    if start in ENDINGS and ENDINGS[start] not in end:
        raise UserError(f"{path}: truncated: the file ends before its image does; copy it again")


def unreadable(path: Path, error: Exception) -> UserError:
    """The error of a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: missing; check dataset.root")
    return UserError(f"{path}: cannot be read ({' '.join(str(error).split())}); copy it again or take it out of the split")
