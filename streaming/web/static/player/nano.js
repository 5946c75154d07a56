// nano's decoder around its two graphs: windows, stitching, crossfades, noise and phases.
//
// The sound is that of codec/stream.py's StreamDecoder. All that a graph does not know by itself
// (noise, phases of the oscillators, latents of the context) is handed to it.

import { Noise } from "./noise.js";

/** Cosines and sines of the oscillators' phases, float32 `[2 * tokens + 1, notes]` each. */
export function segmentPhases(first, tokens, { oscillators, sample_rate, samples_per_token }) {
  const { sample_rate: rate, segment_samples: hop, hz, start_turns: turns } = oscillators;
  const rows = 2 * tokens + 1;
  const cos = new Float32Array(rows * hz.length);
  const sin = new Float32Array(rows * hz.length);
  const begin = Math.floor((first * samples_per_token * rate) / sample_rate) - hop / 2;
  for (let row = 0, at = 0; row < rows; row += 1) {
    for (let note = 0; note < hz.length; note += 1, at += 1) {
      // Turns since the start of the stream: after days, only doubles still have their fraction.
      const angle = 2 * Math.PI * ((((begin + hop * row) * hz[note]) / rate + turns[note]) % 1);
      cos[at] = Math.cos(angle);
      sin[at] = Math.sin(angle);
    }
  }
  return { cos, sin, rows };
}

/** The graphs of one set of weights; keeps nothing between calls. */
export class Nano {
  constructor(ort, settings, decoder, vocoder) {
    this.ort = ort;
    this.settings = settings;
    this.decoder = decoder;
    this.vocoder = vocoder;
  }

  tensor(data, dims, type = "float32") {
    return new this.ort.Tensor(type, data, dims);
  }

  /** Latents of a window, `[n, dims]`; those of its context come first. */
  async decode(tokens, first, context, noise) {
    const { feature_dims: dims, flow_context_tokens: flow, temperature } = this.settings;
    const known = context.length / dims;
    const start = Math.max(0, known - flow);
    const rows = new Float32Array((tokens.length - start) * dims);
    for (let token = start; token < tokens.length; token += 1) {
      rows.set(noise.row(first + token), (token - start) * dims);
    }
    if (temperature !== 1) rows.forEach((value, at) => (rows[at] = value * temperature));
    const { latents } = await this.decoder.run({
      tokens: this.tensor(BigInt64Array.from(tokens, BigInt), [tokens.length], "int64"),
      first_token: this.tensor(BigInt64Array.of(BigInt(first)), [], "int64"),
      context: this.tensor(context, [known, dims]),
      noise: this.tensor(rows, [tokens.length - start, dims]),
    });
    return latents.data;
  }

  /** Sound of latents, float32 `[2, n * 1920]`. */
  async render(latents, first, noise) {
    const { feature_dims: dims, samples_per_token: samples, oscillators } = this.settings;
    const tokens = latents.length / dims;
    const drawn = new Float32Array(2 * tokens * samples);
    for (let token = 0; token < tokens; token += 1) {
      const row = noise.row(first + token);
      drawn.set(row.subarray(0, samples), token * samples);
      drawn.set(row.subarray(samples), (tokens + token) * samples);
    }
    const { cos, sin, rows } = segmentPhases(first, tokens, this.settings);
    const shape = [rows, oscillators.hz.length];
    const { sound } = await this.vocoder.run({
      latents: this.tensor(latents, [tokens, dims]),
      cos: this.tensor(cos, shape),
      sin: this.tensor(sin, shape),
      noise: this.tensor(drawn, [2, tokens * samples]),
    });
    return sound.data;
  }
}

/** Tokens in packets of any size to sound, one window at a time. */
export class StreamDecoder {
  /** first: of the tokens that follow; start: of those whose sound is wanted. */
  constructor(nano, { seed, first, start = first }) {
    const { window, noise } = nano.settings;
    this.nano = nano;
    this.hop = window.hop;
    this.contextTokens = window.context;
    this.lookahead = window.lookahead;
    this.flowNoise = new Noise(seed, noise.decoder);
    this.soundNoise = new Noise(seed, noise.vocoder);
    this.base = first; // of the tokens that are kept
    this.tokens = [];
    this.hopIndex = Math.floor(start / this.hop);
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
    this.forget(this.hopIndex * this.hop - this.contextTokens);
  }

  /** No more tokens will come: the rest can be decoded without lookahead. */
  finish() {
    this.finished = true;
  }

  get ready() {
    if (this.finished) return this.emitted < this.fed;
    return this.fed >= (this.hopIndex + 1) * this.hop + this.lookahead;
  }

  forget(token) {
    const dropped = Math.min(token - this.base, this.tokens.length);
    if (dropped <= 0) return;
    this.tokens.splice(0, dropped);
    this.base += dropped;
  }

  /** Decode one window: `{first, channels: [left, right]}`, `first` being a token. */
  async step() {
    const { feature_dims: dims, samples_per_token: samples } = this.nano.settings;
    const gridEnd = (this.hopIndex + 1) * this.hop;
    const begin = Math.max(gridEnd - this.hop, this.base); // a stream may begin inside a hop
    const start = Math.max(begin - this.contextTokens, this.base);
    const end = Math.min(gridEnd, this.fed);
    const stop = Math.min(gridEnd + this.lookahead, this.fed);
    const tokens = this.tokens.slice(start - this.base, stop - this.base);
    const latents = await this.nano.decode(tokens, start, this.context, this.flowNoise);
    const channels = await this.render(latents, { start, begin, end, stop });
    const kept = Math.max(start, end - this.contextTokens);
    this.context = latents.slice((kept - start) * dims, (end - start) * dims);
    this.forget(kept);
    this.hopIndex += 1;
    const first = this.emitted;
    this.emitted = end;
    return { first, channels: channels.map((sound) => sound.subarray((first - begin) * samples)) };
  }

  /** Sound of tokens `[begin, end)`, crossfaded with the tail of the window before. */
  async render(latents, { start, begin, end, stop }) {
    const settings = this.nano.settings;
    const { feature_dims: dims, samples_per_token: samples } = settings;
    const margin = settings.render_margin_tokens;
    const fade = stop > end ? settings.crossfade_samples : 0;
    const left = Math.max(start, begin - margin);
    const right = Math.min(end + Math.ceil(fade / samples) + margin, stop);
    const piece = latents.slice((left - start) * dims, (right - start) * dims);
    const sound = await this.nano.render(piece, left, this.soundNoise);
    const length = (right - left) * samples;
    const [from, to] = [(begin - left) * samples, (end - left) * samples];
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
