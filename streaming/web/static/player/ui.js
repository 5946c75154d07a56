// The part of a page that plays: its buttons, its figures, its spectrogram.

import { Audio } from "./audio.js";
import { MediaKeys } from "./keys.js";
import { Spectrogram } from "../../spectrogram.js";

const BANDS = 96;
const LOWEST_HZ = 40;
const HIGHEST_HZ = 16000;
const COLUMN_S = 0.05;
const $ = (id) => document.getElementById(id);
/** Some pages show less than others. */
const show = (id, text) => {
  const element = $(id);
  if (element && element.textContent !== text) element.textContent = text; // changes are read aloud
};

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

export class PlayerUi {
  /**
   * manifest: what `player.json` lists. source: a function that says what to play, `{task, …}` as
   * the worker takes it. on: told of what comes, as stream.js's Stream tells it, of
   * `playing(whether, what)` and of what is `heard`. command: how to hear it with the program.
   */
  constructor({ manifest, base, source, on, command }) {
    Object.assign(this, { manifest, base, source, on, command });
    this.worker = null;
    this.audio = null;
    this.columns = 0;
    this.loaded = false;
    this.sounding = 0; // reports of sound that was not silent
    const size = manifest.reduce((sum, file) => sum + file.gzip_bytes, 0);
    show("play-note", `Your browser makes the sound. For that it fetches ${megabytes(size)}, once.`);
    $("player").hidden = false;
    $("play").addEventListener("click", () => (this.worker ? this.stop() : this.start()));
    $("live")?.addEventListener("click", () => this.ask("move", { live: true }));
    for (const button of document.querySelectorAll("[data-move]")) {
      button.addEventListener("click", () => this.move(Number(button.dataset.move)));
    }
    $("volume").addEventListener("input", () => {
      show("volume-shown", `${$("volume").value} %`);
      this.audio?.setVolume(this.volume);
    });
    this.keys = new MediaKeys({
      play: () => this.worker || this.start(),
      stop: () => this.stop(),
      move: (by_s) => this.move(by_s),
    });
  }

  get volume() {
    return ($("volume").value / 100) ** 2; // about as loud as it looks
  }

  ask(task, fields = {}, ...given) {
    this.worker?.postMessage({ task, ...fields }, given);
  }

  move(by_s) {
    this.ask("move", { by_s });
  }

  async start() {
    $("play").setAttribute("aria-pressed", "true");
    show("play", "Stop");
    show("play-state", "fetching the decoder …");
    this.audio = new Audio(this.volume);
    this.keys.playing();
    const url = this.manifest.find((file) => file.name === "worker.js").url;
    const worker = new Worker(new URL(url, this.base), { type: "module" });
    this.worker = worker;
    worker.onmessage = ({ data }) => this.worker === worker && this.take(data);
    worker.onerror = () => this.worker === worker && this.fail("The player could not be started.");
    try {
      const sound = await this.audio.open();
      if (this.worker !== worker) return;
      const { manifest, base } = this;
      const { task, ...what } = await this.source();
      this.ask(task, { manifest, base, sound, ...what }, sound);
    } catch (error) {
      this.fail(`This browser cannot play it: ${error.message}`);
    }
  }

  stop() {
    this.worker?.terminate();
    this.worker = null;
    clearInterval(this.listening);
    this.audio?.close();
    this.audio = null;
    $("play").setAttribute("aria-pressed", "false");
    show("play", "Play");
    show("play-state", "");
    $("progress").hidden = true;
    $("playing").hidden = true;
    this.keys.stopped();
    if (this.loaded) this.on.playing(false);
    this.loaded = false;
  }

  fail(sentence) {
    this.stop();
    show("play-state", sentence);
  }

  take(event) {
    if (event.type === "progress") {
      $("progress").hidden = false;
      $("progress").value = event.share;
    } else if (event.type === "loaded") {
      $("progress").hidden = true;
      $("playing").hidden = false;
      show("play-state", "waiting for sound");
      this.loaded = true;
      this.on.playing(true, event);
      this.watchSound();
    } else if (event.type === "heard") {
      this.showHeard(event);
    } else if (event.type === "slow") {
      const percent = Math.round(100 * event.load);
      show(
        "play-note",
        `This device is too slow: it computes ${percent} % of the time, and more than 80 % leaves ` +
          `gaps. The program needs less: ${this.command()}`,
      );
    } else if (event.type === "failed") {
      this.fail(event.sentence);
    } else if (event.type === "state") {
      this.on.state(event.word);
    } else if (event.type === "hello") {
      this.on.hello(event.hello, !event.same);
    } else if (event.type === "tokens") {
      this.on.tokens(event, event.bytes);
    } else if (event.type === "refused") {
      this.on.refused(event.code, event.sentence);
    }
  }

  showHeard(state) {
    const { playing, underruns, peak, reserve_s, clock_s, lost, load, title, token, live, over } = state;
    if (!this.loaded) return;
    const waits = over ? "played to the end" : "waiting for sound";
    show("play-state", !playing ? waits : live ? "playing" : "playing, from the past");
    show("reserve", `${reserve_s.toFixed(1)} s`);
    show("clock", clock_s === null ? "–" : new Date(1000 * clock_s).toLocaleTimeString());
    show("underruns", String(underruns));
    show("lost", String(lost));
    show("decoding", load ? `${Math.round(100 * load)} %` : "–");
    this.sounding += peak > 0;
    const shown = { sounding: this.sounding, token: token?.toFixed(1) ?? "", live };
    Object.assign($("play-state").dataset, shown);
    if (token !== null) this.on.title(title);
    this.on.heard?.(state);
    this.keys.playing(title);
  }

  // What is heard, as columns of bands.

  watchSound() {
    const { analyser, context } = this.audio;
    this.spectrogram ??= new Spectrogram($("spectrogram"), (share) => {
      $("now").style.left = `${(100 * share).toFixed(1)}%`;
    });
    const rate = context.sampleRate;
    this.spectrogram.begin({ bands: BANDS, column_samples: COLUMN_S * rate, sample_rate: rate });
    this.columns = 0;
    const bins = new Uint8Array(analyser.frequencyBinCount);
    const perBin = rate / analyser.fftSize;
    const edges = Array.from({ length: BANDS + 1 }, (_, band) =>
      (LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** (band / BANDS)) / perBin,
    );
    this.listening = setInterval(() => {
      if (!this.audio.running) show("play-state", "the browser lets no sound out; press Stop, then Play");
      analyser.getByteFrequencyData(bins);
      const column = Uint8Array.from({ length: BANDS }, (_, band) => {
        const first = Math.round(edges[band]);
        const last = Math.max(first + 1, Math.round(edges[band + 1]));
        return Math.max(...bins.subarray(first, last));
      });
      this.spectrogram.add(this.columns, column);
      this.columns += 1;
      this.spectrogram.hear(this.columns, true);
    }, 1000 * COLUMN_S);
  }
}
