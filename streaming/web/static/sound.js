// The sound in this tab: begins with a click, as browsers ask for.

/** Plays 16-bit stereo samples; `report` is told a few times a second how it goes. */
export class Sound {
  constructor(report) {
    this.report = report;
    this.context = null;
    this.node = null;
    this.gain = null;
    this.volume = 1;
  }

  get on() {
    return this.context !== null && this.context.state === "running";
  }

  async start() {
    if (this.context === null) {
      this.context = new AudioContext({ sampleRate: 48000, latencyHint: "playback" });
      await this.context.audioWorklet.addModule("audio-thread.js");
      this.node = new AudioWorkletNode(this.context, "player", { outputChannelCount: [2] });
      this.gain = new GainNode(this.context, { gain: this.volume });
      this.node.connect(this.gain).connect(this.context.destination);
      this.node.port.onmessage = ({ data }) => this.report(data);
    }
    await this.context.resume();
  }

  async stop() {
    this.flush();
    await this.context?.suspend();
  }

  setVolume(volume) {
    this.volume = volume;
    this.gain?.gain.setTargetAtTime(volume, this.context.currentTime, 0.02);
  }

  flush() {
    this.node?.port.postMessage({ flush: true });
  }

  /** samples: Int16Array, left and right in turns; it is given away. */
  push(samples) {
    this.node?.port.postMessage({ pcm: samples }, [samples.buffer]);
  }
}
