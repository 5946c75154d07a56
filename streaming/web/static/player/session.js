// A listener's end of a connection without socket and clock: streaming/stream/listener_session.py.
//
// It says what to send and puts in order what arrives. Its join names no kinds of binary messages,
// so that packets come plain even where the sender codes them.

import { cleanText, decodeTokens, TOKEN_BITS, TOKEN_RATE } from "../../stream.js";

export const SAMPLES_PER_TOKEN = 1920;
export const SAMPLE_RATE = TOKEN_RATE * SAMPLES_PER_TOKEN;
const PROTOCOL = 1;
export const CONTEXT_TOKENS = 256; // heard by the decoder before a place in the past
const MOST_INDEX = 2 ** 32 - 1;
const MOST_REPEATED = 2048; // what lies further back is a stream that has jumped back

/** Why a connection is of no more use, for people. */
export class ProtocolError extends Error {}

export class Session {
  /** history: tokens wanted from before the live edge. */
  constructor(history = CONTEXT_TOKENS, client = "page") {
    this.history = history;
    this.client = client;
    this.authToken = "";
    this.hello = null;
    this.next = 0; // the token expected next
    this.lost = 0;
    this.title = "";
    this.place = {}; // where in the stream to begin: {} is live, else {behind_s} or {token}
    this.joining = true;
    this.resuming = false;
    this.ended = false;
  }

  /** The first message on a connection: begin at `place`, or go on where we were without one. */
  join(place = null) {
    this.joining = true;
    this.resuming = place === null && this.hello !== null;
    if (place !== null) this.place = place;
    const fields = { type: "join", protocol: PROTOCOL, history: this.history, client: this.client };
    if (this.resuming) Object.assign(fields, { next_token: this.next, stream: this.hello.stream });
    else if (this.place.token !== undefined) {
      fields.next_token = Math.max(0, this.place.token - CONTEXT_TOKENS);
    } else if (this.place.behind_s !== undefined) {
      fields.history = Math.min(
        MOST_INDEX,
        Math.round(this.place.behind_s * TOKEN_RATE) + CONTEXT_TOKENS,
      );
    }
    if (this.authToken) fields.auth_token = this.authToken;
    return JSON.stringify(fields);
  }

  get live() {
    return this.place.token === undefined && this.place.behind_s === undefined;
  }

  /** The token with which the sound begins, where the tokens that are sent begin at `first`. */
  firstHeard(first) {
    if (this.place.token !== undefined) return Math.max(first, this.place.token);
    return first ? first + CONTEXT_TOKENS : 0;
  }

  /**
   * Take one message; returns what it brought, in order and without overlaps: objects of `type`
   * hello, tokens, gap, title, end or error. Raises ProtocolError if it makes no sense.
   */
  receive(data) {
    if (this.ended) return [];
    if (typeof data !== "string") return this.takeTokens(decodeTokens(data));
    const message = parse(data);
    if (message.type === "error") return [message];
    if (message.type === "hello") {
      if (!this.joining) throw new ProtocolError("The server said hello twice.");
      return this.welcome(message);
    }
    if (this.joining) throw new ProtocolError("The server did not begin with a hello.");
    if (message.type === "gap") return this.skipTo(index(message.first_token) + index(message.count));
    if (message.type === "title") {
      this.title = cleanText(String(message.title));
      return [{ type: "title", title: this.title, token: index(message.token) }];
    }
    if (message.type === "end") {
      const before = this.skipTo(index(message.token));
      this.ended = true;
      return [...before, { type: "end", token: this.next }];
    }
    return []; // of a later version
  }

  welcome(hello) {
    check(hello);
    this.joining = false;
    const before = this.hello;
    const same = before !== null && hello.stream !== "" && hello.stream === before.stream;
    const goesOn =
      this.resuming && same && hello.seed === before.seed && this.next <= hello.next_token;
    this.hello = hello;
    if (goesOn) return this.skipTo(hello.first_token);
    this.title = hello.title;
    this.next = hello.first_token;
    return [{ type: "hello", hello, same }];
  }

  takeTokens(packet) {
    if (this.joining) throw new ProtocolError("The server did not begin with a hello.");
    if (packet === null) return [];
    const { first, tokens } = packet;
    const end = first + tokens.length;
    if (this.next - end > MOST_REPEATED) {
      this.hello = null; // begin anew
      throw new ProtocolError("The stream has jumped back.");
    }
    const overlap = Math.min(Math.max(0, this.next - first), tokens.length);
    if (overlap === tokens.length) return [];
    const before = this.skipTo(first);
    this.next = end;
    const rest = tokens.subarray(overlap);
    return [...before, { type: "tokens", first: first + overlap, tokens: rest, end }];
  }

  /** Report the tokens up to `token` as lost, where there are any. */
  skipTo(token) {
    const count = token - this.next;
    if (count <= 0) return [];
    const gap = { type: "gap", first: this.next, count, end: token };
    this.lost += count;
    this.next = token;
    return [gap];
  }
}

function parse(text) {
  try {
    const message = JSON.parse(text);
    if (typeof message?.type === "string") return message;
  } catch {
    // said below
  }
  throw new ProtocolError("The server sent what is no message.");
}

function index(value) {
  if (Number.isInteger(value) && value >= 0 && value <= MOST_INDEX) return value;
  throw new ProtocolError("The server named a place that is none.");
}

function check(hello) {
  index(hello.first_token);
  index(hello.next_token);
  const { sample_rate, token_rate, token_bits, packet_tokens, seed } = hello;
  if (sample_rate !== SAMPLE_RATE || token_rate !== TOKEN_RATE || token_bits !== TOKEN_BITS) {
    throw new ProtocolError("The stream has other rates than this page knows.");
  }
  if (!(packet_tokens >= 1 && packet_tokens <= 1024) || !Number.isSafeInteger(seed)) {
    throw new ProtocolError("The server's hello makes no sense.");
  }
  hello.stream = String(hello.stream ?? "");
  hello.title = cleanText(String(hello.title ?? ""));
  hello.age_s = Number(hello.age_s) || 0;
  hello.delay_s = Number(hello.delay_s) || 0;
}
