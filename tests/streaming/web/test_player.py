"""The files with which a browser plays: which they are, and how they are served."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.datastructures import Headers

from streaming.cli.server_arguments import make_outlets, read_arguments
from streaming.support.http import Answer
from streaming.web import player
from streaming.web.player import Player, PlayerFile

VENDOR = Path(player.__file__).parent / "static/vendor"
WASM = "ort-wasm-simd-threaded.wasm"


async def _body(answer: Answer) -> bytes:
    if answer.pieces is None:
        return answer.body
    async with aclosing(answer.pieces()) as pieces:
        return b"".join([piece async for piece in pieces])


def ask(where: str, served: Player | None = None, **headers: str) -> tuple[Answer, bytes]:
    """The answer to a request, and its whole body; underscores in headers stand for hyphens."""
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]

    async def asking() -> tuple[Answer, bytes]:
        answer = await (served or Player()).answer(where, Headers(fields))
        assert answer is not None
        body = await _body(answer)
        if answer.pieces is not None:
            assert len(body) == answer.length
        return answer, body

    return asyncio.run(asking())


def named(name: str) -> PlayerFile:
    return next(file for file in player.files() if file.name == name)


@pytest.fixture
def some_files(tmp_path, monkeypatch):
    """A large file, one that lies compressed and two modules, in place of the real ones."""
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 8192)
    (tmp_path / "packed.wasm.gz").write_bytes(gzip.compress(b"0123456789" * 100))
    (tmp_path / "graph.onnx").write_bytes(b"graph")
    (tmp_path / "one.js").write_text("export const one = 1;\n")
    (tmp_path / "two.js").write_text('import { one } from "./one.js";\n')
    monkeypatch.setattr(player, "_paths", lambda: iter(sorted(tmp_path.iterdir())))
    return tmp_path


# What there is


def test_the_vendored_runtime_is_what_was_published():
    listed = json.loads((VENDOR / "onnxruntime-web.json").read_text())
    packed = sorted(path.name.removesuffix(".gz") for path in VENDOR.glob("*.gz"))
    assert packed == sorted(file["name"] for file in listed["files"])
    for file in listed["files"]:
        content = gzip.decompress((VENDOR / f"{file['name']}.gz").read_bytes())
        assert len(content) == file["bytes"]
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert (VENDOR / "LICENSE").read_text().startswith("MIT License")
    assert (VENDOR / "ThirdPartyNotices.txt").stat().st_size > 100_000


def test_the_runtime_is_there_with_true_digests():
    files = player.files()
    assert {"ort.wasm.bundle.min.mjs", WASM} <= {file.name for file in files}
    for file in files:
        answer, body = ask(f"/{file.url}")
        assert answer.status is HTTPStatus.OK
        assert len(body) == file.size
        assert hashlib.sha256(body).hexdigest() == file.sha256
        packed, body = ask(f"/{file.url}", Accept_Encoding="gzip, br")
        assert len(body) == file.gzip_bytes <= file.size
        if "Content-Encoding" in packed.headers:
            assert hashlib.sha256(gzip.decompress(body)).hexdigest() == file.sha256


def test_modules_share_a_folder_that_changes_with_any_of_them(some_files):
    def folder(name: str) -> str:
        return named(name).url.split("/")[1]

    before = folder("one.js")
    assert folder("two.js") == before != named("one.js").sha256
    (some_files / "two.js").write_text("changed")
    assert folder("one.js") == folder("two.js") != before
    assert folder("large.bin") == named("large.bin").sha256


def test_player_json_is_the_manifest(some_files):
    answer, body = ask("/player.json")
    listed = json.loads(body)
    assert [file["name"] for file in listed] == [file.name for file in player.files()]
    assert all(set(file) == {"name", "sha256", "bytes", "gzip_bytes", "url"} for file in listed)
    assert answer.response().headers["Cache-Control"] == "no-store"


def test_without_graphs_nothing_is_listed(some_files):
    (some_files / "graph.onnx").unlink()
    assert ask("/player.json")[1] == b"[]"


def test_another_server_has_all_but_the_scripts(some_files):
    served = Player("https://files.example/radio/")
    listed = {file["name"]: file["url"] for file in json.loads(ask("/player.json", served)[1])}
    assert listed["large.bin"] == f"https://files.example/radio/{named('large.bin').url}"
    assert listed["one.js"] == named("one.js").url
    assert "connect-src 'self' https://files.example;" in served.policy


# How they are served


def test_files_may_be_kept_for_good_and_read_by_other_pages(some_files):
    headers = ask(f"/{named('large.bin').url}")[0].response().headers
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Length"] == str(256 * 8192)


@pytest.mark.parametrize("name", ["large.bin", "packed.wasm", "one.js"])
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_range_is_that_part_of_the_body(some_files, name, coding):
    url = f"/{named(name).url}"
    whole, body = ask(url, Accept_Encoding=coding)
    size = len(body)
    for asked, part in [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=3-9", slice(3, 10)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-5", slice(-5, None)),
        (f"bytes=4-{size + 100}", slice(4, None)),
        (f"bytes=-{size + 100}", slice(0, None)),
    ]:
        answer, got = ask(url, Accept_Encoding=coding, Range=asked)
        assert answer.status is HTTPStatus.PARTIAL_CONTENT
        assert got == body[part]
        first = range(size)[part].start
        wanted = f"bytes {first}-{first + len(got) - 1}/{size}"
        assert answer.headers["Content-Range"] == wanted
        assert answer.headers["ETag"] == whole.headers["ETag"]


@pytest.mark.parametrize("asked", ["bytes=9-3", "bytes=-", "bytes=0-1,4-5", "lines=0-1", "bytes=x"])
def test_what_is_no_single_range_gets_everything(some_files, asked):
    answer, body = ask(f"/{named('large.bin').url}", Range=asked)
    assert answer.status is HTTPStatus.OK
    assert len(body) == 256 * 8192


@pytest.mark.parametrize("asked", ["bytes=2097152-", "bytes=9999999-10000000", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(some_files, asked):
    answer, _ = ask(f"/{named('large.bin').url}", Range=asked)
    assert answer.status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    assert answer.headers["Content-Range"] == "bytes */2097152"


def test_if_range_of_another_version_gets_everything(some_files):
    url = f"/{named('large.bin').url}"
    etag = ask(url)[0].headers["ETag"]
    assert len(ask(url, Range="bytes=0-9", If_Range=etag)[1]) == 10
    assert len(ask(url, Range="bytes=0-9", If_Range='"old"')[1]) == 256 * 8192
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert len(ask(url, Range="bytes=0-9", If_Range=date)[1]) == 256 * 8192


def test_who_has_it_gets_it_not_again(some_files):
    url = f"/{named('packed.wasm').url}"
    plain, packed = (ask(url, Accept_Encoding=coding)[0].headers["ETag"] for coding in ("", "gzip"))
    assert plain != packed
    for known in (plain, f"W/{plain}", f'"other", {plain}', "*"):
        answer, body = ask(url, If_None_Match=known)
        assert answer.status is HTTPStatus.NOT_MODIFIED
        assert body == b""
        assert "Content-Length" not in answer.response().headers
    assert ask(url, If_None_Match=packed)[0].status is HTTPStatus.OK


@pytest.mark.parametrize("refused", ["", "br", "gzip;q=0", "gzip; q=0.0, br", "identity"])
def test_what_lies_compressed_is_decompressed_for_who_wants_it_so(some_files, refused):
    answer, body = ask(f"/{named('packed.wasm').url}", Accept_Encoding=refused)
    assert "Content-Encoding" not in answer.headers
    assert body == b"0123456789" * 100


def test_readers_beyond_the_limit_are_asked_to_come_again(some_files, monkeypatch):
    monkeypatch.setattr(player, "_MOST_READERS", 1)
    served, headers = Player(), Headers()

    async def crowd() -> None:
        where = f"/{named('large.bin').url}"
        first = await served.answer(where, headers)
        assert first is not None
        assert first.pieces is not None
        async with aclosing(first.pieces()) as pieces:
            await anext(pieces)
            refused = await served.answer(where, headers)
            assert refused is not None
            assert refused.status is HTTPStatus.SERVICE_UNAVAILABLE
            assert refused.headers["Retry-After"] == "10"
            small = await served.answer(f"/{named('one.js').url}", headers)
            assert small is not None
            assert small.status is HTTPStatus.OK
        again = await served.answer(where, headers)
        assert again is not None
        assert again.status is HTTPStatus.OK

    asyncio.run(crowd())
    assert served.readers == 0


def test_other_addresses_are_not_the_players(some_files):
    digest = named("large.bin").sha256
    for where in ("/player/", f"/player/{digest}/one.js", f"/player/{digest}/../server.py", "/x"):
        assert asyncio.run(Player().answer(where, Headers())) is None


# The option


def outlet(*words: str):
    return make_outlets(read_arguments(None, list(words)))[0]


def test_the_option_turns_it_off_or_names_another_server():
    assert outlet().web_player == "here"
    assert outlet("--web-player", "off").web_player == "off"
    address = "https://files.example/radio"
    assert outlet("--web-player", address).web_player == address


@pytest.mark.parametrize("wrong", ["on", "files.example", "ftp://files.example", "https://"])
def test_a_wrong_address_is_refused_in_a_sentence(capsys, wrong):
    with pytest.raises(SystemExit) as end:
        outlet("--web-player", wrong)
    assert end.value.code == 2
    assert "here, off nor an address such as https://" in capsys.readouterr().err
