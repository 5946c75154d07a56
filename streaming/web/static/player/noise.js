// Gaussian noise keyed by seed and absolute token: codec/noise.py in JavaScript.
//
// Philox 4x64 with ten rounds (Salmon et al., 2011), as numpy has it, then Box and Muller in
// double precision. A word of 64 bits is two numbers of 32, the upper first.

const TWO32 = 2 ** 32;
const [M0H, M0L] = [0xd2e7470e, 0xe14c6c93];
const [M1H, M1L] = [0xca5a8263, 0x95121157];
const W0 = [0x9e3779b9, 0x7f4a7c15];
const W1 = [0xbb67ae85, 0x84caa73b];
const ROUNDS = 10;

/** Upper 32 bits of the product of two numbers of 32 bits; every sum on the way is exact. */
function upper(a, b) {
  const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
  const one = ah * bl + ((al * bl) >>> 16);
  const other = al * bh + (one & 0xffff);
  return ah * bh + (one >>> 16) + (other >>> 16);
}

const product = new Uint32Array(4); // of two words, lowest part first
const carry = (sum) => (sum / TWO32) | 0;

function multiply(ah, al, bh, bl) {
  const second = upper(al, bl) + (Math.imul(al, bh) >>> 0) + (Math.imul(ah, bl) >>> 0);
  const third = upper(al, bh) + upper(ah, bl) + (Math.imul(ah, bh) >>> 0) + carry(second);
  product[0] = Math.imul(al, bl);
  product[1] = second;
  product[2] = third;
  product[3] = upper(ah, bh) + carry(third);
}

function add([ah, al], [bh, bl]) {
  const low = al + bl;
  return [(ah + bh + (low >= TWO32 ? 1 : 0)) % TWO32, low % TWO32];
}

/** An integer of at most 53 bits, of either sign, as a word in two's complement. */
function word(value) {
  const upperHalf = Math.floor(value / TWO32);
  return [upperHalf >>> 0, value - upperHalf * TWO32];
}

/** The keys of the ten rounds, two words each, from a seed. */
function schedule(seed) {
  const keys = [];
  let [one, other] = [word(seed), [0, 0]];
  for (let round = 0; round < ROUNDS; round += 1) {
    keys.push(...one, ...other);
    one = add(one, W0);
    other = add(other, W1);
  }
  return Uint32Array.from(keys);
}

/** The upper 53 bits of a word as a number in (0, 1). */
const unit = (high, low) => ((high >>> 0) * 2 ** 21 + (low >>> 11) + 0.5) * 2 ** -53;

function fillUniform(keys, token, purpose, out) {
  const [tokenHigh, tokenLow] = word(token);
  for (let at = 0; at < out.length; at += 4) {
    let ah = 0, al = at / 4 + 1, bh = 0, bl = 0;
    let ch = tokenHigh, cl = tokenLow, dh = 0, dl = purpose;
    for (let key = 0; key < keys.length; key += 4) {
      multiply(ah, al, M0H, M0L);
      const p0 = product[0], p1 = product[1], p2 = product[2], p3 = product[3];
      multiply(ch, cl, M1H, M1L);
      al = product[2] ^ bl ^ keys[key + 1];
      ah = product[3] ^ bh ^ keys[key];
      bl = product[0];
      bh = product[1];
      cl = p2 ^ dl ^ keys[key + 3];
      ch = p3 ^ dh ^ keys[key + 2];
      dl = p0;
      dh = p1;
    }
    out[at] = unit(ah, al);
    out[at + 1] = unit(bh, bl);
    out[at + 2] = unit(ch, cl);
    out[at + 3] = unit(dh, dl);
  }
}

/** Rows of normal noise, float32 of `width` each; the newest are kept, since windows overlap. */
export class Noise {
  constructor(seed, { purpose, width }, kept = 96) {
    this.keys = schedule(seed);
    this.purpose = purpose;
    this.width = width;
    this.kept = kept;
    this.rows = new Map();
  }

  row(token) {
    let row = this.rows.get(token);
    if (row) return row;
    const pairs = Math.ceil(this.width / 2);
    const uniform = new Float64Array(4 * Math.ceil(pairs / 2));
    fillUniform(this.keys, token, this.purpose, uniform);
    row = new Float32Array(2 * pairs);
    for (let pair = 0; pair < pairs; pair += 1) {
      const radius = Math.sqrt(-2 * Math.log(uniform[pair]));
      const angle = 2 * Math.PI * uniform[pairs + pair];
      row[pair] = radius * Math.cos(angle);
      row[pairs + pair] = radius * Math.sin(angle);
    }
    row = row.subarray(0, this.width);
    this.rows.set(token, row);
    if (this.rows.size > this.kept) this.rows.delete(this.rows.keys().next().value);
    return row;
  }
}
