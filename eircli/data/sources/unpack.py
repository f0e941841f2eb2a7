"""Archives, member by member, none of which may lead out of the folder that it is unpacked to."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from eircli.common.errors import UserError
from eircli.common.progress import progress

Place = Callable[[PurePosixPath], PurePosixPath | None]
"""Where a member of this name goes; None if it is not wanted."""

STEP = 2**20
"""Bytes of an archive per step of the bar."""


def below(prefix: str, *wanted: str) -> Place:
    """The place, without `prefix`, of members below it that lie in one of the `wanted` folders, or are such a file.

    Example:
        >>> below("VOCdevkit/VOC2012", "JPEGImages")(PurePosixPath("VOCdevkit/VOC2012/JPEGImages/a.jpg"))
        PurePosixPath('JPEGImages/a.jpg')
    """

    def place(name: PurePosixPath) -> PurePosixPath | None:
        if not name.is_relative_to(prefix):
            return None
        inside = name.relative_to(prefix)
        return inside if any(inside.is_relative_to(folder) for folder in wanted) else None

    return place


def unpack(archive: Path, folder: Path, place: Place) -> int:
    """Write the wanted files of an archive into a new `folder`; how many there are.

    Raises:
        UserError: as `read_members`; or the archive is damaged or cut short.
    """
    count = 0
    with damage_named(archive):
        for name, content in read_members(archive, folder, place):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
            count += 1
    return count


def read_members(archive: Path, folder: Path, place: Place) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The wanted files of a tar (compressed or not) or zip archive, in its order: their place, and their content to read at once.

    Args:
        folder: what they would be unpacked to.

    Raises:
        UserError: a member's path leads out, or a wanted one is a link or device. Damage raises what the library raises, here or
            while the content is read (`damage_named`).
    """
    kind = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    for name, content in kind(archive, folder, place):
        with content:
            yield name, content


def _tar_members(archive: Path, folder: Path, place: Place) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar, _bar(archive) as reach:
        for member in tar:
            name = _checked(archive, member.name)
            wanted = None if member.isdir() else place(name)
            if wanted is not None:
                try:
                    tarfile.data_filter(member, str(folder))
                except tarfile.FilterError as error:
                    raise UserError(f"{archive}: {error}; this is not the known archive") from None
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise UserError(f"{archive}: {name} is a link or device; this is not the known archive")
                yield wanted, content
            reach(file.tell())


def _zip_members(archive: Path, folder: Path, place: Place) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file, _bar(archive) as reach:
        done = 0
        for member in file.infolist():
            name = _checked(archive, member.filename)
            wanted = None if member.is_dir() else place(name)
            if wanted is not None:
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise UserError(f"{archive}: {name} is a link; this is not the known archive")
                yield wanted, file.open(member)
            done += member.compress_size
            reach(done)


def _checked(archive: Path, name: str) -> PurePosixPath:
    """A member's path, if it stays inside."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in "".join(path.parts[:1]):
        raise UserError(f"{archive}: holds '{name}', which leads out of the folder; this is not the known archive")
    return path


@contextmanager
def _bar(archive: Path) -> Iterator[Callable[[int], None]]:
    """A bar over an archive's bytes: what is yielded moves it to a position."""
    steps, at = -(-archive.stat().st_size // STEP), 0
    with progress(f"unpacking {archive.name}", steps, "MB", scale=STEP / 1e6) as reporter:

        def reach(position: int) -> None:
            nonlocal at
            if (ahead := min(position // STEP, steps) - at) > 0:
                reporter.advance(ahead)
                at += ahead

        yield reach


@contextmanager
def damage_named(archive: Path) -> Iterator[None]:
    """What a damaged archive raises while its members are read becomes a `UserError` that names it."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.filename or error.errno:
            raise
        raise _damaged(archive, error) from None  # gzip raises a bare OSError


def _damaged(archive: Path, error: Exception) -> UserError:
    return UserError(f"{archive}: damaged or cut short ({error}); delete it and run the command again")
