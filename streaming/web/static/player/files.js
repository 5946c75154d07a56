// The files that playing needs: fetched once, their digests checked, for browsers keep them.

import { readCodebooks } from "./levels.js";

const OPTIMISATION = "basic";

/** SHA-256 of bytes, 64 hexadecimal digits; browsers have their own only on pages they call secure. */
export async function sha256(bytes) {
  const digest = globalThis.crypto?.subtle
    ? new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))
    : plainSha256(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The first 32 bits of the fractional parts of roots of the first primes: FIPS 180-4, 4.2.2. */
function roots(count, power) {
  const primes = [];
  for (let n = 2; primes.length < count; n += 1) if (primes.every((p) => n % p)) primes.push(n);
  return primes.map((prime) => {
    const whole = Math.floor(prime ** power);
    const exponent = BigInt(Math.round(1 / power));
    let part = BigInt(whole) << 32n; // grows to the largest whose power is not above the prime's
    const wanted = BigInt(prime) << (32n * exponent);
    for (let bit = 31n; bit >= 0n; bit -= 1n) {
      if ((part | (1n << bit)) ** exponent <= wanted) part |= 1n << bit;
    }
    return Number(part & 0xffffffffn) | 0;
  });
}

export function plainSha256(bytes) {
  const constants = Int32Array.from(roots(64, 1 / 3));
  const state = Int32Array.from(roots(8, 1 / 2));
  const padded = Math.ceil((bytes.length + 9) / 64) * 64;
  const end = new Uint8Array(padded - Math.floor(bytes.length / 64) * 64);
  end.set(bytes.subarray(bytes.length - (bytes.length % 64)));
  end[bytes.length % 64] = 0x80;
  const view = new DataView(end.buffer);
  view.setUint32(end.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(end.length - 4, (bytes.length * 8) >>> 0);
  const words = new Int32Array(64);
  const turn = (value, bits) => (value >>> bits) | (value << (32 - bits));
  const block = (data) => {
    for (let at = 0; at < 16; at += 1) words[at] = data.getInt32(4 * at);
    for (let at = 16; at < 64; at += 1) {
      const [a, b] = [words[at - 15], words[at - 2]];
      const low = turn(a, 7) ^ turn(a, 18) ^ (a >>> 3);
      const high = turn(b, 17) ^ turn(b, 19) ^ (b >>> 10);
      words[at] = words[at - 16] + low + words[at - 7] + high;
    }
    let a = state[0], b = state[1], c = state[2], d = state[3];
    let e = state[4], f = state[5], g = state[6], h = state[7];
    for (let at = 0; at < 64; at += 1) {
      const chosen = (e & f) ^ (~e & g);
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + chosen + constants[at] + words[at]) | 0;
      const most = (a & b) ^ (a & c) ^ (b & c);
      const other = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + most) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + one) | 0;
      d = c;
      c = b;
      b = a;
      a = (one + other) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, at) => (state[at] += value));
  };
  for (let at = 0; at + 64 <= bytes.length; at += 64) {
    block(new DataView(bytes.buffer, bytes.byteOffset + at, 64));
  }
  for (let at = 0; at < end.length; at += 64) block(new DataView(end.buffer, at, 64));
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((value, at) => digest.setInt32(4 * at, value));
  return new Uint8Array(digest.buffer);
}

/** Fetch files of the manifest; `progress(done, total)` is told of bytes as they come. */
export async function fetchAll(files, base, progress = () => {}) {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let done = 0;
  const fetched = await Promise.all(
    files.map(async (file) => {
      const bytes = await fetchOne(file, base, (count) => progress((done += count), total));
      if ((await sha256(bytes)) !== file.sha256) {
        throw new Error(`${file.name} did not come whole; load the page again.`);
      }
      return [file.name, bytes];
    }),
  );
  return new Map(fetched);
}

async function fetchOne({ name, url, bytes: size }, base, count) {
  const address = new URL(url, base);
  const ask = (where) =>
    fetch(where).catch(() => {
      throw new Error(`${name} cannot be loaded from ${address.origin}; try again.`);
    });
  let answer = await ask(address);
  // A plain folder of files has the large ones compressed, and does not say so.
  if (answer.status === 404 && !url.endsWith(".gz")) answer = await ask(`${address}.gz`);
  if (!answer.ok) {
    throw new Error(`${name} cannot be loaded: ${address.origin} answers ${answer.status}.`);
  }
  const packed = answer.url.endsWith(".gz");
  const stream = packed ? answer.body.pipeThrough(new DecompressionStream("gzip")) : answer.body;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > size) throw new Error(`${name} is longer than it should be.`);
    whole.set(value, at);
    at += value.length;
    count(value.length);
  }
  return whole.subarray(0, at);
}

/** The decoder, ready to run, with the manifest's files. */
export async function loadNano(manifest, base, progress) {
  const named = (end) => manifest.find((file) => file.name.endsWith(end));
  const [script, runtime, weights] = [".mjs", ".wasm", ".safetensors"].map(named);
  const graphs = ["decoder.onnx", "vocoder.onnx"].map(named);
  const [files, ort, { Nano }] = await Promise.all([
    fetchAll([runtime, weights, ...graphs], base, progress),
    import(new URL(script.url, base)),
    import("./nano.js"),
  ]);
  ort.env.wasm.numThreads = 1; // more need a page isolated from others, and are slower for this
  ort.env.wasm.wasmBinary = files.get(runtime.name).buffer;
  const sessions = [];
  for (const graph of graphs) {
    sessions.push(
      await ort.InferenceSession.create(files.get(graph.name), {
        executionProviders: ["wasm"],
        graphOptimizationLevel: OPTIMISATION,
        externalData: [{ path: weights.name, data: files.get(weights.name) }],
      }),
    );
  }
  const codebooks = readCodebooks(files.get(weights.name));
  return new Nano(ort, weights.sha256, codebooks, ...sessions);
}
