// How loud each token is, from the two of its bits that say so: codec/nano/level.py.

const NAME = "codec.level.codebooks";
const GROUP = 4; // tokens, whose bits together name an entry of a codebook
const SPAN = 16; // tokens, of which the first four say how loud they are and the others what has changed
const LEARNT_BITS = 11;

/** The codebooks of first groups and of others, float32 `[2, 256, 4]`, from the file of the weights. */
export function readCodebooks(safetensors) {
  const size = Number(new DataView(safetensors.buffer, safetensors.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(safetensors.subarray(8, 8 + size)));
  const [begin, end] = header[NAME].data_offsets.map((offset) => 8 + size + offset);
  return new Float32Array(safetensors.slice(begin, end).buffer);
}

/** Magnitudes of tokens in a row, float32 `[n]`: of those about which nothing is said, their neighbours'. */
export function magnitudes(tokens, first, codebooks) {
  const found = new Float32Array(tokens.length).fill(NaN);
  let reference = NaN;
  for (let at = -first & (GROUP - 1); at + GROUP <= tokens.length; at += GROUP) {
    const begins = (first + at) % SPAN === 0;
    if (begins) reference = 0;
    let entry = 0;
    for (let place = 0; place < GROUP; place += 1) {
      entry = 4 * entry + ((tokens[at + place] >> LEARNT_BITS) & 3);
    }
    let power = 0;
    for (let place = 0; place < GROUP; place += 1) {
      const magnitude = Math.exp(codebooks[(256 * !begins + entry) * GROUP + place] + reference);
      found[at + place] = magnitude;
      power += magnitude ** 2 / GROUP;
    }
    reference = Math.log(power) / 2;
  }
  const fill = (at, from) => Number.isNaN(found[at]) && (found[at] = found[from]);
  for (let at = found.length - 2; at >= 0; at -= 1) fill(at, at + 1);
  for (let at = 1; at < found.length; at += 1) fill(at, at - 1);
  return found;
}

/** At most `most` equal parts of a file, float32: how loud each is, NaN where nothing is there. */
export function overview({ header, items, start, end }, codebooks, most = 2048) {
  const power = new Float64Array(Math.min(most, end - start));
  const count = new Uint32Array(power.length);
  let run = [];
  const addRun = () => {
    const first = run.length ? run[0].first : 0;
    const tokens = Uint16Array.from(run.flatMap((item) => Array.from(item.tokens)));
    magnitudes(tokens, first, codebooks).forEach((magnitude, at) => {
      const part = Math.floor(((first + at - start) * power.length) / (end - start));
      if (part < 0 || Number.isNaN(magnitude)) return; // context, or too short to say
      power[part] += magnitude ** 2;
      count[part] += 1;
    });
    run = [];
  };
  for (const item of items) {
    if (item.type === "tokens") run.push(item);
    else if (item.type === "gap") addRun();
  }
  addRun();
  return Float32Array.from(power, (sum, part) => Math.sqrt(sum / count[part]));
}
