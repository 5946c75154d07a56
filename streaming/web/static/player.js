// The sound of the listener's page, on the audio thread: plays what it is given, evenly.
//
// Two clocks meet here, the listener's and the sound card's. What waits is kept near TARGET_S by
// reading a little faster or slower (at most 0.2 %, far below what is heard), with cubic
// interpolation. Where it runs dry it fades out, waits and fades in again.

const RATE = 48000;
const CAPACITY = 4 * RATE;
const TARGET_S = 0.25;
const MOST_S = 1.5; // more than that is left out
const GAIN = 0.004;
const MOST_CHANGE = 0.002;
const REPORT_S = 0.25;
const FADE_S = 0.01;

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.left = new Float32Array(CAPACITY);
    this.right = new Float32Array(CAPACITY);
    this.written = 0;
    this.read = 0; // a fraction
    this.playing = false;
    this.leaving = false; // fading out, to drop what waits
    this.loudness = 0; // of the fade, 0 to 1
    this.underruns = 0;
    this.peak = 0;
    this.reportIn = 0;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  get waiting() {
    return this.written - this.read;
  }

  take(data) {
    if (data === "flush") {
      this.leaving = true;
      return;
    }
    const pcm = data; // Int16Array, left and right in turns
    for (let at = 0; at + 1 < pcm.length; at += 2) {
      const place = this.written % CAPACITY;
      this.left[place] = pcm[at] / 32768;
      this.right[place] = pcm[at + 1] / 32768;
      this.written += 1;
    }
    if (this.waiting > CAPACITY - 8) this.read = this.written - TARGET_S * RATE;
  }

  process(inputs, outputs) {
    const [left, right = left] = outputs[0];
    const frames = left.length;
    const waitingS = this.waiting / RATE;
    if (!this.playing && !this.leaving && waitingS >= TARGET_S) this.playing = true;
    if (this.playing && waitingS > MOST_S) this.leaving = true;
    const change = Math.max(-MOST_CHANGE, Math.min(MOST_CHANGE, GAIN * (waitingS - TARGET_S)));
    const step = ((1 + change) * RATE) / sampleRate;
    const fade = 1 / (FADE_S * sampleRate);
    for (let frame = 0; frame < frames; frame += 1) {
      // Fade out before the last samples: those that the fade itself needs are still there.
      const ending = this.leaving || this.waiting < FADE_S * RATE + 8;
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
    if (this.loudness === 0 && this.leaving) {
      const keep = this.waiting > MOST_S * RATE ? TARGET_S * RATE : 0;
      this.read = this.written - keep;
      this.leaving = false;
      this.playing = false;
    } else if (this.loudness === 0 && this.playing && this.waiting < FADE_S * RATE + 8) {
      this.playing = false;
      this.underruns += 1;
    }
    this.reportIn -= frames / sampleRate;
    if (this.reportIn <= 0) {
      this.reportIn = REPORT_S;
      const { playing, underruns, peak } = this;
      this.port.postMessage({ playing, underruns, peak, waiting_s: this.waiting / RATE });
      this.peak = 0;
    }
    return true;
  }
}

/** The sample at a place between samples: Catmull and Rom's cubic through its four neighbours. */
function at(samples, place) {
  const whole = Math.floor(place);
  const part = place - whole;
  const a = samples[(whole + CAPACITY - 1) % CAPACITY];
  const b = samples[whole % CAPACITY];
  const c = samples[(whole + 1) % CAPACITY];
  const d = samples[(whole + 2) % CAPACITY];
  return b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)));
}

registerProcessor("player", Player);
