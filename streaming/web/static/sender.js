// The sender's page: follows the stream as a listener that decodes nothing.

import { bitRate, showRates, TokenPicture } from "./pictures.js";
import { socketAddress, Stream, TOKEN_BITS, TOKEN_RATE, wireBytes } from "./stream.js";

const STATUS_EVERY_MS = 5000;
const $ = (id) => document.getElementById(id);
const show = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text; // a screen reader hears changes only
};

const picture = new TokenPicture($("tokens"));
let rates = { payload: TOKEN_RATE * TOKEN_BITS, wire: null };
let received = 0;
let sinceStatusFailed = "";

const WORDS = {
  connecting: ["wait", "connecting …"],
  live: ["live", "live"],
  waiting: ["trouble", "no connection; trying again"],
  ended: ["wait", "the stream has ended"],
  refused: ["trouble", "not let in"],
};

const on = {
  state(word) {
    const [state, text] = WORDS[word];
    $("state").dataset.state = state;
    show("state", word === "waiting" && sinceStatusFailed ? sinceStatusFailed : text);
    if (word === "live") $("access").hidden = true;
  },
  hello(hello, other) {
    if (other) picture.clear();
    announce(hello.title);
    rates.wire = wireRate(hello.packet_tokens);
    showRateTable();
    show("about", `${hello.codec} (${hello.weights}), 25 tokens of 14 bits a second, ` +
      `a packet every ${seconds(hello.packet_tokens / TOKEN_RATE)}.`);
  },
  tokens(packet, bytes) {
    received += wireBytes(bytes);
    picture.add(packet);
    show("received", volume(received));
    $("tokens").setAttribute("aria-label", picture.describe());
  },
  title: announce,
  refused(code) {
    if (code !== "auth") return;
    $("access").hidden = false;
    $("access-token").focus();
  },
  /** While the page plays, the player's connection is the only one. */
  playing(whether) {
    if (whether) stream.leave();
    else stream.connect();
  },
};
const stream = new Stream(60 * TOKEN_RATE, on);

function announce(title) {
  const known = title || "Live music at 350 bits per second";
  show("title", known);
  document.title = title ? `${title} – 350 bit/s` : "Music at 350 bits per second";
}

/** What packets of so many tokens cost on the wire, until the server tells what it has measured. */
function wireRate(tokens) {
  const bytes = 5 + Math.ceil((tokens * TOKEN_BITS) / 8);
  return (8 * wireBytes(bytes) * TOKEN_RATE) / tokens;
}

function showRateTable() {
  showRates($("rates").tBodies[0], [
    { what: "PCM, 16 bit", rate: 1536000, ours: false },
    { what: "MP3", rate: 128000, ours: false },
    { what: "Opus", rate: 96000, ours: false },
    { what: "Opus, lowest", rate: 6000, ours: false },
    { what: "with headers", rate: rates.wire, ours: true },
    { what: "this stream", rate: rates.payload, ours: true },
  ]);
  show("payload", bitRate(Math.round(rates.payload)));
  show("wire", bitRate(rates.wire && Math.round(rates.wire)));
}

function showLatency(terms) {
  const sum = terms.reduce((total, term) => total + term.seconds, 0);
  $("latency-bar").replaceChildren(
    ...terms.map((term) => {
      const part = document.createElement("span");
      part.style.flexGrow = term.seconds;
      part.title = `${term.what}: ${seconds(term.seconds)}`;
      return part;
    }),
  );
  $("latency").tBodies[0].replaceChildren(
    ...terms.map((term) => {
      const row = document.createElement("tr");
      const what = document.createElement("th");
      what.scope = "row";
      what.textContent = term.what;
      const value = document.createElement("td");
      value.className = "number";
      value.textContent = seconds(term.seconds);
      row.append(what, value);
      return row;
    }),
  );
  show("latency-sum", seconds(sum));
}

async function askStatus() {
  if (document.hidden) return;
  const headers = stream.authToken ? { Authorization: `Bearer ${stream.authToken}` } : {};
  try {
    const answer = await fetch("status.json", { headers, cache: "no-store" });
    sinceStatusFailed = answer.status === 421 ? (await answer.text()).trim() : "";
    if (!answer.ok) return;
    const status = await answer.json();
    show("listeners", String(status.listeners.now));
    show("most", String(status.listeners.most));
    show("rewind", duration(status.stream.rewind_s));
    rates = {
      payload: status.rates.payload_bits_per_s ?? rates.payload,
      wire: status.rates.wire_bits_per_s ?? rates.wire,
    };
    showRateTable();
    showLatency(status.latency);
  } catch {
    // The server is away; the connection says so.
  }
}

function showCommand() {
  const secret = stream.authToken ? "MUSIC350_AUTH_TOKEN=… " : "";
  show("command", `${secret}python client.py ${socketAddress().replace(/\/$/, "")} --play`);
}

/** Offer to play where the server has the files for it. */
async function offerPlayer() {
  const answer = await fetch("player.json");
  const manifest = answer.ok ? await answer.json() : [];
  const ui = manifest.find((file) => file.name === "ui.js");
  if (!ui || !manifest.some((file) => file.name.endsWith(".onnx"))) return;
  const base = new URL("./", location.href).href;
  const { PlayerUi } = await import(new URL(ui.url, base));
  new PlayerUi({
    manifest,
    base,
    on,
    command: () => $("command").textContent,
    source: () => ({ task: "play", url: socketAddress(), authToken: stream.authToken }),
  });
}

const seconds = (value) => `${value.toFixed(2)} s`;
const volume = (bytes) =>
  bytes < 10000 ? `${bytes} bytes` : bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
const duration = (value) =>
  value < 120 ? `${Math.round(value)} s` : value < 7200 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("command").textContent);
    show("copied", "copied");
  } catch {
    getSelection().selectAllChildren($("command"));
    show("copied", "selected; copy it with the keyboard");
  }
  setTimeout(() => show("copied", ""), 4000);
});

$("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  stream.authToken = $("access-token").value;
  showCommand();
  stream.connect();
  askStatus();
});

showRateTable();
showCommand();
stream.connect();
askStatus();
offerPlayer();
setInterval(askStatus, STATUS_EVERY_MS);
