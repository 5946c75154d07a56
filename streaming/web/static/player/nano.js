// nano's decoder around its two graphs: windows, stitching, crossfades, noise and phases.
//
// The sound is that of codec/stream.py's StreamDecoder. All that a graph does not know by itself
// (noise, phases of the oscillators, latents of the context) is handed to it.

import { Noise } from "./noise.js";

/** Numbers that the graphs were made for: codec/nano/base.py and config.py; sizes are in tokens. */
export const FEATURES = 720;
export const WINDOW = { context: 128, hop: 24, lookahead: 8 };
const SAMPLES = 1920; // of a token
const FLOW_CONTEXT = 16;
const RENDER_MARGIN = 6;
const CROSSFADE_SAMPLES = 960;
const FLOW_NOISE = { purpose: 1, width: FEATURES };
const SOUND_NOISE = { purpose: 2, width: 2 * SAMPLES };
const SEGMENT_SAMPLES = 240; // at the oscillators' own rate, a quarter of the sound's
const OSCILLATOR_RATE = 12000;
const SEMITONES = Array.from({ length: 84 }, (_, place) => {
  const note = 28 + place;
  return { hz: 440 * 2 ** ((note - 69) / 12), turns: (note * 0.6180339887498949) % 1 };
});

/** Cosines and sines of the oscillators' phases, float32 `[2 * tokens + 1, semitones]` each. */
export function segmentPhases(first, tokens) {
  const rows = 2 * tokens + 1;
  const cos = new Float32Array(rows * SEMITONES.length);
  const sin = new Float32Array(rows * SEMITONES.length);
  const begin = (first * SAMPLES) / 4 - SEGMENT_SAMPLES / 2;
  for (let row = 0, at = 0; row < rows; row += 1) {
    const sample = begin + SEGMENT_SAMPLES * row;
    for (const { hz, turns } of SEMITONES) {
      // Turns since the start of the stream: after days, only doubles still have their fraction.
      const angle = 2 * Math.PI * (((sample * hz) / OSCILLATOR_RATE + turns) % 1);
      cos[at] = Math.cos(angle);
      sin[at] = Math.sin(angle);
      at += 1;
    }
  }
  return { cos, sin, shape: [rows, SEMITONES.length] };
}

/** The graphs with one set of weights, named by their digest; keeps nothing between calls. */
export class Nano {
  constructor(ort, digest, codebooks, decoder, vocoder) {
    this.ort = ort;
    this.digest = digest;
    this.codebooks = codebooks; // of levels
    this.decoder = decoder;
    this.vocoder = vocoder;
  }

  tensor(data, FEATURES, type = "float32") {
    return new this.ort.Tensor(type, data, FEATURES);
  }

  /** Latents of a window, float32 `[n, FEATURES]`; those of its context come first. */
  async decode(tokens, first, context, noise) {
    const known = context.length / FEATURES;
    const start = Math.max(0, known - FLOW_CONTEXT);
    const rows = new Float32Array((tokens.length - start) * FEATURES);
    for (let token = start; token < tokens.length; token += 1) {
      rows.set(noise.row(first + token), (token - start) * FEATURES);
    }
    const { latents } = await this.decoder.run({
      tokens: this.tensor(BigInt64Array.from(tokens, BigInt), [tokens.length], "int64"),
      first_token: this.tensor(BigInt64Array.of(BigInt(first)), [], "int64"),
      context: this.tensor(context, [known, FEATURES]),
      noise: this.tensor(rows, [tokens.length - start, FEATURES]),
    });
    return latents.data;
  }

  /** Sound of latents, float32 `[2, n * 1920]`. */
  async render(latents, first, noise) {
    const tokens = latents.length / FEATURES;
    const drawn = new Float32Array(2 * tokens * SAMPLES);
    for (let token = 0; token < tokens; token += 1) {
      const row = noise.row(first + token);
      drawn.set(row.subarray(0, SAMPLES), token * SAMPLES);
      drawn.set(row.subarray(SAMPLES), (tokens + token) * SAMPLES);
    }
    const { cos, sin, shape } = segmentPhases(first, tokens);
    const { sound } = await this.vocoder.run({
      latents: this.tensor(latents, [tokens, FEATURES]),
      cos: this.tensor(cos, shape),
      sin: this.tensor(sin, shape),
      noise: this.tensor(drawn, [2, tokens * SAMPLES]),
    });
    return sound.data;
  }
}

