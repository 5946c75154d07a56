// The spectrogram of the listener's page: columns of bytes, moved along as they are heard.

import { keepSharp } from "./pictures.js";

const SHOWN_S = 20;
const dark = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const DARK = [[16, 18, 22], [38, 52, 96], [94, 92, 158], [206, 128, 122], [250, 214, 160]];
const LIGHT = [[240, 238, 234], [190, 204, 222], [112, 146, 196], [62, 82, 148], [36, 28, 72]];

/** A colour for each byte, as ImageData has them: red, green, blue and alpha in 32 bits. */
function shades(stops) {
  const table = new Uint8ClampedArray(4 * 256);
  for (let value = 0; value < 256; value += 1) {
    const place = (value / 256) * (stops.length - 1);
    const index = Math.floor(place);
    stops[index].forEach((low, channel) => {
      table[4 * value + channel] = low + (place - index) * (stops[index + 1][channel] - low);
    });
    table[4 * value + 3] = 255;
  }
  return new Uint32Array(table.buffer);
}

export class Spectrogram {
  /** `place` is told at which share of the width the present is. */
  constructor(canvas, place) {
    this.place = place;
    this.columns = new Map(); // index to bytes, lowest band first
    this.columnS = 0.05;
    this.bands = 0;
    this.heard = 0; // in columns, when `heardAt` (ms) was
    this.heardAt = 0;
    this.moving = false;
    this.aheadS = 1;
    this.tables = { true: shades(DARK), false: shades(LIGHT) };
    this.image = document.createElement("canvas");
    this.drawn = 0;
    this.redraw = keepSharp(canvas, (...where) => this.draw(...where));
    const frame = (now) => {
      if (now - this.drawn > (still.matches ? 500 : 45)) {
        this.drawn = now;
        this.redraw();
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  begin(hello) {
    this.columns.clear();
    this.bands = hello.bands;
    this.columnS = hello.column_samples / hello.sample_rate;
  }

  /** Forget what will not be heard. */
  cut(column) {
    for (const index of this.columns.keys()) if (index >= column) this.columns.delete(index);
  }

  add(index, bytes) {
    this.columns.set(index, bytes);
    const newest = index;
    const ahead = (newest - this.now()) * this.columnS;
    this.aheadS = Math.max(1, Math.min(5, Math.max(ahead, this.aheadS - 0.002)));
    const oldest = newest - (SHOWN_S + 5) / this.columnS;
    for (const kept of this.columns.keys()) {
      if (kept >= oldest) break;
      this.columns.delete(kept);
    }
  }

  /** `column` (a fraction) is heard just now; `moving`: and what follows it soon. */
  hear(column, moving) {
    this.heard = column;
    this.heardAt = performance.now();
    this.moving = moving;
  }

  now() {
    const since = this.moving ? Math.min(500, performance.now() - this.heardAt) / 1000 : 0;
    return this.heard + since / this.columnS;
  }

  draw(context, width, height) {
    context.clearRect(0, 0, width, height);
    if (!this.bands) return;
    const shown = Math.round(SHOWN_S / this.columnS);
    const line = this.now();
    const end = line + this.aheadS / this.columnS;
    const first = Math.floor(end) - shown;
    const table = this.tables[dark.matches];
    this.image.width = shown + 1;
    this.image.height = this.bands;
    const brush = this.image.getContext("2d");
    const picture = brush.createImageData(shown + 1, this.bands);
    const pixels = new Uint32Array(picture.data.buffer);
    for (let place = 0; place <= shown; place += 1) {
      const bytes = this.columns.get(first + place);
      if (!bytes) continue;
      for (let band = 0; band < this.bands; band += 1) {
        pixels[(this.bands - 1 - band) * (shown + 1) + place] = table[bytes[band]];
      }
    }
    brush.putImageData(picture, 0, 0);
    const perColumn = width / shown;
    context.drawImage(this.image, -(end - Math.floor(end)) * perColumn, 0, width + perColumn, height);
    const x = (line - (end - shown)) * perColumn;
    this.place(x / width);
    context.fillStyle = dark.matches ? "rgb(16 18 22 / 55%)" : "rgb(240 238 234 / 60%)";
    context.fillRect(x, 0, width - x, height);
    context.fillStyle = getComputedStyle(context.canvas).color;
    context.fillRect(Math.round(x), 0, Math.max(1, Math.round(devicePixelRatio)), height);
  }
}
