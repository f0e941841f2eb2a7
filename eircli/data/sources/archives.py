"""The archives of public data sets: where they lie, and how they are known to be whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eircli.common.errors import UserError
from eircli.common.io import sha256, write_text
from eircli.common.progress import Say


@dataclass(frozen=True)
class Archive:
    """A file that its authors publish."""

    name: str
    url: str
    size: int | None = None
    """Bytes; None where we do not know it for certain."""
    md5: str | None = None
    """Hexadecimal; None where we do not know it for certain."""


VOC = Archive(
    "VOCtrainval_11-May-2012.tar",
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    1_999_639_040,
    "6cd6e144f989b92b3379bac3b3de84fd",
)
"""PASCAL VOC 2012's training and validation images."""

SBD = Archive(
    "benchmark.tgz",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    1_419_539_633,
    "82b4d87ceb2ed10f6038a1cba92111cb",
)
"""The Semantic Boundaries Dataset (Hariharan et al., ICCV 2011): labels of more of VOC's images."""

ADE20K = Archive("ADEChallengeData2016.zip", "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip")
"""ADE20K's scene parsing benchmark. Neither its size nor its digest is published where we could check it."""


def check(file: Path, archive: Archive, records: Path, any_checksum: bool, say: Say) -> None:
    """Check an archive's file against what is known of it; where nothing is, print its SHA-256 and record it in `records`.

    A SHA-256 that was recorded there before is what is known of it from then on.

    Args:
        any_checksum: accept another digest than the known one, and treat the archive as one of which nothing is known.

    Raises:
        UserError: the file is another one, or cut short.
    """
    size = file.stat().st_size
    cure = "delete it and run the command again, or take it as it is with --any-checksum"
    if archive.size is not None and size != archive.size and not any_checksum:
        raise UserError(f"{file}: has {size:,} bytes, {archive.name} has {archive.size:,}; {cure}")
    if archive.md5 is not None and not any_checksum:
        say(f"checking: {file}")
        if (found := md5(file)) != archive.md5:
            raise UserError(f"{file}: its MD5 is {found}, that of {archive.name} {archive.md5}; {cure}")
        return
    found, record = sha256(file), records / f"{archive.name}.sha256"
    if record.is_file() and record.read_text().split()[0] != found and not any_checksum:
        raise UserError(f"{file}: its SHA-256 {found} is not the one in {record}; {cure}")
    write_text(record, f"{found}  {file.name}\n")
    say(f"SHA-256 of {file}: {found} (no digest of it is known; written to {record})")


def md5(file: Path) -> str:
    """The hexadecimal MD5 of a file: enough against damage, not against malice."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def given_files(files: Sequence[Path], archives: Sequence[Archive]) -> dict[str, Path]:
    """Which archive each of the user's files is, by name; where only one is wanted, any name will do.

    Raises:
        UserError: no such file, or a name that is none of the archives'.
    """
    found = {}
    for file in files:
        if not file.is_file():
            raise UserError(f"--from {file}: no such file")
        found[_matching(file.name, archives, f"--from {file}")] = file
    return found


def given_urls(urls: Sequence[str], archives: Sequence[Archive]) -> dict[str, str]:
    """Which archive each URL of the user's leads to, as `given_files`.

    Raises:
        UserError: not HTTP, or a name that is none of the archives'.
    """
    found = {}
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--url {url}: must begin with http:// or https://; give a file here with --from")
        found[_matching(url.partition("?")[0].rpartition("/")[2], archives, f"--url {url}")] = url
    return found


def _matching(name: str, archives: Sequence[Archive], option: str) -> str:
    if len(archives) == 1:
        return archives[0].name
    if name not in (known := [archive.name for archive in archives]):
        raise UserError(f"{option}: must be named as the archive that it is, {' or '.join(known)}")
    return name
