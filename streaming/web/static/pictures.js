// Pictures of tokens and rates. Colours follow the scheme of the page, light or dark.

import { TOKEN_RATE } from "./stream.js";

const SECONDS = 60;
const KEPT = SECONDS * TOKEN_RATE;
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Make `canvas` as fine as the screen and call `draw(context, width, height)` when that changes. */
export function keepSharp(canvas, draw) {
  const context = canvas.getContext("2d");
  const redraw = () => draw(context, canvas.width, canvas.height);
  const resize = () => {
    const { width, height } = canvas.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    redraw();
  };
  new ResizeObserver(resize).observe(canvas);
  dark.addEventListener("change", redraw);
  return redraw;
}

/** A token's colour: like codes look alike. The parts are those of nano's quantiser. */
function colour(token, isDark) {
  const hue = 180 + ((token & 63) / 63) * 125;
  const light = ((token >> 6) & 7) / 7;
  const vivid = 14 + ((token >> 9) & 3) * 12;
  const lightness = isDark ? 20 + 52 * light : 88 - 52 * light;
  return `hsl(${hue.toFixed(0)} ${vivid}% ${lightness.toFixed(0)}%)`;
}

/** The last minute of tokens: a column a second, the newest at the right. */
export class TokenPicture {
  constructor(canvas) {
    this.tokens = new Map(); // index to token
    this.end = 0;
    this.redraw = keepSharp(canvas, (...where) => this.draw(...where));
  }

  clear() {
    this.tokens.clear();
    this.end = 0;
  }

  add({ first, tokens }) {
    tokens.forEach((token, offset) => this.tokens.set(first + offset, token));
    this.end = Math.max(this.end, first + tokens.length);
    for (const index of this.tokens.keys()) {
      if (index >= this.end - KEPT) break; // they were put in in order
      this.tokens.delete(index);
    }
    this.redraw();
  }

  /** For those who do not see it. */
  describe() {
    const shown = [...this.tokens.values()];
    const seconds = Math.round(shown.length / TOKEN_RATE);
    return `${shown.length} tokens of ${seconds} s, ${new Set(shown).size} of them different`;
  }

  draw(context, width, height) {
    context.clearRect(0, 0, width, height);
    const newest = Math.ceil(this.end / TOKEN_RATE); // seconds of the stream, its end
    const edge = (part, parts, length) => Math.round((part * length) / parts);
    const gap = width / SECONDS > 6 ? 1 : 0;
    for (const [index, token] of this.tokens) {
      const column = SECONDS - newest + Math.floor(index / TOKEN_RATE);
      if (column < 0) continue;
      const row = index % TOKEN_RATE;
      const [left, right] = [edge(column, SECONDS, width), edge(column + 1, SECONDS, width)];
      const [top, bottom] = [edge(row, TOKEN_RATE, height), edge(row + 1, TOKEN_RATE, height)];
      context.fillStyle = colour(token, dark.matches);
      context.fillRect(left, top, right - left - gap, bottom - top - gap);
    }
  }
}

/** A bit rate for people, with at most three digits. */
export function bitRate(rate) {
  if (rate === null || rate === undefined) return "–";
  const [value, unit] =
    rate >= 1e6 ? [rate / 1e6, "Mbit/s"] : rate >= 1000 ? [rate / 1000, "kbit/s"] : [rate, "bit/s"];
  return `${Number(value.toPrecision(3))} ${unit}`;
}

const FIRST_DECADE = 2;
const DECADES = 5; // 100 bit/s to 10 Mbit/s

/** Rows `{what, rate, ours}` as a table with bars on a logarithmic scale. */
export function showRates(body, rows) {
  body.replaceChildren(
    ...rows.map(({ what, rate, ours }) => {
      const row = document.createElement("tr");
      row.classList.toggle("ours", ours);
      const heading = document.createElement("th");
      heading.scope = "row";
      heading.textContent = what;
      const number = document.createElement("td");
      number.className = "number";
      number.textContent = bitRate(rate);
      const bar = document.createElement("td");
      bar.className = "bar";
      bar.setAttribute("aria-hidden", "true");
      const track = document.createElement("div");
      track.className = "track";
      const length = document.createElement("span");
      const share = rate ? (Math.log10(rate) - FIRST_DECADE) / DECADES : 0;
      length.style.width = `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%`;
      track.append(length);
      bar.append(track);
      row.append(heading, number, bar);
      return row;
    }),
    ticks(),
  );
}

function ticks() {
  const row = document.createElement("tr");
  row.setAttribute("aria-hidden", "true");
  const empty = document.createElement("td");
  empty.colSpan = 2;
  empty.className = "empty";
  const scale = document.createElement("td");
  scale.className = "scale";
  const marks = document.createElement("div");
  marks.className = "ticks";
  ["100", "1k", "10k", "100k", "1M", "10M"].forEach((mark, decade) => {
    const label = document.createElement("span");
    label.textContent = mark;
    label.style.left = `${(100 * decade) / DECADES}%`;
    marks.append(label);
  });
  scale.append(marks);
  row.append(empty, scale);
  return row;
}
