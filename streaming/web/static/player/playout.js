// Where the sound begins, how much is kept in reserve, what stands in for lost tokens: the plain
// parts of streaming/listen (playout.py, jitter.py, concealment.py) without clock and sound.

import { SAMPLE_RATE, SAMPLES_PER_TOKEN } from "./session.js";
import { TOKEN_RATE } from "../../stream.js";

/** The latest start from which playing at once never runs dry, and how long to wait before it. */
export function planStart({ next, first, packet, age_s, margin_s, hop, lookahead }) {
  const waited = Math.min(Math.max(age_s, 0) * TOKEN_RATE, packet);
  const margin = margin_s * TOKEN_RATE;
  let latest = Infinity;
  for (let arrived = 0; arrived < hop; arrived += 1) {
    const edge = Math.floor((next + arrived * packet - lookahead) / hop) * hop;
    latest = Math.min(latest, edge - ((arrived + 1) * packet - waited + margin));
  }
  const start = Math.floor(latest + 1e-6); // rounding errors must not cost a whole token
  return { start: Math.max(start, first), hold_s: Math.max(0, first - start) / TOKEN_RATE };
}

/** Up to which token there can be sound once all before `next` have come. */
export const decodable = (next, { hop, lookahead }) =>
  Math.max(0, Math.floor((next - lookahead) / hop) * hop);

const KEPT_TOKENS = TOKEN_RATE; // what a gap is filled with
const CONTINUED_TOKENS = TOKEN_RATE; // so long the decoder goes on from its context
const FADE = SAMPLE_RATE / 50;
const LONG_FADE = SAMPLE_RATE / 2;
const PIECE = 64;

/** Tokens in the place of lost ones, and the fades that belong to them. */
export class Concealment {
  /** position: of the first sample that `shape` will be handed. */
  constructor(position) {
    this.position = position;
    this.last = [];
    this.spans = []; // [first sample of the fall, of the silence, of the rise, after it]
  }

  /** Rows of tokens to decode, for an item of the session. */
  *pieces(item) {
    if (item.type === "tokens") {
      this.last = [...this.last, ...item.tokens].slice(-KEPT_TOKENS);
      yield item.tokens;
      return;
    }
    const silent = (item.first + CONTINUED_TOKENS) * SAMPLES_PER_TOKEN;
    const end = item.end * SAMPLES_PER_TOKEN;
    if (end > silent) this.spans.push([silent, Math.min(end, silent + LONG_FADE), end, end + FADE]);
    const around = [...this.last.toReversed(), ...this.last];
    for (let done = 0; done < item.count; done += PIECE) {
      const length = Math.min(PIECE, item.count - done);
      yield Uint16Array.from({ length }, (_, at) => around[at % around.length] ?? 0);
    }
  }

  /** Fade the next samples of both channels in place. */
  shape(channels) {
    const begin = this.position;
    const end = begin + channels[0].length;
    this.position = end;
    for (const [fall, silent, rise, full] of this.spans) {
      for (let at = Math.max(begin, fall); at < Math.min(end, full); at += 1) {
        const gain = at < silent ? half(at - fall, silent - fall) : at < rise ? 0 : 1 - half(at - rise, full - rise);
        for (const channel of channels) channel[at - begin] *= gain;
      }
    }
    this.spans = this.spans.filter((span) => span[3] > end);
  }
}

/** A raised cosine from 1 to 0. */
const half = (at, length) => 0.5 + 0.5 * Math.cos((Math.PI * (at + 0.5)) / length);

const FINE = 0.0005;
const COARSE = 0.01;
const WINDOW_S = 300;
const GAIN = 0.002; // speed per second of error
const SMOOTHING_S = 20;

/** Watches live packets arrive and says how fast to play: streaming/receive/jitter.py. */
export class Jitter {
  constructor(least_s, most_s = 8) {
    this.least_s = least_s;
    this.most_s = most_s;
    this.target_s = least_s;
    this.drift = 0;
    this.transits = []; // [when, how long relative to others]
    this.restart();
  }

  restart() {
    this.reserve_s = null;
    this.recent = [];
    this.coarse = false;
    this.speed = 1 + this.drift;
    this.seen_s = null;
  }

  /** What the last few packets have all found above the target. */
  get excess_s() {
    return this.recent.length < 3 ? 0 : Math.max(0, Math.min(...this.recent) - this.target_s);
  }

  /** A packet that ends at `stream_s` came at `now_s` and found `reserve_s` of sound. */
  arrived(stream_s, reserve_s, now_s) {
    this.note(now_s - stream_s, now_s);
    const step_s = Math.min(Math.max(0, now_s - (this.seen_s ?? now_s)), 30);
    this.seen_s = now_s;
    this.recent = [...this.recent, reserve_s].slice(-3);
    if (this.reserve_s === null) {
      this.reserve_s = reserve_s;
      return this.speed;
    }
    this.reserve_s += (reserve_s - this.reserve_s) * Math.min(1, step_s / SMOOTHING_S);
    const error = this.reserve_s - this.target_s;
    if (Math.abs(error) > Math.max(0.5 * this.target_s, 0.3)) this.coarse = true;
    else if (Math.abs(error) < 0.1 * this.target_s) this.coarse = false;
    if (this.coarse) {
      const change = Math.max(FINE, Math.min(COARSE, Math.abs(error) / 20));
      this.speed = 1 + Math.sign(error) * change;
    } else {
      const wanted = this.drift + (GAIN ** 2 / 4) * error * step_s;
      this.drift = Math.min(FINE, Math.max(-FINE, wanted));
      this.speed = 1 + Math.min(FINE, Math.max(-FINE, this.drift + GAIN * error));
    }
    return this.speed;
  }

  note(transit_s, now_s) {
    this.transits.push([now_s, transit_s]);
    while (this.transits[0][0] < now_s - WINDOW_S || this.transits.length > 2000) this.transits.shift();
    const sorted = this.transits.map(([, transit]) => transit).sort((a, b) => a - b);
    const late = sorted.length < 100 ? sorted.length - 1 : Math.floor(0.99 * (sorted.length - 1));
    const spread_s = sorted[late] - sorted[sorted.length >> 1];
    this.target_s = Math.min(this.most_s, Math.max(this.least_s, 1.5 * spread_s));
  }
}
