"""``.muc`` files: whole, cut at every byte, damaged at every byte; and what docs/format.md says."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import SourceError
from streaming.files.muc import (
    Clock,
    Finish,
    MucEncoder,
    MucMuxer,
    MucReader,
    StreamHeader,
    muc_files,
)
from streaming.files.muc.append import MucAppender, Survey
from streaming.files.muc.framing import MAGIC, MAX_MESSAGE, RECORD_OVERHEAD, frame, scan
from streaming.files.muc.messages import message_bytes, read_message
from streaming.files.muc.writer import RECORD_TOKENS
from streaming.wire.messages import MAX_GAP_TOKENS, Gap, Title, Tokens
from tests import ROOT

HEADER = StreamHeader("nano", "nano-1", "a" * 64, seed=7)
DOCUMENT = ROOT / "docs" / "format.md"


def values(first, end):
    return (np.arange(first, end) * 7919 + 13) % 16_384


def encoded(tokens, samples=None, title="A song", header=HEADER):
    encoder = MucEncoder(header)
    out = encoder.title(title)
    for start in range(0, tokens, 100):
        out += encoder.tokens(values(start, min(start + 100, tokens)))
    return out + encoder.finish(tokens * 1920 if samples is None else samples)


def muxed(*records, header=HEADER):
    muxer = MucMuxer(header)
    return b"".join(muxer.push(record) for record in records)


@pytest.fixture
def reader(tmp_path):
    def read(data):
        path = tmp_path / "file.muc"
        path.write_bytes(data)
        return MucReader(path)

    return read


def heard(items):
    """The tokens in ``items`` at their places, gaps as -1; they must follow each other."""
    pieces, place = [np.zeros(0, dtype=np.int64)], None
    for item in items:
        if isinstance(item, Title):
            continue
        assert place is None or item.first_token == place
        if isinstance(item, Gap):
            pieces.append(np.full(item.count, -1))
            place = item.first_token + item.count
        else:
            pieces.append(item.tokens)
            place = item.end_token
    return np.concatenate(pieces)


@pytest.mark.parametrize("tokens", [0, 1, 255, 256, 257, 1000, 40_000])
def test_what_is_written_is_read(reader, tokens):
    file = reader(encoded(tokens))
    info = file.describe()
    assert np.array_equal(heard(file.items()), values(0, tokens))
    assert file.header == info.header == HEADER
    assert (info.tokens, info.end_token, info.samples) == (tokens, tokens, tokens * 1920)
    assert (info.complete, info.damaged_bytes, info.lost_tokens) == (True, 0, 0)
    assert info.titles == [Title("A song", 0)]


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 300 * 1920 - 1919, 300 * 1920])
def test_the_length_is_kept_to_the_sample(reader, samples):
    assert reader(encoded(-(-samples // 1920), samples)).describe().samples == samples


@pytest.mark.parametrize("samples", [0, 8 * 1920, 10 * 1920 + 1])
def test_a_length_that_does_not_fit_the_tokens_is_our_own_mistake(samples):
    encoder = MucEncoder(HEADER)
    encoder.tokens(values(0, 10))
    with pytest.raises(ValueError, match="not those of"):
        encoder.finish(samples)


def records_of(data):
    """Where each record of ``data`` begins and ends, and what it holds."""
    found, begin = [], len(MAGIC)
    for message, end in scan(io.BytesIO(data)):
        found.append((begin, end, read_message(message)))
        begin = end
    assert begin == len(data)
    return found


def test_a_file_that_is_cut_at_any_byte_has_all_records_before_the_cut(reader):
    data = encoded(300, 300 * 1920 - 5)
    records = records_of(data)
    for cut in range(len(data)):
        whole = [record for _, end, record in records if end <= cut]
        if not any(isinstance(record, StreamHeader) for record in whole):
            with pytest.raises(SourceError, match=r"file\.muc' is no \.muc file"):
                reader(data[:cut])
            continue
        file = reader(data[:cut])
        tokens = sum(len(record.tokens) for record in whole if isinstance(record, Tokens))
        assert np.array_equal(heard(file.items()), values(0, tokens))
        info = file.describe()
        assert (info.complete, info.samples) == (False, tokens * 1920)
        assert info.file_bytes - info.damaged_bytes == max(
            end for _, end, _ in records if end <= cut
        )


def test_a_byte_that_is_damaged_costs_the_record_that_it_is_in_and_nothing_else(reader):
    data = encoded(300, 300 * 1920 - 5)
    records = records_of(data)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x40
        hit = next((record for begin, end, record in records if begin <= at < end), None)
        file = reader(bytes(damaged))
        expected = values(0, 300)
        if isinstance(hit, Tokens):
            expected[hit.first_token : hit.end_token] = -1
        assert np.array_equal(heard(file.items()), expected), at
        info = file.describe()
        assert info.header == HEADER
        cut_off = isinstance(hit, Finish)
        assert (info.complete, info.samples) == (not cut_off, 300 * 1920 - 5 * (not cut_off))
        assert info.titles == ([] if isinstance(hit, Title) else [Title("A song", 0)])


@given(st.data())
def test_a_stretch_that_is_damaged_costs_the_records_that_it_meets(data):
    whole = encoded(3000)
    records = records_of(whole)
    begin = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(begin, min(len(whole), begin + 2000)))
    how = data.draw(st.sampled_from(["removed", "zeros", "noise", "sync"]))
    chance = np.random.default_rng(begin)
    middle = {
        "removed": b"",
        "zeros": bytes(end - begin),
        "noise": chance.bytes(end - begin),
        "sync": (b"\xf3\x50" * 1000)[: end - begin],
    }[how]
    damaged = whole[:begin] + middle + whole[end:]
    kept = [
        record for first, last, record in records if last <= begin or first >= end or begin == end
    ]
    found = [read_message(message) for message, _ in scan(io.BytesIO(damaged))]
    assert found == kept or set(map(repr, kept)) <= set(map(repr, found))
    assert all(record in [r for _, _, r in records] for record in found)


@given(st.lists(st.binary(min_size=1, max_size=MAX_MESSAGE), max_size=40), st.integers(1, 70_000))
def test_records_are_found_however_the_file_is_read(messages, chunk):
    class Dribble(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, chunk))

    data = MAGIC + b"".join(map(frame, messages))
    found = list(scan(Dribble(data)))
    assert [message for message, _ in found] == messages
    assert [end for _, end in found][-1:] == ([len(data)] if messages else [])


@pytest.mark.parametrize("message", [b"", bytes(MAX_MESSAGE + 1)])
def test_records_have_bounds(message):
    with pytest.raises(ValueError, match="a record holds"):
        frame(message)


@pytest.mark.parametrize(
    "record",
    [
        HEADER,
        StreamHeader("mucodec", "x", "0" * 64, 2**53 - 1, "0123456789abcdef", 2**32 - 1),
        StreamHeader("mucodec", "x", "0" * 64, 0, "0123456789abcdef", 1000, 1256),
        Clock(5, 1_764_000_000.25),
        Tokens(3, np.array([0, 16_383, 1])),
        Title("“Ünïcode” – 音楽", 9),
        Gap(3, 4),
        Finish(9),
        Finish(9, 1919, "over"),
    ],
)
def test_records_are_what_they_were(record):
    assert read_message(message_bytes(record)) == record


@pytest.mark.parametrize(
    "message",
    [
        b"\x01",
        b"\x01\x00\x00\x00\x00\xff",
        b"\x02abc",
        b"{",
        b"[]",
        b"{}",
        b'{"type":1}',
        b'{"type":"join"}',
        b'{"type":"hello"}',
        b'{"type":"later"}',
        b'{"type":"clock","token":1,"at_s":-1}',
        b'{"type":"end","token":1,"later":NaN}',
        b'{"type":"end","token":1,"padding":1920}',
        b'{"type":"stream","version":1}',
        HEADER.encode().replace(b'"first_token":0', b'"first_token":5,"start_token":4'),
        HEADER.encode().replace(b'"first_token":0', b'"first_token":5,"start_token":5000'),
        b'{"type":"title","title":"\xff","token":1}',
    ],
)
def test_what_is_wrong_or_unknown_is_passed_over(reader, message):
    assert read_message(message) is None
    data = muxed(Tokens(0, values(0, 48)))
    file = reader(data[: len(MAGIC)] + frame(message) + data[len(MAGIC) :])
    assert np.array_equal(heard(file.items()), values(0, 48))
    assert file.describe().damaged_bytes == 0


def test_a_later_version_is_refused_in_one_sentence(reader):
    later = frame(HEADER.encode().replace(b'"version":1', b'"version":2'))
    with pytest.raises(SourceError, match=r"file\.muc' is of version 2 .* update the program\."):
        reader(MAGIC + later)


def test_what_comes_twice_is_heard_once_and_what_comes_late_not_at_all(reader):
    file = reader(
        muxed(
            Tokens(0, values(0, 48)),
            Tokens(24, values(24, 72)),
            Tokens(0, values(0, 10)),
            Tokens(72, values(72, 100)),
        )
    )
    assert np.array_equal(heard(file.items()), values(0, 100))


def test_numbers_go_on_from_the_header(reader):
    header = StreamHeader("nano", "nano-1", "a" * 64, first_token=1000, stream="s")
    file = reader(muxed(Tokens(1010, values(1010, 1030)), Finish(1040, 7), header=header))
    items = list(file.items())
    assert items[0] == Gap(1000, 10)
    assert items[-1] == Gap(1030, 10)
    info = file.describe()
    assert (info.first_token, info.end_token, info.lost_tokens, info.gaps) == (1000, 1040, 20, 2)
    assert info.samples == 40 * 1920 - 7


def test_music_that_begins_with_the_first_token_may_be_said_to(reader):
    plain = StreamHeader("nano", "nano-1", "a" * 64, first_token=1000)
    said = plain.encode().removesuffix(b"}") + b',"start_token":1000}'
    assert read_message(said) == plain


def test_what_comes_before_the_music_is_context(reader):
    header = StreamHeader("nano", "nano-1", "a" * 64, first_token=1000, start_token=1100)
    records = (Title("Before", 1000), Tokens(1010, values(1010, 1200)), Finish(1200, 7))
    file = reader(muxed(*records, header=header))
    assert list(file.items()) == [Title("Before", 1100), Tokens(1100, values(1100, 1200))]
    assert list(file.items(context=True)) == [
        Title("Before", 1000),
        Gap(1000, 10),
        Tokens(1010, values(1010, 1200)),
    ]
    info = file.describe()
    assert (info.first_token, info.end_token, info.lost_tokens) == (1100, 1200, 0)
    assert info.samples == 100 * 1920 - 7


@pytest.mark.parametrize(
    ("music_s", "missing_s", "told"),
    [
        (0, 3500, False),
        (0, 3700, True),
        (0, 240_000, True),
        (7200, 7000, False),
        (7200, 7400, True),
    ],
)
def test_a_file_most_of_which_is_missing_is_told(reader, music_s, missing_s, told):
    music = [Tokens(n, values(n, n + 100)) for n in range(0, 25 * music_s, 100)]
    begin, end = 25 * music_s, 25 * (music_s + missing_s)
    gaps = [Tokens(n, values(0, 1)) for n in [*range(begin, end, 10_000), end]]
    info = reader(muxed(*music, *gaps)).describe()
    assert info.lost_tokens == pytest.approx(25 * missing_s, rel=0.01)
    if told:
        with pytest.raises(
            SourceError, match=r"'x' holds \d+ s of music, and \d+ s are .* --force"
        ):
            info.check_silence("'x'")
    else:
        info.check_silence("'x'")


def test_an_end_before_the_last_token_is_none(reader):
    info = reader(muxed(Tokens(0, values(0, 9)), Finish(9), Tokens(9, values(9, 20)))).describe()
    assert (info.tokens, info.complete) == (20, False)


def test_a_gap_of_more_than_ten_minutes_is_closed(reader):
    far = 10 + MAX_GAP_TOKENS
    near = reader(muxed(Tokens(0, values(0, 10)), Tokens(far, values(10, 20))))
    assert near.describe().lost_tokens == MAX_GAP_TOKENS
    records = (Tokens(0, values(0, 10)), Tokens(far + 1, values(10, 20)), Title("x", far + 6))
    items = list(reader(muxed(*records, Finish(far + 16))).items())
    assert items[1] == Tokens(10, values(10, 20))
    assert items[2:] == [Title("x", 15), Gap(20, 5)]


def test_gaps_that_follow_one_another_are_one(reader):
    half = MAX_GAP_TOKENS // 2
    gaps = [Gap(10, half), Gap(10 + half, half + 1)]
    behind = 10 + 2 * half + 1
    closed = reader(muxed(Tokens(0, values(0, 10)), *gaps, Tokens(behind, values(10, 20))))
    assert list(closed.items()) == [Tokens(0, values(0, 10)), Tokens(10, values(10, 20))]
    gaps = [Gap(10, half), Gap(10 + half, half)]
    near = reader(muxed(Tokens(0, values(0, 10)), *gaps, Tokens(behind - 1, values(10, 20))))
    assert list(near.items())[1] == Gap(10, 2 * half)


def test_a_title_behind_a_gap_that_is_closed_stays_with_its_music(reader):
    behind = 2**31
    file = reader(
        muxed(Tokens(0, values(0, 10)), Title("x", behind), Tokens(behind, values(10, 20)))
    )
    assert list(file.items())[1:] == [Title("x", 10), Tokens(10, values(10, 20))]


def test_another_stream_in_the_same_file_is_left_out(reader, caplog):
    other = StreamHeader("nano", "nano-1", "b" * 64)
    joined = encoded(10) + muxed(Tokens(10, values(10, 20)), header=other)
    assert reader(joined).describe().tokens == 10
    assert "another stream" in caplog.text


@pytest.mark.parametrize("name", ["none.muc", ".", "\0.muc"])
def test_files_that_cannot_be_read_are_said(tmp_path, name):
    with pytest.raises(SourceError, match="cannot be read"):
        MucReader(tmp_path / name)


def test_files_are_as_small_as_they_can_be():
    """Ten minutes: the tokens and 5 % for framing, numbers and three headers."""
    data = encoded(15_000)
    headers = 2 * len(frame(HEADER.encode()))
    records = -(-15_000 // RECORD_TOKENS)
    payload = 15_000 * 14 // 8
    rest = len(MAGIC) + len(frame(message_bytes(Title("A song", 0))))
    rest += len(frame(message_bytes(Finish(15_000))))
    assert len(data) == payload + records * (RECORD_OVERHEAD + 5) + headers + rest
    assert len(data) < 1.05 * payload


def test_a_file_that_grows_is_there_at_every_moment(tmp_path):
    path = tmp_path / "file.muc"
    appender = MucAppender(path, HEADER)
    for index in range(10):
        appender.append(Tokens(48 * index, values(48 * index, 48 * index + 48)))
        assert MucReader(path).describe().tokens == 48 * (index + 1)
        assert path.stat().st_size == appender.bytes
    appender.close()
    appender.close()
    with path.open("ab") as file:
        file.write(frame(b"x")[:-1] + b"torn")
    assert Survey.of(path).next_token == 480
    appender = MucAppender(path, HEADER)
    appender.append(Tokens(480, values(480, 500)))
    appender.close()
    info = MucReader(path).describe()
    assert (info.tokens, info.damaged_bytes) == (500, 0)


def test_folders_are_searched_for_files(tmp_path):
    for name in ("b.muc", "a/c.MUC", "a/d.muc", "e.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = muc_files([tmp_path / "e.wav", tmp_path, "z.muc"])
    assert [path.name for path in found] == ["d.muc", "b.muc", "z.muc"]


VECTOR = re.compile(r"```hex\n(.*?)```", re.DOTALL)


def test_the_document_shows_a_file_byte_by_byte(reader):
    """What others implement from docs/format.md reads and writes what we do."""
    blocks = VECTOR.findall(DOCUMENT.read_text(encoding="utf-8"))
    data = b"".join(bytes.fromhex(re.sub(r"#.*", "", block)) for block in blocks[:1])
    header = StreamHeader("nano", "nano-3", "0123456789abcdef" * 4, seed=5)
    encoder = MucEncoder(header)
    tokens = np.array([0, 1, 8192, 16_383, 5461])
    assert data == encoder.title("Song") + encoder.tokens(tokens) + encoder.finish(9000)
    file = reader(data)
    assert file.header == header
    assert np.array_equal(heard(file.items()), tokens)
    assert file.describe().samples == 9000


def test_the_document_shows_every_record():
    blocks = VECTOR.findall(DOCUMENT.read_text(encoding="utf-8"))
    data = b"".join(bytes.fromhex(re.sub(r"#.*", "", block)) for block in blocks[1:])
    assert [read_message(message) for message, _ in scan(io.BytesIO(data))] == [
        Clock(48, 1_764_028_800.5),
        Gap(96, 25),
        Finish(480, reason="the source has ended"),
        StreamHeader("nano", "nano-3", "0123456789abcdef" * 4, 5, "s", 1000, 1256),
    ]
