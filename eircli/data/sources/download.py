"""Downloading a large file over HTTP, which goes on where it was interrupted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from eircli import __version__
from eircli.common.errors import UserError
from eircli.common.progress import Say, progress

CHUNK = 2**20
"""Bytes per read, and per step of the bar."""

ATTEMPTS = 5
"""How often a connection that breaks off is taken up again before the command gives up."""

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken off."""


class _Body(NamedTuple):
    """What a server answers."""

    response: HTTPResponse
    start: int
    """The position in the file of its first byte."""
    total: int | None
    """The file's bytes; None where the server does not say."""


def download(url: str, target: Path, size: int | None, say: Say) -> None:
    """Download `url` to `target`, by way of `target`.part, which an interruption leaves and the next call continues.

    A server that does not continue is read from the beginning.

    Args:
        size: bytes that the file must have; None if not known.

    Raises:
        UserError: the server is not reached or refuses, has a file of another size, the connection breaks off again and
            again, or the disk has no room.
    """
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        if _fetch(url, part, size, say):
            part.replace(target)
            return
        say(f"the connection broke off after {_length(part) / 1e6:,.1f} MB; taking it up again")
    raise UserError(f"{url}: the connection broke off {ATTEMPTS} times; the same command goes on after {_length(part):,} bytes")


def _fetch(url: str, part: Path, size: int | None, say: Say) -> bool:
    """Read what is missing of a file; whether it is whole."""
    have = _length(part)
    with _opened(url, have) as body:
        if body is None:  # the server has nothing after what there is
            return True
        _check_total(url, body, size, part)
        if body.start < have:
            say(f"{url}: this server does not continue a download; from the beginning")
        else:
            say(f"downloading: {url}" + (f", from byte {have:,} on" if have else ""))
        try:
            _copy(body, part)
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # the disk's, not the connection's
        return body.total is None or _length(part) == body.total


def _copy(body: _Body, part: Path) -> None:
    total = -(-body.total // CHUNK) if body.total is not None else 0
    with part.open("ab" if body.start else "wb") as file:
        if not total:  # of unknown size: no bar
            shutil.copyfileobj(body.response, file, CHUNK)
            return
        with progress(part.stem, total, "MB", scale=CHUNK / 1e6, done=body.start // CHUNK) as bar:
            while chunk := body.response.read(CHUNK):
                file.write(chunk)
                bar.advance()


@contextmanager
def _opened(url: str, have: int) -> Iterator[_Body | None]:
    """The server's answer to a request for the bytes from `have` on; None if there are none."""
    headers = {"User-Agent": f"eir/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and _total(error.headers.get("Content-Range")) == have:
            yield None
            return
        raise UserError(f"{url}: the server answers {error.code} ({error.reason}); {_CURE}") from None
    except (URLError, OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be reached ({reason}); {_CURE}") from None
    with response:
        continued = response.status == HTTPStatus.PARTIAL_CONTENT
        total = _total(response.headers.get("Content-Range")) if continued else response.length
        yield _Body(response, have if continued else 0, total)


_CURE = "give another address with --url, or a file that you have with --from"


def _check_total(url: str, body: _Body, size: int | None, part: Path) -> None:
    if body.total is None:
        return
    if size is not None and body.total != size:
        raise UserError(
            f"{url}: has {body.total:,} bytes, the known archive {size:,}; {_CURE}, or take it as it is with --any-checksum"
        )
    needed, free = body.total - body.start, shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(f"{part.parent}: {needed / 1e9:.1f} GB are to be downloaded, {free / 1e9:.1f} GB are free; free some")


def _total(content_range: str | None) -> int | None:
    """The size in "bytes 5-9/10" or "bytes */10"."""
    found = re.fullmatch(r"bytes .*/(\d+)", content_range or "")
    return int(found[1]) if found else None


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
