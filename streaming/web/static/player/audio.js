// Sound on the page: the way from the decoder's port to the loudspeakers.
//
// A page that browsers call secure has an audio thread. One under plain http on a name of the local
// network has none: there, buffers are scheduled one after another on the page's thread.

import { cubic } from "./cubic.js";

const RATE = 48000;
const REPORT_MS = 250;
const FADE_S = 0.01;
const HEAD_START_S = 0.1;

export class Audio {
  /** Begins within a click, as browsers ask for. */
  constructor(volume = 1) {
    this.context = new AudioContext({ sampleRate: RATE, latencyHint: "playback" });
    this.analyser = new AnalyserNode(this.context, { fftSize: 4096, smoothingTimeConstant: 0.3 });
    this.gain = new GainNode(this.context, { gain: volume });
    this.analyser.connect(this.gain).connect(this.context.destination);
    this.context.resume();
  }

  /** A port for the decoder: messages as audio-thread.js takes them, reports as it gives them. */
  async open() {
    const { port1, port2 } = new MessageChannel();
    if (this.context.audioWorklet) {
      await this.context.audioWorklet.addModule(new URL("./audio-thread.js", import.meta.url));
      const processorOptions = { target_s: 0.1, most_s: Infinity, capacity_s: 12, steered: true };
      const node = new AudioWorkletNode(this.context, "player", {
        outputChannelCount: [2],
        processorOptions,
      });
      node.connect(this.analyser);
      node.port.postMessage({ port: port1 }, [port1]);
    } else {
      this.schedule = new Schedule(this.context, this.analyser, port1);
    }
    return port2;
  }

  /** False where the browser holds the sound back, as without a sound device. */
  get running() {
    return this.context.state === "running";
  }

  setVolume(volume) {
    this.gain.gain.setTargetAtTime(volume, this.context.currentTime, 0.02);
  }

  async close() {
    this.schedule?.close();
    await this.context.close();
  }
}

/** Plays buffers one after another; what it is told and reports is as on the audio thread. */
export class Schedule {
  constructor(context, destination, port) {
    this.context = context;
    this.destination = destination;
    this.port = port;
    this.written = 0;
    this.speed = 1; // of what comes next
    this.until = 0; // when what was scheduled is over, in the context's time
    this.underruns = 0;
    this.peak = 0; // of the buffer that came last
    this.scheduled = new Map(); // source to [when it is over, its samples a second]
    this.anew();
    port.onmessage = ({ data }) => this.take(data);
    this.timer = setInterval(() => this.report(), REPORT_MS);
  }

  /** What comes from now on has a fade of its own, and nothing before it. */
  anew() {
    this.fade = new GainNode(this.context, { gain: 0 });
    this.fade.connect(this.destination);
    this.begun = false;
    this.holdS = 0;
    this.last = [[0], [0]]; // samples from before the next place on
    this.place = 1; // of the next sample among these
  }

  take({ pcm, flush, hold_s, speed }) {
    if (flush) this.flush();
    if (speed) this.speed = speed;
    if (hold_s) this.holdS = hold_s;
    if (pcm) this.append(pcm);
  }

  append(pcm) {
    const { context } = this;
    this.written += pcm.length / 2;
    this.peak = pcm.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 32768;
    const earliest = context.currentTime + HEAD_START_S;
    if (!this.begun || this.until < context.currentTime) {
      if (this.begun) {
        this.underruns += 1;
        this.anew();
      }
      this.until = earliest + this.holdS;
      this.fade.gain.setValueAtTime(0, this.until);
      this.fade.gain.linearRampToValueAtTime(1, this.until + FADE_S);
      this.begun = true;
    }
    const buffer = this.resampled(pcm);
    if (buffer === null) return;
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(this.fade);
    source.start(this.until);
    this.until += buffer.duration;
    this.scheduled.set(source, { until: this.until, seconds: buffer.duration, speed: this.speed });
    source.onended = () => this.scheduled.delete(source);
  }

  /** What follows, at the speed; null where that is not a sample yet. */
  resampled(pcm) {
    const { place, speed } = this;
    const known = this.last[0].length;
    const samples = this.last.map((last, channel) => {
      const joined = new Float32Array(known + pcm.length / 2);
      joined.set(last);
      for (let at = known; at < joined.length; at += 1) {
        joined[at] = pcm[2 * (at - known) + channel] / 32768;
      }
      return joined;
    });
    const length = Math.max(0, Math.ceil((samples[0].length - 2 - place) / speed));
    this.place = place + length * speed;
    const gone = Math.floor(this.place) - 1;
    this.place -= gone;
    this.last = samples.map((joined) => joined.slice(gone));
    if (length === 0) return null;
    const buffer = new AudioBuffer({ length, numberOfChannels: 2, sampleRate: RATE });
    samples.forEach((joined, channel) => {
      const sound = buffer.getChannelData(channel);
      for (let frame = 0; frame < length; frame += 1) {
        const whole = Math.floor(place + frame * speed);
        const part = place + frame * speed - whole;
        const [a, b, c, d] = [joined[whole - 1], joined[whole], joined[whole + 1], joined[whole + 2]];
        sound[frame] = cubic(a, b, c, d, part);
      }
    });
    return buffer;
  }

  flush() {
    const end = this.context.currentTime + FADE_S;
    this.fade.gain.cancelScheduledValues(0);
    this.fade.gain.setTargetAtTime(0, this.context.currentTime, FADE_S / 4);
    for (const source of this.scheduled.keys()) source.stop(end);
    this.scheduled.clear();
    this.until = end;
    this.anew();
  }

  report() {
    let waiting_s = 0;
    for (const { until, seconds, speed } of this.scheduled.values()) {
      const left_s = Math.min(seconds, until - this.context.currentTime);
      waiting_s += Math.max(0, left_s) * speed;
    }
    this.port.postMessage({
      playing: waiting_s > 0 && this.context.state === "running",
      underruns: this.underruns,
      peak: waiting_s > 0 ? this.peak : 0,
      read: this.written - waiting_s * RATE,
      waiting_s,
    });
  }

  close() {
    clearInterval(this.timer);
  }
}