/** Tokens in packets of any size to sound, one window at a time. */
export class StreamDecoder {
  /** first: of the tokens that follow; start: of those whose sound is wanted. */
  constructor(nano, { seed, first, start = first }) {
    this.nano = nano;
    this.flowNoise = new Noise(seed, FLOW_NOISE);
    this.soundNoise = new Noise(seed, SOUND_NOISE);
    this.base = first; // of the tokens that are kept
    this.tokens = [];
    this.hopIndex = Math.floor(start / WINDOW.hop);
    this.emitted = start; // tokens whose sound has come out
    this.context = new Float32Array(0);
    this.tail = null;
    this.finished = false;
  }

  get fed() {
    return this.base + this.tokens.length;
  }

  feed(tokens) {
    for (const token of tokens) this.tokens.push(token);
    this.forget(this.hopIndex * WINDOW.hop - WINDOW.context);
  }

  /** No more tokens will come: the rest can be decoded without lookahead. */
  finish() {
    this.finished = true;
  }

  get ready() {
    if (this.finished) return this.emitted < this.fed;
    return this.fed >= (this.hopIndex + 1) * WINDOW.hop + WINDOW.lookahead;
  }

  forget(token) {
    const dropped = Math.min(token - this.base, this.tokens.length);
    if (dropped <= 0) return;
    this.tokens.splice(0, dropped);
    this.base += dropped;
  }

  /** Decode one window: `{first, channels: [left, right]}`, `first` being a token. */
  async step() {
    const gridEnd = (this.hopIndex + 1) * WINDOW.hop;
    const begin = Math.max(gridEnd - WINDOW.hop, this.base); // a stream may begin inside a hop
    const start = Math.max(begin - WINDOW.context, this.base);
    const end = Math.min(gridEnd, this.fed);
    const stop = Math.min(gridEnd + WINDOW.lookahead, this.fed);
    const tokens = this.tokens.slice(start - this.base, stop - this.base);
    const latents = await this.nano.decode(tokens, start, this.context, this.flowNoise);
    const channels = await this.render(latents, { start, begin, end, stop });
    const kept = Math.max(start, end - WINDOW.context);
    this.context = latents.slice((kept - start) * FEATURES, (end - start) * FEATURES);
    this.forget(kept);
    this.hopIndex += 1;
    const first = this.emitted;
    this.emitted = end;
    return { first, channels: channels.map((sound) => sound.subarray((first - begin) * SAMPLES)) };
  }

  /** Sound of tokens `[begin, end)`, crossfaded with the tail of the window before. */
  async render(latents, { start, begin, end, stop }) {
    const fade = stop > end ? CROSSFADE_SAMPLES : 0;
    const left = Math.max(start, begin - RENDER_MARGIN);
    const right = Math.min(end + Math.ceil(fade / SAMPLES) + RENDER_MARGIN, stop);
    const piece = latents.slice((left - start) * FEATURES, (right - start) * FEATURES);
    const sound = await this.nano.render(piece, left, this.soundNoise);
    const length = (right - left) * SAMPLES;
    const [from, to] = [(begin - left) * SAMPLES, (end - left) * SAMPLES];
    const before = this.tail;
    this.tail = fade ? [] : null;
    return [0, 1].map((channel) => {
      const whole = sound.subarray(channel * length, (channel + 1) * length);
      const audio = whole.slice(from, to);
      const tail = before?.[channel] ?? [];
      const n = Math.min(tail.length, audio.length);
      for (let at = 0; at < n; at += 1) {
        // Both windows render the same latents on this span, so they add in amplitude.
        const ramp = (at + 0.5) / n;
        audio[at] = tail[at] * (1 - ramp) + audio[at] * ramp;
      }
      if (fade) this.tail.push(whole.slice(to, to + fade));
      return audio;
    });
  }
}
