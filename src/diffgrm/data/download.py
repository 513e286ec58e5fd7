"""Fetch a file whole: progress, resume, checksum, and a cache."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
import urllib3
from filelock import Timeout

from diffgrm.foundation.outputs import acquired, told
from diffgrm.foundation.schema import DownloadError
from diffgrm.foundation.storage import file_digest
from diffgrm.foundation.terminal import progress_bar

logger = logging.getLogger(__name__)

MD5 = re.compile(r"\b[0-9a-fA-F]{32}\b")
CHUNK, ATTEMPTS, TIMEOUT = 1 << 16, 5, 30


def fetch(url: str, path: Path, checksum: str | Callable[[], str | None] | None = None) -> Path:
    """Download ``url`` to ``path`` unless it is there already.

    A download that breaks off goes on where it stopped, also in a later call, unless the server says that the file is
    another one since, or what it said of the file is not kept (by versions before 0.2). One process downloads a file at a
    time. A publisher's checksum is compared where there is one; the SHA-256 of the first download is kept beside the file
    in any case, and later calls compare with it.

    Args:
        checksum: ``"md5:..."`` or ``"sha256:..."``; or what finds it, asked only where the file is to be downloaded.

    Raises:
        DownloadError: the server cannot be reached or refuses, or the file is not the expected one.
    """
    if not path.is_file():
        with _alone(path):
            if not path.is_file():  # nobody fetched it meanwhile
                return _fetched(url, path, checksum() if callable(checksum) else checksum)
    record = _beside(path, ".sha256")
    if record.is_file() and file_digest(path) != record.read_text().strip():
        raise DownloadError(f"{path} has changed since it was downloaded; delete it and try again")
    return path


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until nobody else downloads to a path, and let nobody else meanwhile."""
    place = path.with_name(f".{path.name}.lock")
    try:
        try:
            lock = acquired(place, timeout=0)
        except Timeout:
            logger.info("waiting for another process that downloads %s", path)
            lock = acquired(place)
    except OSError as error:
        raise DownloadError(f"{path} cannot be written: {told(error)}") from error
    try:
        yield
    finally:
        lock.release()


def _fetched(url: str, path: Path, checksum: str | None) -> Path:
    part = _beside(path, ".part")
    _download(url, part)
    if checksum is not None:
        algorithm, _, wanted = checksum.partition(":")
        if (found := file_digest(part, algorithm)) != wanted:
            part.unlink()
            _beside(part, ".version").unlink(missing_ok=True)
            raise DownloadError(
                f"{url}: the {algorithm} checksum is {found}, expected {wanted}; the download was discarded"
            )
    _beside(path, ".sha256").write_text(file_digest(part) + "\n")
    part.replace(path)
    _beside(part, ".version").unlink(missing_ok=True)
    return path


def published_md5(url: str) -> str | None:
    """The checksum in the file ``URL.md5`` beside a file, for :func:`fetch`.

    Returns:
        None, with a warning, where there is no such file.

    Raises:
        DownloadError: what stands there holds no checksum, or more than one, or the server cannot be reached.
    """
    try:
        answer = requests.get(f"{url}.md5", timeout=TIMEOUT)
        if answer.status_code == 404:
            logger.warning("%s.md5 is not there: the file cannot be compared with its publisher's checksum", url)
            return None
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DownloadError(f"{url}.md5 could not be downloaded: {error}") from error
    found = set(MD5.findall(answer.text))
    if len(found) != 1:
        raise DownloadError(f"{url}.md5 holds {len(found)} MD5 checksums; expected one: {answer.text[:100]!r}")
    return f"md5:{found.pop().lower()}"


def _download(url: str, part: Path) -> None:
    """Fill ``part``, in several attempts if need be."""
    for attempt in range(1, ATTEMPTS + 1):
        have = _kept(part)
        try:
            _attempt(url, part, have)
            return
        except requests.RequestException as error:
            got = _kept(part)
            if attempt == ATTEMPTS or (isinstance(error, requests.HTTPError) and got == have):
                kept = f". {got:,} bytes are kept in {part}; try again to go on from there" if got else ""
                raise DownloadError(f"{url} could not be downloaded: {error}{kept}") from error
            logger.warning("%s broke off after %d bytes (%s); going on from there", url, got, error)


def _kept(part: Path) -> int:
    """How many bytes are there to go on from; none where it is not noted which version of the file they are of."""
    return part.stat().st_size if part.is_file() and _beside(part, ".version").is_file() else 0


def _attempt(url: str, part: Path, have: int) -> None:
    version = _beside(part, ".version")  # of the file that the bytes are of, as the server tells it, if it does
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    if have and (noted := version.read_text()):
        headers["If-Range"] = noted
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing left to ask for
            whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if whole.isdigit() and int(whole) != have:
                part.unlink()
                raise requests.ConnectionError(f"{have} bytes were kept of a file that has {whole} now: starting over")
            return
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0  # the server starts over
            part.unlink(missing_ok=True)
            version.write_text(_version(answer))
        size = int(answer.headers.get("Content-Length", 0))
        with part.open("ab" if have else "wb") as file:
            for chunk in _with_progress(_bytes_as_sent(answer), url, have, have + size):
                file.write(chunk)
    if size and (got := part.stat().st_size) != have + size:
        if got > have + size:  # somebody else wrote too
            part.unlink()
        raise requests.ConnectionError(f"{got} of {have + size} bytes arrived")


def _version(answer: requests.Response) -> str:
    """What a server compares a file with where it is asked for the rest of it; empty where it tells nothing."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _bytes_as_sent(answer: requests.Response) -> Iterator[bytes]:
    """The body undecoded: some servers label a ``.gz`` file as an encoding, and requests would unpack it."""
    try:
        yield from answer.raw.stream(CHUNK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error


def _with_progress(chunks: Iterator[bytes], url: str, have: int, total: int) -> Iterator[bytes]:
    with progress_bar(url.rsplit("/", 1)[-1], total or None, done=have, in_bytes=True) as progress:
        for chunk in chunks:
            progress(len(chunk))
            yield chunk


def name_for(url: str) -> str:
    """A short folder name for a server, so that two servers' files of one name are kept apart."""
    return hashlib.sha256(url.encode()).hexdigest()[:8]
