// The player off the page's thread: it owns the connection or the file, the tokens and the decoder.
//
// The page asks to `play` a stream or to `open` a file, and to `move`, and is told of what comes and
// what is heard. Sound goes from here straight to the audio thread. Between two windows the worker
// sees to its messages.

import { loadNano } from "./files.js";
import { overview } from "./levels.js";
import { readMuc } from "./muc.js";
import { WINDOW } from "./nano.js";
import { decodable, Jitter } from "./playout.js";
import { MARGIN_S, Renderer } from "./renderer.js";
import { CONTEXT_TOKENS, ProtocolError, SAMPLE_RATE, SAMPLES_PER_TOKEN, Session } from "./session.js";
import { TOKEN_RATE } from "../../stream.js";

const AHEAD_S = 4; // so much decoded sound may wait for the audio thread
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;
const LASTING_MS = 1000; // a connection that ends sooner was no more than another failed attempt
const LONG_OUTAGE_S = 60; // after a longer one there is no point in what was missed
const REST_S = 5; // what a jump has done must show before there is another one
const STALL_S = 3; // without a report of the audio thread, which gives four a second: this tab stood still
const QUEUED_S = 1; // what came meanwhile is there so long after that
const SLOW = 0.8; // seconds of computing for a second of sound, in the first windows
const FIRST_WINDOWS = 5;

const session = new Session();
const jitter = new Jitter(MARGIN_S);
const now = () => performance.now() / 1000;
const tell = (type, fields = {}) => postMessage({ type, ...fields });

let renderer = null;
let file = null; // a recording in the place of a stream
let begun = 0; // the token of it with which the sound began last
let port = null; // to the audio thread
let address = "";
let socket = null;
let wait = FIRST_WAIT_MS;
let retry = 0;
let lostAt = null; // when the connection was lost
let jumpedAt = -REST_S;
let excusedUntil = 0; // packets that come before were held up here
let busy = []; // computing time per second of sound, window by window
let pumping = false;
let atPort = { written: 0, read: 0, playing: false, underruns: 0, peak: 0, at: 0 };
let sent = 0; // samples handed to the audio thread
let places = []; // [samples handed over before, place in the stream]
let titles = [];

// ------------------------------------------------------------------ the connection

function connect(place = null) {
  clearTimeout(retry);
  if (socket) socket.onclose = socket.onmessage = null;
  socket?.close();
  const mine = new WebSocket(address);
  socket = mine;
  mine.binaryType = "arraybuffer";
  let began = Infinity;
  tell("state", { word: "connecting" });
  mine.onopen = () => mine.send(session.join(place));
  mine.onmessage = ({ data }) => {
    if (mine !== socket) return;
    try {
      const events = session.receive(data);
      if (!session.joining && began === Infinity) {
        began = performance.now();
        lostAt = null;
        tell("state", { word: "live" });
      }
      events.forEach((item) => take(item, data.byteLength));
      pump();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      tell("trouble", { sentence: error.message });
      mine.close();
    }
  };
  mine.onclose = () => {
    if (mine !== socket || session.ended) return;
    lostAt ??= now();
    tell("state", { word: "waiting" });
    if (performance.now() - began >= LASTING_MS) wait = FIRST_WAIT_MS;
    retry = setTimeout(() => {
      // What was missed lately is heard late; after a long outage it goes on live.
      const live = session.live && now() - lostAt > LONG_OUTAGE_S;
      connect(live ? {} : null);
    }, wait * (0.5 + Math.random() / 2));
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  };
}

/** bytes: of the message that it came in. */
function take(item, bytes) {
  if (item.type === "hello") {
    begin(item);
  } else if (item.type === "title") {
    titles.push(item);
    tell("title", { title: item.title });
  } else if (item.type === "end") {
    renderer.finish();
    tell("state", { word: "ended" });
  } else if (item.type === "error") {
    if (item.code === "auth") {
      session.ended = true;
      tell("state", { word: "refused" });
    }
    tell("refused", { code: item.code, sentence: item.message });
  } else {
    const before = item.first;
    renderer.put(item);
    if (item.type === "tokens") {
      follow(before, item.end);
      tell("tokens", { first: item.first, tokens: item.tokens, bytes });
    }
  }
}

