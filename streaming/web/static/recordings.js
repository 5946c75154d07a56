// A page without a server: plays the recordings beside it, and files that are dropped on it.

import { Overview } from "./overview.js";

const KEYS_S = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -30, PageUp: 30 };
const $ = (id) => document.getElementById(id);
const base = new URL("./", location.href).href;
const overview = new Overview($("overview"));
let chosen = null; // {name, url} or {name, bytes}
let ui = null;
let held = false; // the place is being moved by hand

const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

const on = {
  title(title) {
    $("title").textContent = title || chosen.name;
    document.title = `${title || chosen.name} – 350 bit/s`;
  },
  playing(whether, file) {
    $("state").dataset.state = whether ? "live" : "wait";
    $("state").textContent = whether ? "playing here" : "nothing plays";
    if (!whether) return;
    $("place").max = file.length_s;
    $("length").textContent = clock(file.length_s);
    overview.show(file.parts);
    Object.assign($("place").dataset, { samples: file.samples, lost: file.lost });
    const missing = file.lost ? `${(file.lost / 25).toFixed(1)} s are missing and bridged. ` : "";
    $("missing").textContent = missing + (file.complete ? "" : "The end is missing.");
  },
  heard({ position_s }) {
    if (position_s === null || held) return;
    $("place").value = position_s;
    showPlace(position_s);
  },
};

function showPlace(position_s) {
  const length_s = Number($("place").max);
  $("place-shown").textContent = clock(position_s);
  $("place").setAttribute("aria-valuetext", `${clock(position_s)} of ${clock(length_s)}`);
  overview.hear(position_s / length_s);
}

async function source() {
  const muc = chosen.bytes ?? (await (await fetch(new URL(chosen.url, base))).arrayBuffer());
  return { task: "open", muc };
}

function choose(recording) {
  chosen = recording;
  if (!ui) return;
  ui.stop();
  $("play").disabled = false;
  // Browsers let sound out only after something on the page was clicked.
  if (navigator.userActivation?.hasBeenActive !== false) ui.start();
  else $("play-state").textContent = `${recording.name} is ready; press Play`;
}

async function chooseFile(file) {
  if (file) choose({ name: file.name, bytes: await file.arrayBuffer() });
}

async function begin() {
  const [manifest, recordings] = await Promise.all(
    ["player.json", "recordings.json"].map(async (name) => (await fetch(name)).json()),
  );
  const module = manifest.find((file) => file.name === "ui.js");
  const { PlayerUi } = await import(new URL(module.url, base));
  const command = () => `python client.py ${chosen.name} --play`;
  chosen = recordings[0] ?? null;
  ui = new PlayerUi({ manifest, base, on, command, source });
  $("play").disabled = chosen === null;
  for (const recording of recordings) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${recording.title || recording.name}, ${clock(recording.seconds)}`;
    button.addEventListener("click", () => choose(recording));
    const item = document.createElement("li");
    item.append(button);
    $("recordings").append(item);
  }
}

$("file").addEventListener("change", () => chooseFile($("file").files[0]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  chooseFile(event.dataTransfer.files[0]);
});
$("place").addEventListener("input", () => {
  held = true;
  showPlace(Number($("place").value));
});
$("place").addEventListener("keydown", (event) => {
  const by_s = KEYS_S[event.key];
  if (by_s === undefined) return;
  event.preventDefault(); // by itself it would move by a token
  ui.move(by_s);
});
$("place").addEventListener("change", () => {
  held = false;
  ui.ask("move", { to_s: Number($("place").value) });
});
begin();
