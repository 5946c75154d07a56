// From what a session received to sound, from the place where it is to begin: streaming/listen's
// rendering.py and decoding.py. It knows neither socket nor sound card; times are handed in.

import { Concealment, planStart } from "./playout.js";
import { SAMPLES_PER_TOKEN } from "./session.js";
import { StreamDecoder, WINDOW } from "./nano.js";

export const MARGIN_S = 1; // spare sound when a packet comes: a slow device decodes that long
const MOST_GAP = 15000; // tokens; a longer gap is closed
const KEPT_TOKENS = 512; // of what has come, to begin anew with

export class Renderer {
  constructor(nano) {
    this.nano = nano;
    this.recent = []; // items in a row, the newest last
    this.clear();
  }

  clear() {
    this.items = [];
    this.pieces = [];
    this.decoder = null;
    this.ended = false;
    this.place = null;
    this.epoch = (this.epoch ?? 0) + 1; // what was begun before is of no interest any more
  }

  /**
   * Something begins. at_s: when the hello said so. start: null for the live edge, else the token
   * with which the sound begins. whole: with the first token that comes.
   */
  begin(hello, at_s, start = null, whole = false) {
    this.clear();
    this.place = { hello, at_s, start, whole };
  }

  /** Take tokens or a gap. */
  put(item) {
    if (item.type === "gap" && item.count > MOST_GAP) {
      this.items.push({ type: "cut" });
      this.recent = [];
      return;
    }
    this.items.push(item);
    this.recent.push(item);
    while (item.end - this.recent[0].end >= KEPT_TOKENS) this.recent.shift();
  }

  /** Leave out what waits and begin near the live edge, with tokens that have come already. */
  jump(now_s) {
    const { hello } = this.place;
    const recent = this.recent;
    const [first, next] = [recent[0].first, recent.at(-1).end];
    this.begin({ ...hello, first_token: first, next_token: next, age_s: 0 }, now_s);
    this.items = [...recent];
  }

  finish() {
    this.ended = true;
  }

  /** Whether the history is complete, so that there is a place to begin. */
  get complete() {
    const { hello, start, whole } = this.place;
    const end = this.items.at(-1)?.end;
    if (end === undefined) return false;
    return this.ended || whole || start !== null || end >= Math.min(hello.next_token, hello.first_token + MOST_GAP);
  }

  start(now_s) {
    const { hello, at_s, start, whole } = this.place;
    const [first, next] = [this.items[0].first, this.items.at(-1).end];
    let plan = { start: first, hold_s: 0 };
    if (whole) plan.start = first;
    else if (start !== null) plan.start = Math.max(start, first);
    else {
      const live = next > hello.next_token || hello.next_token === hello.first_token;
      const age_s = live ? 0 : hello.age_s + now_s - at_s;
      plan = planStart({ next, first, packet: hello.packet_tokens, age_s, margin_s: MARGIN_S, ...WINDOW });
    }
    this.decoder = new StreamDecoder(this.nano, { seed: hello.seed, first, start: plan.start });
    this.concealment = new Concealment(plan.start * SAMPLES_PER_TOKEN);
    return plan;
  }

  /**
   * The next window: `{sample, channels, hold_s}`, `sample` being its place in the stream and
   * hold_s there if something begins with it. Null where more tokens are needed.
   */
  async next(now_s) {
    const { epoch } = this;
    let plan = null;
    while (true) {
      if (this.decoder === null) {
        if (this.items[0]?.type === "cut") this.items.shift();
        if (this.place === null || this.items.length === 0 || !this.complete) return null;
        plan = this.start(now_s);
      }
      if (this.decoder.ready) break;
      if (!this.feed()) return null;
    }
    const decoder = this.decoder;
    const { first, channels } = await decoder.step();
    if (epoch !== this.epoch) return null;
    this.concealment.shape(channels);
    return { sample: first * SAMPLES_PER_TOKEN, channels, plan };
  }

  /** Give the decoder a little more; says whether it may have become ready. */
  feed() {
    if (this.pieces.length === 0) {
      const item = this.items.shift();
      if (item === undefined) {
        if (!this.ended || this.decoder.finished) return false;
        this.decoder.finish();
        return true;
      }
      if (item.type === "cut") {
        if (!this.decoder.finished) {
          this.items.unshift(item);
          this.decoder.finish();
          return true;
        }
        this.decoder = null;
        this.place = { ...this.place, start: null, whole: true };
        return true;
      }
      this.pieces = [...this.concealment.pieces(item)];
    }
    this.decoder.feed(this.pieces.shift());
    return true;
  }
}