/** Raises an Error with one sentence where a stream or a file is none for this decoder. */
function check({ codec, digest, weights }, what) {
  if (codec === "nano" && digest === renderer.nano.digest) return;
  const whose = codec === "nano" ? `the weights ${weights}` : `the codec ${codec}`;
  throw new Error(`This page cannot play the ${what}: it is made with ${whose}.`);
}

function begin({ hello, same }) {
  try {
    check(hello, "stream");
  } catch (error) {
    session.ended = true;
    socket.close();
    tell("failed", { sentence: error.message });
    return;
  }
  jitter.restart();
  titles = [{ title: hello.title, token: hello.first_token }];
  const heard = session.firstHeard(hello.first_token);
  const past = !session.live && heard < hello.next_token;
  renderer.begin(hello, now(), past ? heard : null);
  flush();
  tell("hello", { hello, same });
}

// ------------------------------------------------------------------ a file

/** Play the file from a token on, with context for the decoder before it. */
function playFrom(token) {
  const { header, items } = file;
  const first = Math.max(header.first, token - CONTEXT_TOKENS);
  begun = token;
  const hello = { seed: header.seed, first_token: first, next_token: first, packet_tokens: 1, age_s: 0 };
  renderer.begin(hello, 0, token);
  for (const item of items) {
    if (item.type === "title" || item.end <= first) continue;
    const late = Math.max(0, first - item.first);
    const tokens = item.tokens?.subarray(late);
    renderer.put({ ...item, tokens, first: item.first + late, count: item.end - item.first - late });
  }
  renderer.finish();
  flush();
  pump();
}

/** One past the last sample that is to be heard. */
const limit = () => (file ? file.start * SAMPLES_PER_TOKEN + file.samples : Infinity);

// ------------------------------------------------------------------ the sound

/** The sample of the stream that is heard now. */
function heardSample() {
  const since = atPort.playing ? Math.min(now() - atPort.at, 1) * SAMPLE_RATE : 0;
  const read = Math.min(atPort.read + since, sent);
  while (places.length > 1 && places[1][0] <= read) places.shift();
  return places.length ? places[0][1] + Math.max(0, read - places[0][0]) : null;
}

const waitingS = () => (sent - atPort.read) / SAMPLE_RATE;

/** Live tokens came in: see what they found, and jump or change the speed where it is time to. */
function follow(before, end) {
  const hello = session.hello;
  const heard = heardSample();
  if (end <= hello.next_token || heard === null || !session.live || stalled()) return;
  const reserve = decodable(before, WINDOW) * SAMPLES_PER_TOKEN - heard;
  const speed = jitter.arrived(end / TOKEN_RATE, Math.max(0, reserve) / SAMPLE_RATE, now());
  port.postMessage({ speed });
  if (now() - jumpedAt > REST_S && jitter.excess_s > Math.max(1, 0.5 * jitter.target_s)) {
    jumpedAt = now();
    jitter.restart();
    renderer.jump(now());
    flush();
  }
}

/** Whether what comes now is late because this tab stood still, which says nothing about the link. */
function stalled() {
  if (now() - atPort.at > STALL_S) excusedUntil = now() + QUEUED_S;
  return now() < excusedUntil;
}

function flush() {
  port.postMessage({ flush: true });
  places = [];
}

// A task of its own between windows, without the delays of timers in a page that is not seen.
const channel = new MessageChannel();
const turn = () => new Promise((resolve) => {
  channel.port1.onmessage = resolve;
  channel.port2.postMessage(0);
});

async function pump() {
  if (pumping || !renderer || !port) return;
  pumping = true;
  try {
    while (port && waitingS() < AHEAD_S) {
      const epoch = renderer.epoch;
      const began = now();
      const part = await renderer.next(began);
      await turn();
      if (!port) break;
      if (epoch !== renderer.epoch) continue;
      if (part === null) break;
      const length = Math.min(part.channels[0].length, limit() - part.sample);
      if (length <= 0) break;
      judge(((now() - began) * SAMPLE_RATE) / length);
      if (part.plan || places.length === 0) {
        places.push([sent, part.sample]);
        port.postMessage({ hold_s: part.plan?.hold_s ?? 0 });
      }
      sent += length;
      const pcm = interleaved(part.channels, length);
      port.postMessage({ pcm }, [pcm.buffer]);
    }
  } catch (error) {
    tell("failed", { sentence: `The decoder has failed: ${error.message}` });
  } finally {
    pumping = false;
  }
}

