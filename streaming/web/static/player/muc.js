// Reads .muc files, whole, cut off or damaged, as docs/format.md describes them.

import { cleanText, decodeTokens, TOKEN_BITS } from "../../stream.js";
import { SAMPLES_PER_TOKEN } from "./session.js";

const SYNC = [0xf3, 0x50];
const OVERHEAD = 8; // sync marker, length, CRC-32
const MOST_MESSAGE = 2048;
const MOST_TOKENS = 1024;
const MOST_INDEX = 2 ** 32 - 1;
const MOST_GAP = 15000; // tokens; a longer gap is closed
const MOST_CONTEXT = 4096;
const MOST_NAME = 64; // characters
const MOST_SILENCE = 3600 * 25; // tokens that may be missing in any file

const TABLE = Int32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  return value;
});

function crc32(bytes) {
  let sum = -1;
  for (const byte of bytes) sum = (sum >>> 8) ^ TABLE[(sum ^ byte) & 0xff];
  return ~sum >>> 0;
}

/** The messages of all whole records. */
export function* messages(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = bytes.indexOf(SYNC[0]); at >= 0; at = bytes.indexOf(SYNC[0], at)) {
    const begin = at + OVERHEAD;
    at += 1;
    if (begin > bytes.length || bytes[at] !== SYNC[1]) continue;
    const length = view.getUint16(at + 1);
    if (length < 1 || length > MOST_MESSAGE || begin + length > bytes.length) continue;
    const message = bytes.subarray(begin, begin + length);
    if (crc32(message) !== view.getUint32(at + 3)) continue;
    yield message;
    at = begin + length;
  }
}

const whole = (value, low, high) => Number.isInteger(value) && value >= low && value <= high;
const name = (value) => (typeof value === "string" ? cleanText(value, MOST_NAME) : null);

/** What a message says, an object of `type`; null for what is wrong, or of a later version. */
function readMessage(message) {
  if (message[0] === 1) return readTokens(message);
  if (message[0] !== 0x7b) return null;
  let event;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(message);
    event = JSON.parse(text, written);
  } catch {
    return null;
  }
  const { type, token, title } = event;
  if (type === "stream") return readHeader(event);
  if (!whole(token, 0, MOST_INDEX)) return null; // gaps show by the numbers of what follows them
  if (type === "title" && typeof title === "string") return { type, title: cleanText(title), token };
  const { padding, reason = "" } = event;
  if (type !== "end" || typeof reason !== "string") return null;
  if (!whole(padding ?? 0, 0, SAMPLES_PER_TOKEN - 1)) return null;
  return { type, token, padding: padding ?? 0 };
}

/** What a field holds; a number that is written with a point or an exponent is no whole one. */
const written = (_, value, context) =>
  Number.isInteger(value) && /[.eE]/.test(context?.source ?? "") ? NaN : value;

function readTokens(message) {
  const packet = decodeTokens(message.slice().buffer);
  if (packet === null || packet.tokens.length === 0) return null;
  const { first, tokens } = packet;
  const spare = 8 * (message.length - 5) - TOKEN_BITS * tokens.length;
  const wrong = spare > 7 || (message.at(-1) & ((1 << spare) - 1)) !== 0;
  if (wrong || tokens.length > MOST_TOKENS || first + tokens.length > MOST_INDEX) return null;
  return { type: "tokens", first, tokens, end: first + tokens.length };
}

function readHeader(event) {
  const { version, seed, first_token: first } = event;
  if (!whole(version, 1, MOST_INDEX)) return null;
  if (version !== 1) throw new Error("The file is of a later version of the format than this page.");
  const [codec, weights, digest] = [event.codec, event.weights, event.digest].map(name);
  const stream = name(event.stream === undefined ? "" : event.stream);
  if ([codec, weights, stream].includes(null) || !/^[0-9a-f]{64}$/.test(digest)) return null;
  if (!whole(seed, 0, Number.MAX_SAFE_INTEGER) || !whole(first, 0, MOST_INDEX)) return null;
  const start_token = event.start_token ?? null;
  const most = Math.min(MOST_INDEX, first + MOST_CONTEXT);
  if (start_token !== null && !whole(start_token, first, most)) return null;
  const start = start_token ?? first;
  return { type: "stream", codec, weights, digest, seed, stream, first, start };
}

/**
 * A file's `header`, `items` (tokens, gaps and titles in order, the decoder's context first),
 * `start` and `end` (tokens of the music), `samples` (its length), `lost` tokens, whether it is
 * `complete`. Raises an Error with one sentence where it is none.
 */
export function readMuc(bytes) {
  const records = [];
  let header = null;
  for (const message of messages(bytes)) {
    const record = readMessage(message);
    if (record?.type !== "stream") {
      if (record) records.push(record);
    } else if (header === null) header = record;
    else if (JSON.stringify(record) !== JSON.stringify(header)) break; // another stream from there on
  }
  if (header === null) throw new Error("This is no .muc file, or too damaged to tell what is in it.");
  const { start } = header;
  const music = inOrder(records, start);
  const counted = (type) =>
    music.items.reduce((sum, item) => sum + (item.type === type ? item.end - item.first : 0), 0);
  const [heard, lost] = [counted("tokens"), counted("gap")];
  if (lost > Math.max(heard, MOST_SILENCE)) {
    throw new Error("Far more of this file is missing than is there.");
  }
  const length = (heard + lost) * SAMPLES_PER_TOKEN;
  const samples = length - Math.min(length, music.finish?.padding ?? 0);
  const { items } = inOrder(records, header.first);
  return { header, items, start, end: start + heard + lost, samples, lost, complete: music.finish !== null };
}

/** Tokens, gaps and titles from the token `first` on, and the end if it is one. */
function inOrder(records, first) {
  const items = [];
  let place = first;
  let closed = 0; // tokens by which what follows has lower numbers
  let finish = null;
  for (const record of records) {
    if (record.type === "title") {
      const token = Math.max(first, record.token - closed);
      items.push({ ...record, token: token - place <= MOST_GAP ? token : place });
      continue;
    }
    let end = (record.type === "end" ? record.token : record.end) - closed;
    let begin = record.type === "tokens" ? record.first - closed : end;
    if (begin - place > MOST_GAP) {
      const count = begin - place;
      [closed, begin, end] = [closed + count, place, end - count];
    }
    if (end < place) continue;
    if (begin > place) items.push({ type: "gap", first: place, count: begin - place, end: begin });
    if (record.type === "tokens" && end > place) {
      const from = Math.max(begin, place);
      items.push({ type: "tokens", first: from, tokens: record.tokens.subarray(from - begin), end });
    }
    place = end;
    finish = record.type === "end" ? record : null;
  }
  return { items, finish };
}
