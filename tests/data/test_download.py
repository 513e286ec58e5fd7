from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from diffgrm.data import download
from diffgrm.data.download import fetch
from diffgrm.foundation.schema import DownloadError
from helpers.servers import FileServer

CONTENT = bytes(range(256)) * 1000


def left_in(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.fixture
def server():
    with FileServer({"big": CONTENT}) as running:
        yield running


@pytest.fixture
def big(server, tmp_path):
    return lambda checksum=None: fetch(f"{server.url}/big", tmp_path / "folder" / "big", checksum)


def test_a_missing_file_names_its_url(server, tmp_path):
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server.url}/nowhere", tmp_path / "nowhere")
    assert f"404 Client Error: Not Found for url: {server.url}/nowhere" in str(caught.value)
    assert "bytes are kept" not in str(caught.value)
    assert len(server.requests) == 1 and not left_in(tmp_path)


def test_a_place_without_locks_is_a_download_error(big, monkeypatch):
    monkeypatch.setattr(download, "acquired", Mock(side_effect=OSError(95, "Operation not supported")))
    with pytest.raises(DownloadError, match="big cannot be written: .*Operation not supported"):
        big()


def test_a_server_that_is_off_is_a_download_error(server, big):
    server.close()
    with pytest.raises(DownloadError, match=f"{server.url}/big could not be downloaded"):
        big()


def test_a_broken_download_goes_on_where_it_stopped(server, big):
    server.break_after["big"] = [100_000, 50_000]
    assert big().read_bytes() == CONTENT
    assert server.asked("big") == [None, "bytes=100000-", "bytes=150000-"]


def test_a_broken_download_goes_on_in_a_later_call(server, big, tmp_path):
    server.break_after["big"] = [1000] * download.ATTEMPTS
    with pytest.raises(DownloadError, match=r"5,000 bytes are kept in .*big\.part; try again"):
        big()
    assert not (tmp_path / "folder" / "big").exists()
    assert big().read_bytes() == CONTENT
    assert server.asked("big")[-1] == "bytes=5000-"
    assert left_in(tmp_path / "folder") == {"big", "big.sha256"}


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_a_file_that_is_replaced_meanwhile_is_fetched_anew(server, big, tmp_path, name):
    versions = {"ETag": ('"old"', '"new"'), "Last-Modified": [f"Mon, 0{n} Jan 2024 00:00:00 GMT" for n in (1, 8)]}[name]
    server.headers["big"], server.break_after["big"] = {name: versions[0]}, [1000] * download.ATTEMPTS
    with pytest.raises(DownloadError, match="5,000 bytes are kept"):
        big()
    server.files["big"], server.headers["big"] = CONTENT[::-1], {name: versions[1]}
    assert big().read_bytes() == CONTENT[::-1]
    assert left_in(tmp_path / "folder") == {"big", "big.sha256"}


def test_several_who_fetch_a_file_get_it_whole_and_download_it_once(server, tmp_path):
    server.break_after["big"] = [100_000]
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(f"{server.url}/big", tmp_path / "big"), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert server.asked("big") == [None, "bytes=100000-"]


def test_more_bytes_than_the_file_has_are_not_kept(big, tmp_path, monkeypatch):
    as_sent = download._bytes_as_sent
    extra = [b"of another process"]
    monkeypatch.setattr(download, "_bytes_as_sent", lambda answer: [*as_sent(answer), *(extra and [extra.pop()])])
    assert big().read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, big):
    server.ranges, server.break_after["big"] = False, [100_000]
    assert big().read_bytes() == CONTENT
    assert server.asked("big") == [None, "bytes=100000-"]


@pytest.fixture
def begun(tmp_path):
    """Leave what a download that broke off leaves."""

    def leave(content, version=""):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "big.part").write_bytes(content)
        if version is not None:
            (tmp_path / "folder" / "big.part.version").write_text(version)

    return leave


def test_a_part_of_no_known_version_is_not_gone_on_with(server, big, tmp_path, begun):
    begun(b"of an older file", version=None)
    server.headers["big"] = {"ETag": '"new"'}
    assert big().read_bytes() == CONTENT
    assert server.asked("big") == [None]
    assert left_in(tmp_path / "folder") == {"big", "big.sha256"}


def test_a_part_that_is_whole_already_is_taken(server, big, begun):
    begun(CONTENT)
    assert big().read_bytes() == CONTENT
    assert server.asked("big") == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(server, big, begun):
    begun(CONTENT + b"of an older file")
    assert big().read_bytes() == CONTENT
    assert server.asked("big") == [f"bytes={len(CONTENT) + 16}-", None]


def test_a_resumed_file_is_compared_with_the_checksum(server, big):
    server.break_after["big"] = [100_000]
    assert big("sha256:" + hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_asked_for_again(server, big):
    assert big() == big()
    assert len(server.requests) == 1


def test_a_file_that_changed_since_its_download_is_noticed(big):
    path = big()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match="has changed since it was downloaded; delete it and try again"):
        big()
    path.unlink()
    assert big().read_bytes() == CONTENT
