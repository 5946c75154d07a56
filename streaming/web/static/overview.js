// A recording at a glance: how loud it is from its beginning to its end, and what of it was heard.

import { keepSharp } from "./pictures.js";

const BAR = 2; // pixels of the page; as much is left between two

export class Overview {
  constructor(canvas) {
    this.parts = []; // how loud each part is, NaN where it is missing
    this.heard = 0; // share of the whole
    this.redraw = keepSharp(canvas, (...where) => this.draw(...where));
  }

  show(parts) {
    this.parts = parts;
    this.hear(0);
  }

  /** share: up to where it was heard. */
  hear(share) {
    this.heard = share;
    this.redraw();
  }

  draw(context, width, height) {
    context.clearRect(0, 0, width, height);
    const { length } = this.parts;
    if (!length) return;
    const style = getComputedStyle(context.canvas);
    const [heard, rest, missing] = ["--accent", "--bar", "--warm"].map((name) => style.getPropertyValue(name));
    const scale = Math.max(1, Math.round(devicePixelRatio));
    const bars = Math.max(1, Math.min(length, Math.floor(width / (2 * BAR * scale))));
    const loud = Array.from({ length: bars }, (_, bar) => {
      const begin = Math.floor((bar * length) / bars);
      const end = Math.max(begin + 1, Math.floor(((bar + 1) * length) / bars));
      return Math.max(...this.parts.subarray(begin, end)); // NaN where one is
    });
    const most = Math.max(...loud.filter((value) => value > 0), 1e-9);
    loud.forEach((value, bar) => {
      const gone = Number.isNaN(value);
      const tall = Math.max(scale, gone ? 0 : Math.round(0.96 * height * (value / most) ** 0.7));
      const left = Math.round((bar * width) / bars);
      const right = Math.max(left + scale, Math.round(((bar + 0.5) * width) / bars));
      context.fillStyle = gone ? missing : (bar + 0.5) / bars <= this.heard ? heard : rest;
      context.fillRect(left, Math.round((height - tall) / 2), right - left, tall);
    });
    context.fillStyle = style.color;
    context.fillRect(Math.min(width - scale, Math.round(this.heard * width)), 0, scale, height);
  }
}
