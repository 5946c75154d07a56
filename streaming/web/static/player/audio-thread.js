// The sound of the pages, on the audio thread: plays what it is given, evenly.
//
// Two clocks meet here, the sender's and the sound card's. How fast to play is either said from
// outside, or what waits is kept near `target_s` by reading a little faster or slower (at most
// 0.2 %, far below what is heard), with cubic interpolation. Where it runs dry it fades out, waits
// and fades in again.

import { cubic } from "./cubic.js";

const RATE = 48000;
const GAIN = 0.004;
const MOST_CHANGE = 0.002;
const REPORT_S = 0.25;
const FADE_S = 0.01;

class Player extends AudioWorkletProcessor {
  /**
   * target_s: begin with so much. most_s: more than that is left out. capacity_s: nothing fits
   * beyond. steered: the speed comes from outside.
   */
  constructor({ processorOptions = {} }) {
    super();
    const { target_s = 0.25, most_s = 1.5, capacity_s = 4, steered = false } = processorOptions;
    Object.assign(this, { target_s, most_s, capacity: capacity_s * RATE });
    this.speed = steered ? 1 : null;
    this.left = new Float32Array(this.capacity);
    this.right = new Float32Array(this.capacity);
    this.written = 0;
    this.read = 0; // a fraction
    this.cut = null; // fading out, to leave out what comes before this place
    this.holdUntil = 0;
    this.playing = false;
    this.loudness = 0; // of the fade, 0 to 1
    this.underruns = 0;
    this.peak = 0;
    this.reportIn = 0;
    this.listen(this.port);
  }

  /** Take what comes through a port, and report there. */
  listen(port) {
    this.to = port;
    port.onmessage = ({ data }) => this.take(data);
  }

  get waiting() {
    return this.written - this.read;
  }

  /** Any of: port, pcm (Int16Array, left and right in turns), flush, hold_s, speed. */
  take({ port, pcm, flush, hold_s, speed }) {
    if (port) this.listen(port);
    if (flush) this.cut = this.written;
    if (hold_s) this.holdUntil = currentTime + hold_s;
    if (speed) this.speed = speed;
    if (pcm) this.append(pcm);
  }

  append(pcm) {
    for (let at = 0; at + 1 < pcm.length; at += 2) {
      const place = this.written % this.capacity;
      this.left[place] = pcm[at] / 32768;
      this.right[place] = pcm[at + 1] / 32768;
      this.written += 1;
    }
    if (this.waiting > this.capacity - 8) this.read = this.written - this.target_s * RATE;
  }

  process(inputs, outputs) {
    const [left, right = left] = outputs[0];
    const frames = left.length;
    const waitingS = this.waiting / RATE;
    const enough = waitingS >= this.target_s && currentTime >= this.holdUntil;
    if (!this.playing && this.cut === null && enough) this.playing = true;
    if (this.playing && this.cut === null && waitingS > this.most_s) {
      this.cut = this.written - this.target_s * RATE;
    }
    const change = Math.max(-MOST_CHANGE, Math.min(MOST_CHANGE, GAIN * (waitingS - this.target_s)));
    const step = ((this.speed ?? 1 + change) * RATE) / sampleRate;
    const fade = 1 / (FADE_S * sampleRate);
    for (let frame = 0; frame < frames; frame += 1) {
      // Fade out before the last samples: those that the fade itself needs are still there.
      const ending = this.cut !== null || this.waiting < FADE_S * RATE + 8;
      this.loudness = Math.max(0, Math.min(1, this.loudness + (this.playing && !ending ? fade : -fade)));
      if (!this.playing || this.loudness === 0 || this.waiting < 4) {
        left[frame] = right[frame] = 0;
        continue;
      }
      left[frame] = this.loudness * at(this.left, this.read);
      right[frame] = this.loudness * at(this.right, this.read);
      this.peak = Math.max(this.peak, Math.abs(left[frame]), Math.abs(right[frame]));
      this.read += step;
    }
    if (this.loudness === 0 && this.cut !== null) {
      this.read = Math.max(this.read, this.cut);
      this.cut = null;
      this.playing = false;
      this.reportIn = 0;
    } else if (this.loudness === 0 && this.playing && this.waiting < FADE_S * RATE + 8) {
      this.playing = false;
      this.underruns += 1;
    }
    this.reportIn -= frames / sampleRate;
    if (this.reportIn <= 0) {
      this.reportIn = REPORT_S;
      const { playing, underruns, peak, read } = this;
      this.to.postMessage({ playing, underruns, peak, read, waiting_s: this.waiting / RATE });
      this.peak = 0;
    }
    return true;
  }
}

/** The sample at a place between samples, which go round. */
function at(samples, place) {
  const whole = Math.floor(place);
  const { length } = samples;
  const a = samples[(whole + length - 1) % length];
  const b = samples[whole % length];
  const c = samples[(whole + 1) % length];
  const d = samples[(whole + 2) % length];
  return cubic(a, b, c, d, place - whole);
}

registerProcessor("player", Player);