function judge(load) {
  busy.push(load);
  if (busy.length !== FIRST_WINDOWS) return;
  const mean = busy.reduce((sum, value) => sum + value, 0) / FIRST_WINDOWS;
  if (mean > SLOW) tell("slow", { load: mean });
}

function interleaved([left, right], length) {
  const pcm = new Int16Array(2 * length);
  const whole = (value) => Math.max(-32768, Math.min(32767, Math.round(32767 * value)));
  for (let at = 0; at < length; at += 1) {
    pcm[2 * at] = whole(left[at]);
    pcm[2 * at + 1] = whole(right[at]);
  }
  return pcm;
}

/** A few times a second the audio thread says how it goes. */
function hear(report) {
  stalled();
  atPort = { ...report, at: now() };
  const heard = heardSample();
  const token = heard === null ? null : heard / SAMPLES_PER_TOKEN;
  const hello = session.hello;
  const title = titles.findLast((known) => token !== null && known.token <= token);
  tell("heard", {
    ...report,
    token,
    title: title?.title ?? session.title,
    position_s: token === null || !file ? null : (token - file.start) / TOKEN_RATE,
    reserve_s: token === null ? 0 : Math.max(0, session.next - token) / TOKEN_RATE,
    clock_s:
      token === null || hello?.first_at_s === undefined
        ? null
        : hello.first_at_s + (token - hello.first_token) / TOKEN_RATE,
    lost: session.lost,
    load: busy.slice(-10).reduce((sum, value) => sum + value, 0) / Math.max(1, Math.min(10, busy.length)),
    speed: jitter.speed,
    live: session.live,
    over: file !== null && !report.playing && heard !== null && limit() - heard < SAMPLE_RATE / 10,
  });
  pump();
}

// ------------------------------------------------------------------ what the page asks for

/** Make ready to decode, and to hand sound to the audio thread through the port `sound`. */
async function prepare({ manifest, base, sound }) {
  port = sound;
  port.onmessage = ({ data }) => hear(data);
  let shown = -1;
  const nano = await loadNano(manifest, base, (done, total) => {
    const percent = Math.floor((100 * done) / total);
    if (percent !== shown) tell("progress", { share: (shown = percent) / 100 });
  });
  renderer = new Renderer(nano);
}

const tasks = {
  /** manifest, base: of the files. sound: see `prepare`. authToken, url: of the stream. */
  async play({ authToken, url, ...files }) {
    await prepare(files);
    tell("loaded");
    session.authToken = authToken;
    address = url;
    connect({});
  },
  /** muc: bytes of a file. */
  async open({ muc, ...files }) {
    const opened = readMuc(new Uint8Array(muc));
    await prepare(files);
    check(opened.header, "file");
    file = opened;
    titles = file.items.filter((item) => item.type === "title");
    const { samples, lost, complete } = file;
    const parts = overview(file, renderer.nano.codebooks);
    tell("loaded", { length_s: samples / SAMPLE_RATE, samples, lost, complete, parts });
    playFrom(file.start);
  },
  /** Somewhere else: by seconds from what is heard, to seconds of the file, or to the live edge. */
  move({ by_s = 0, to_s, live }) {
    if (!renderer || session.ended) return;
    const heard = heardSample();
    const known = file ? begun : session.next;
    const token = heard === null ? known : heard / SAMPLES_PER_TOKEN;
    if (file) {
      const aimed = to_s === undefined ? token + by_s * TOKEN_RATE : file.start + to_s * TOKEN_RATE;
      playFrom(Math.max(file.start, Math.min(file.end - 1, Math.round(aimed))));
      return;
    }
    const wanted = Math.max(0, Math.round(token + by_s * TOKEN_RATE));
    connect(live || wanted >= session.next ? {} : { token: wanted });
  },
};

onmessage = async ({ data }) => {
  try {
    await tasks[data.task](data);
  } catch (error) {
    tell("failed", { sentence: error.message });
  }
};
