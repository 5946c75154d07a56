// The listener's page: shows and controls the program that serves it.

import { bitRate } from "./pictures.js";
import { Sound } from "./sound.js";
import { Spectrogram } from "./spectrogram.js";
import { socketAddress } from "./stream.js";

const COLUMNS_KIND = 1;
const PCM_KIND = 2;
const HEADER_BYTES = 8; // kind, three bytes of nothing, index (32 bits, big-endian)
const $ = (id) => document.getElementById(id);
const show = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text; // a screen reader hears changes only
};

const spectrogram = new Spectrogram($("spectrogram"), (share) => {
  $("now").style.left = `${(100 * share).toFixed(1)}%`;
});
const sound = new Sound(tellSound);
let socket = null;
let columnSamples = 2400;
let wanted = false; // the sound in this tab
let touched = 0; // when the volume was last moved here

function connect() {
  socket = new WebSocket(socketAddress());
  socket.binaryType = "arraybuffer";
  socket.onopen = () => wanted && ask("sound", 1);
  socket.onmessage = ({ data }) => (data instanceof ArrayBuffer ? takeData(data) : takeEvent(JSON.parse(data)));
  socket.onclose = () => {
    say("trouble", "the listener has ended; trying again");
    setTimeout(connect, 2000);
  };
}

function ask(type, value = 0) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type, value }));
}

function takeData(data) {
  const view = new DataView(data);
  const kind = view.getUint8(0);
  const index = view.getUint32(4);
  if (kind === COLUMNS_KIND) spectrogram.add(index, new Uint8Array(data, HEADER_BYTES));
  else if (kind === PCM_KIND && wanted) sound.push(new Int16Array(data.slice(HEADER_BYTES)));
}

function takeEvent(event) {
  if (event.type === "hello") {
    columnSamples = event.column_samples;
    spectrogram.begin(event);
  } else if (event.type === "flush") {
    spectrogram.cut(event.heard / columnSamples);
    sound.flush();
  } else if (event.type === "state") {
    takeState(event);
  }
}

let heardBefore = -1;

function takeState(state) {
  spectrogram.hear(state.heard / columnSamples, state.heard > heardBefore);
  heardBefore = state.heard;
  const title = state.title || "Listening at 350 bits per second";
  show("title", title);
  document.title = state.title ? `${state.title} – listening` : title;
  if (state.ended !== null) say("wait", "the stream has ended");
  else if (!state.connected) say("trouble", "no connection to the sender; it is tried again");
  else if (state.latency_s !== null && state.latency_s > 20) say("live", `playing, ${duration(state.latency_s)} behind the source`);
  else say("live", "live");
  show("buffer", `${state.buffer_s.toFixed(1)} s`);
  show("latency", state.latency_s === null ? "–" : `${state.latency_s.toFixed(1)} s`);
  show("clock", state.clock_s === null ? "–" : new Date(1000 * state.clock_s).toLocaleTimeString());
  show("underruns", String(state.underruns));
  show("lost", String(state.lost_tokens));
  show("reconnects", String(state.reconnects));
  show("payload", bitRate(state.payload_bits_per_s && Math.round(state.payload_bits_per_s)));
  show("wire", bitRate(state.wire_bits_per_s && Math.round(state.wire_bits_per_s)));
  show("decoding", state.decode_rtf === null ? "–" : `${(100 * state.decode_rtf).toFixed(0)} %`);
  show("speed", `${(100 * state.speed).toFixed(2)} %`);
  for (const button of document.querySelectorAll("[data-seek], #live")) button.disabled = !state.can_move;
  if (performance.now() - touched > 1000) showVolume(state.volume);
}

function showVolume(volume) {
  const percent = Math.round(100 * volume);
  $("volume").value = percent;
  show("volume-shown", `${percent} %`);
  sound.setVolume(volume);
}

function say(state, text) {
  $("state").dataset.state = state;
  show("state", text);
}

const duration = (value) =>
  value < 120 ? `${Math.round(value)} s` : value < 7200 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;

function tellSound({ playing, underruns, peak, waiting_s }) {
  if (!wanted) return;
  const dry = underruns ? `, ran dry ${underruns} ${underruns === 1 ? "time" : "times"}` : "";
  show("sound-state", playing ? `playing here${dry}` : "waiting for sound");
  Object.assign($("sound-state").dataset, { peak: peak.toFixed(4), waiting: waiting_s.toFixed(3) });
}

$("sound").addEventListener("click", async () => {
  wanted = !wanted;
  $("sound").setAttribute("aria-pressed", String(wanted));
  show("sound", wanted ? "Stop the sound in this tab" : "Play the sound in this tab");
  try {
    if (wanted) await sound.start();
    else await sound.stop();
    ask("sound", wanted ? 1 : 0);
    if (!wanted) show("sound-state", "");
  } catch (error) {
    wanted = false;
    $("sound").setAttribute("aria-pressed", "false");
    show("sound", "Play the sound in this tab");
    show("sound-state", `This browser cannot play it: ${error.message}`);
  }
});

for (const button of document.querySelectorAll("[data-seek]")) {
  button.addEventListener("click", () => ask("seek", Number(button.dataset.seek)));
}
$("live").addEventListener("click", () => ask("live"));
$("volume").addEventListener("input", () => {
  touched = performance.now();
  const volume = $("volume").value / 100;
  show("volume-shown", `${$("volume").value} %`);
  sound.setVolume(volume);
  ask("volume", volume);
});

addEventListener("pagehide", () => socket?.close());
connect();
