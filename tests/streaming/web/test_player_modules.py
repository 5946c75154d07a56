"""The player's modules in a browser, against the Python that they follow."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from codec.nano.level import LevelChannel
from codec.nano.weights import BUNDLED
from codec.noise import keyed_normal
from streaming.receive.concealment import Concealment
from streaming.receive.playout import plan_start
from streaming.receive.reserve import ReserveControl
from streaming.stream.listener_session import ListenerSession
from streaming.wire.messages import End, Gap, Hello, Title, Tokens
from streaming.wire.parsing import decode
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.player_pages import MODULES, Pages, player_files

MONTH = 25 * 86_400 * 30
"""Tokens in 30 days."""


@pytest.fixture(scope="module")
def run(browser: Browser) -> Iterator[Any]:  # noqa: F811
    """Runs the body of an async function on a page; `get(name)` there imports a module."""
    with Pages({**player_files(), "/weights": BUNDLED}) as pages:
        browser.open(pages.url)
        browser.driver.set_script_timeout(120)

        def call(body: str, *arguments: object) -> Any:
            outcome = browser.driver.execute_async_script(
                "const given = Array.from(arguments), done = given.pop();"
                f"const get = (name) => import(`{MODULES}/${{name}}.js`);"
                f"(async (given) => {{ {body} }})(given).then("
                "(result) => done({ result }), (error) => done({ error: error.stack }));",
                *arguments,
            )
            assert "error" not in outcome, outcome["error"]
            return outcome["result"]

        yield call


@pytest.mark.parametrize("seed", [0, 7, 2**53 - 1])
@pytest.mark.parametrize("first", [0, MONTH, 2**32 - 3])
def test_noise_is_that_of_python(run, seed, first):
    for purpose, width in ((1, 384), (2, 3840), (0, 6)):
        rows = run(
            "const [seed, first, purpose, width] = given; const { Noise } = await get('noise');"
            "const noise = new Noise(seed, { purpose, width });"
            "return [0, 1].map((row) => Array.from(noise.row(first + row)));",
            *(seed, first, purpose, width),
        )
        expected = keyed_normal(seed, first, 2, width, purpose)
        np.testing.assert_allclose(np.array(rows), expected, atol=1e-6)


@pytest.mark.parametrize("first", [0, 7, MONTH, MONTH + 12_345])
def test_phases_are_those_of_python(run, first):
    phases = run(
        "const { segmentPhases } = await get('nano');"
        "const { cos, sin, shape } = segmentPhases(given[0], 5);"
        "return [Array.from(cos), Array.from(sin), shape];",
        first,
    )
    notes = np.arange(28, 112)
    sample = first * 480 - 120 + 240 * np.arange(11, dtype=np.float64)[:, None]
    turns = (
        sample * (440 * 2 ** ((notes - 69) / 12)) / 12_000 + np.modf(notes * 0.6180339887498949)[0]
    )
    angle = 2 * np.pi * np.modf(turns)[0]
    assert phases[2] == [11, 84]
    for found, expected in zip(phases, (np.cos(angle), np.sin(angle)), strict=False):
        np.testing.assert_allclose(np.reshape(found, (11, 84)), expected, atol=1e-4)


def test_noise_before_the_stream_is_that_of_python(run):
    row = run(
        "const { Noise } = await get('noise');"
        "return Array.from(new Noise(3, { purpose: 1, width: 8 }).row(-5));"
    )
    np.testing.assert_allclose(np.array(row), keyed_normal(3, -5, 1, 8, 1)[0], atol=1e-6)


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 1000, 100_003])
def test_digests_need_no_help_from_the_browser(run, size):
    data = bytes(np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8))
    digest = run(
        "const { plainSha256 } = await get('files');"
        "const text = atob(given[0]);"
        "const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));"
        "return Array.from(plainSha256(bytes));",
        b64encode(data).decode(),
    )
    assert bytes(digest) == hashlib.sha256(data).digest()


def test_the_place_to_begin_is_that_of_python(run):
    random = np.random.default_rng(1)
    cases: list[dict[str, Any]] = []
    for _ in range(200):
        cases.append(
            {
                "next": int(random.integers(0, 5000)),
                "packet": int(random.choice([8, 25, 48, 250])),
                "age_s": float(random.uniform(-0.1, 12)),
                "margin_s": float(random.choice([0, 0.5, 1])),
                "hop": int(random.choice([8, 24])),
                "lookahead": 8,
            }
        )
        cases[-1]["first"] = max(0, cases[-1]["next"] - int(random.integers(0, 400)))
    plans = run(
        "const { planStart } = await get('playout'); return given[0].map(planStart);", cases
    )
    for case, plan in zip(cases, plans, strict=True):
        expected = plan_start(
            next_token=case.pop("next"),
            first_token=case.pop("first"),
            packet_tokens=case.pop("packet"),
            **case,
        )
        assert plan["start"] == expected.start_token
        assert plan["hold_s"] == pytest.approx(expected.hold_s)


def test_the_speed_of_playing_is_that_of_python(run):
    random = np.random.default_rng(2)
    arrivals = []
    for packet in range(400):
        late_s = float(random.exponential(0.2)) + (3.0 if packet in (100, 101) else 0)
        arrivals.append([1.92 * packet, max(0.0, 1.3 - late_s), 1.92 * packet + late_s])
    heard = run(
        "const { Jitter } = await get('playout'); const jitter = new Jitter(0.5);"
        "return given[0].map((arrival) =>"
        " [jitter.arrived(...arrival), jitter.target_s, jitter.excess_s]);",
        arrivals,
    )
    ours = ReserveControl(0.5)
    expected = [[ours.arrived(*each), ours.target_s, ours.excess_s] for each in arrivals]
    np.testing.assert_allclose(heard, expected, atol=1e-9)


def test_scheduled_buffers_play_at_the_speed_that_is_asked_for(run):
    """Without an audio thread; also across buffers, of which no seam may be heard."""
    sizes, speeds = [46_080, 20_000, 3, 1, 46_080, 30_000], [1, 1.004, 1.004, 1.004, 0.99, 1]
    at = np.arange(sum(sizes))
    pcm = np.rint(16_384 * np.stack([np.sin(at / 17), np.cos(at / 29)], axis=1)).astype(int)
    pieces = np.split(pcm, np.cumsum(sizes)[:-1])
    left, right, reports = run(
        "const { Schedule } = await get('audio');"
        "const context = new OfflineAudioContext(2, 4 * 48000, 48000);"
        "const reports = [], port = { postMessage: (report) => reports.push(report) };"
        "const schedule = new Schedule(context, context.destination, port);"
        "given[0].forEach((piece, number) => schedule.take("
        "  { pcm: Int16Array.from(piece), speed: given[1][number] }));"
        "schedule.report();"
        "const sound = await context.startRendering();"
        "schedule.report(); schedule.close();"
        "return [...[0, 1].map((channel) => Array.from(sound.getChannelData(channel))), reports];",
        [piece.ravel().tolist() for piece in pieces],
        speeds,
    )
    places: list[float] = []
    place, end = 0.0, 0
    for size, speed in zip(sizes, speeds, strict=True):
        end += size
        while place < end - 2:  # the cubic looks two samples ahead
            places.append(place)
            place += speed
    begin, fade = 4800, 480
    heard = np.stack([left, right])[:, begin : begin + len(places)]
    expected = np.stack([np.sin(np.array(places) / 17), np.cos(np.array(places) / 29)]) / 2
    np.testing.assert_allclose(heard[:, fade:], expected[:, fade:], atol=2e-4)
    assert not np.any(left[begin + len(places) :])
    before, after = reports[0], reports[-1]
    assert before["waiting_s"] == pytest.approx(sum(sizes) / 48_000, abs=1e-4)
    assert after["read"] == sum(sizes)
    assert [report["underruns"] for report in reports] == [0] * len(reports)


def test_lost_tokens_are_replaced_as_in_python(run):
    tokens = np.random.default_rng(3).integers(0, 16384, 40)
    items: list[Tokens | Gap] = [
        Gap(100, 3),
        Tokens(103, tokens),
        Gap(143, 10),
        Tokens(153, tokens[:7]),
        Gap(160, 200),
        Tokens(360, tokens),
    ]
    sounds = [np.ones((2, 1920 * count), np.float32) for count in (60, 90, 150)]
    concealment = Concealment(100 * 1920)
    pieces = [piece.tolist() for item in items for piece in concealment.pieces(item)]
    for sound in sounds:
        concealment.shape(sound)
    replaced, shaped = run(
        "const { Concealment } = await get('playout');"
        "const concealment = new Concealment(100 * 1920);"
        "const pieces = given[0].flatMap((item) => [...concealment.pieces(item)]);"
        "const shaped = given[1].flatMap((length) => {"
        "  const channels = [new Float32Array(length).fill(1), new Float32Array(length).fill(1)];"
        "  concealment.shape(channels);"
        "  return Array.from(channels[1]).filter((_, at) => at % 31 === 0);"
        "});"
        "return [pieces.map((piece) => Array.from(piece)), shaped];",
        [
            {"type": "tokens", "first": item.first_token, "tokens": item.tokens.tolist()}
            if isinstance(item, Tokens)
            else {
                "type": "gap",
                "first": item.first_token,
                "count": item.count,
                "end": item.first_token + item.count,
            }
            for item in items
        ],
        [sound.shape[1] for sound in sounds],
    )
    assert replaced == pieces
    expected = np.concatenate([sound[1, ::31] for sound in sounds])
    np.testing.assert_allclose(shaped, expected, atol=1e-6)


def hello(first: int, live: int, stream: str = "s", seed: int = 4) -> str:
    return Hello(
        "nano",
        "nano-6",
        "a" * 64,
        seed,
        first_token=first,
        next_token=live,
        age_s=0.5,
        delay_s=0.3,
        packet_tokens=48,
        title="T",
        stream=stream,
    ).encode()


LEVELS = """
const { magnitudes, overview, readCodebooks } = await get("levels");
const weights = new Uint8Array(await (await fetch("/weights")).arrayBuffer());
const codebooks = readCodebooks(weights);
"""


@pytest.mark.parametrize(("first", "count"), [(0, 64), (5, 103), (48, 20), (7, 3)])
def test_tokens_are_as_loud_as_in_python(run, first, count):
    tokens = np.random.default_rng(first).integers(0, 16384, count)
    found = run(
        f"{LEVELS} return Array.from(magnitudes(Uint16Array.from(given[0]), given[1], codebooks));",
        *(tokens.tolist(), first),
    )
    channel = LevelChannel()
    channel.codebooks = load_file(BUNDLED)["codec.level.codebooks"]
    levels = channel.read(torch.from_numpy(tokens // 2048 % 4)[None], first)[0]
    whole = count - (first + count) % 4  # the rest of a group says less
    if first == 7:
        assert found == [None] * count  # too short to say
    else:
        np.testing.assert_allclose(found[:whole], levels.exp()[:whole], rtol=1e-4)


def test_an_overview_has_context_left_out_and_holes_where_they_are(run):
    tokens = np.random.default_rng(0).integers(0, 16384, 96)
    whole, parts = run(
        f"{LEVELS}"
        "const [tokens, start, end] = given, first = 16;"
        "const part = (from, to) => ({ type: 'tokens', first: first + from, end: first + to,"
        "  tokens: Uint16Array.from(tokens.slice(from, to)) });"
        "const title = { type: 'title', title: '', token: 20 };"
        "const gap = { type: 'gap', first: 64, count: 16, end: 80 };"
        "const items = [part(0, 10), title, part(10, 48), gap, part(64, 96)];"
        "const file = { header: { first }, items, start, end };"
        "return [Array.from(magnitudes(Uint16Array.from(tokens), first, codebooks)),"
        "        Array.from(overview(file, codebooks, 10))];",
        *(tokens.tolist(), 32, 112),
    )
    power = np.square(np.reshape(whole[16:], (10, 8))).mean(axis=1)
    assert parts[4:6] == [None, None]
    heard = [0, 1, 2, 3, 6, 7, 8, 9]
    np.testing.assert_allclose(
        np.array(parts)[heard].astype(float), np.sqrt(power)[heard], rtol=1e-5
    )


def test_a_session_reports_what_pythons_does(run):
    random = np.random.default_rng(5)
    some = random.integers(0, 16384, 500)
    messages: list[str | bytes] = [
        hello(100, 196),
        Tokens(100, some[:48]).encode(),
        Tokens(148, some[:48]).encode(),
        Title("Next", 190).encode(),
        Tokens(180, some[:48]).encode(),  # some of it has been there
        Tokens(180, some[:48]).encode(),  # all of it has
        Tokens(240, some[:30]).encode(),  # twelve are missing
        Gap(270, 30).encode(),
        '{"type":"of a later version"}',
        Tokens(300, some[:10]).encode(),
        End(320).encode(),
        Tokens(320, some[:10]).encode(),
    ]
    session = ListenerSession(None)
    session.join()
    expected: list[list[Any]] = []
    for message in messages:
        for item in session.receive(decode(message), 0.0):
            if isinstance(item, Tokens):
                expected.append(["tokens", item.first_token, item.tokens.tolist()])
            elif isinstance(item, Gap):
                expected.append(["gap", item.first_token, item.count])
            elif isinstance(item, Title):
                expected.append(["title", item.title, item.token])
            elif isinstance(item, Hello):
                expected.append(["hello", item.first_token, item.title])
            else:
                expected.append(["end", item.token])
    reported = run(
        "const { Session } = await get('session'); const session = new Session();"
        "session.join({});"
        "const row = (item) => ({"
        "  tokens: () => [item.first, Array.from(item.tokens)],"
        "  gap: () => [item.first, item.count],"
        "  title: () => [item.title, item.token], end: () => [item.token],"
        "  hello: () => [item.hello.first_token, item.hello.title] })[item.type]();"
        "return given[0].flatMap((message) => session.receive("
        "  typeof message === 'string' ? message : new Uint8Array(message).buffer))"
        "  .map((item) => [item.type, ...row(item)]);",
        [message if isinstance(message, str) else list(message) for message in messages],
    )
    assert reported == expected


def test_a_session_comes_back_for_what_it_misses(run):
    tokens = list(Tokens(100, np.arange(48)).encode())
    joins = run(
        "const { Session } = await get('session'); const session = new Session();"
        "const binary = (bytes) => new Uint8Array(bytes).buffer;"
        "session.authToken = 'secret';"
        "const joins = [session.join({})];"
        "session.receive(given[0]); session.receive(binary(given[1]));"
        "joins.push(session.join());"
        "const same = session.receive(given[2]);"
        "joins.push(session.join({ token: 1000 }), session.join({ behind_s: 60 }), session.join());"
        "const other = session.receive(given[3]);"
        "return [joins, same, other.map(({ type, same }) => [type, same])];",
        *(hello(100, 196), tokens, hello(148, 300), hello(0, 300, "other")),
    )
    sent = [json.loads(join) for join in joins[0]]
    assert all(join["auth_token"] == "secret" and "kinds" not in join for join in sent)
    assert "next_token" not in sent[0]
    assert sent[0]["history"] == 256
    assert (sent[1]["next_token"], sent[1]["stream"]) == (148, "s")
    assert joins[1] == []  # it goes on, nothing is missing
    assert sent[2]["next_token"] == 1000 - 256
    assert sent[3]["history"] == 60 * 25 + 256
    assert joins[2] == [["hello", False]]


@pytest.mark.parametrize(
    "message",
    ["{", "[]", '{"type":"gap","first_token":-1,"count":2}', '{"type":"end","token":1e99}'],
)
def test_nonsense_from_a_server_ends_a_connection(run, message):
    said = run(
        "const { Session, ProtocolError } = await get('session'); const session = new Session();"
        "session.join({}); session.receive(given[0]);"
        "try { session.receive(given[1]); } catch (error) {"
        "  return error instanceof ProtocolError; }",
        hello(0, 48),
        message,
    )
    assert said is True
