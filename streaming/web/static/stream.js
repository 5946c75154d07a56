// The protocol of the stream as a browser speaks it: see docs/architecture.md, "On the wire".

export const TOKEN_RATE = 25;
export const TOKEN_BITS = 14;
const TOKENS_KIND = 1;
const HEADER_BYTES = 5; // kind, index of the first token (32 bits, big-endian)

/** Tokens of a binary message: `{first, tokens}`, or null where it is none. */
export function decodeTokens(buffer) {
  const view = new DataView(buffer);
  if (view.byteLength <= HEADER_BYTES || view.getUint8(0) !== TOKENS_KIND) return null;
  const count = Math.floor((8 * (view.byteLength - HEADER_BYTES)) / TOKEN_BITS);
  const tokens = new Uint16Array(count);
  let held = 0; // bits read and not used yet, the newest lowest
  let bits = 0;
  let at = HEADER_BYTES;
  for (let index = 0; index < count; index += 1) {
    while (bits < TOKEN_BITS) {
      held = ((held << 8) | view.getUint8(at)) & 0xffffff;
      at += 1;
      bits += 8;
    }
    bits -= TOKEN_BITS;
    tokens[index] = (held >> bits) & ((1 << TOKEN_BITS) - 1);
  }
  return { first: view.getUint32(1), tokens };
}

const SPACES = /[\t-\r\x1c-\x20\x85\p{Z}]/gu;
const UNSEEN = /(?![\u200c\u200d])\p{C}/gu; // words and emoji are written with these two

/** `text` on one line: no control or other invisible characters, at most `limit` long. */
export function cleanText(text, limit = 200) {
  const shown = [...text].slice(0, 4 * limit).join("").replace(SPACES, " ").replace(UNSEEN, "");
  return [...shown.replace(/ +/g, " ").trim()].slice(0, limit).join("").trimEnd();
}

/** Where the WebSocket is: in the page's own folder, whatever a proxy puts before it. */
export function socketAddress() {
  const address = new URL("./", location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}

/** Estimated bytes on the wire of a message from the server, as the server counts them. */
export function wireBytes(bytes) {
  const framed = bytes + (bytes <= 125 ? 2 : bytes <= 65535 ? 4 : 10);
  return framed + 52 * Math.ceil(framed / 1448);
}

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;
const LASTING_MS = 1000; // a connection that ends sooner was no more than another failed attempt

/**
 * A listener that decodes nothing. Calls `on.state(word)` (connecting, live, waiting, ended,
 * refused), `on.hello(fields, other)` (other: not
 * the stream from before), `on.tokens({first, tokens}, bytes)`, `on.title(text)` and
 * `on.refused(code, sentence)`. It comes back by itself, for the token that it wants next.
 */
export class Stream {
  constructor(history, on) {
    this.history = history;
    this.on = on;
    this.authToken = "";
    this.name = "";
    this.next = null;
    this.wait = FIRST_WAIT_MS;
    this.socket = null;
    this.retry = 0;
    // A browser may keep a page that was left, connection and all, in case one comes back.
    addEventListener("pagehide", () => this.socket?.close());
  }

  /** Close the connection and do not come back until `connect`. */
  leave() {
    clearTimeout(this.retry);
    if (this.socket) this.socket.onmessage = this.socket.onclose = null;
    this.socket?.close();
  }

  connect() {
    clearTimeout(this.retry);
    this.on.state("connecting");
    const socket = new WebSocket(socketAddress());
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    let began = Infinity; // when the sender said hello
    let over = false; // for good: the stream has ended, or we are not let in
    socket.onopen = () => {
      const join = { type: "join", protocol: 1, history: this.history, client: "page" };
      if (this.name) Object.assign(join, { stream: this.name, next_token: this.next });
      if (this.authToken) join.auth_token = this.authToken;
      socket.send(JSON.stringify(join));
    };
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) {
        const packet = decodeTokens(data);
        if (!packet) return;
        this.next = packet.first + packet.tokens.length;
        this.on.tokens(packet, data.byteLength);
        return;
      }
      const message = JSON.parse(data);
      if (message.type === "hello") {
        began = performance.now();
        const other = Boolean(this.name) && this.name !== message.stream;
        this.name = message.stream ?? "";
        this.next = message.first_token;
        this.on.hello(message, other);
        this.on.state("live");
      } else if (message.type === "title") {
        this.on.title(message.title);
      } else if (message.type === "end") {
        over = true;
        this.on.state("ended");
      } else if (message.type === "error") {
        over = message.code === "auth";
        this.on.refused(message.code, message.message);
        if (over) this.on.state("refused");
      }
    };
    socket.onclose = () => {
      if (over) return;
      this.on.state("waiting");
      if (performance.now() - began >= LASTING_MS) this.wait = FIRST_WAIT_MS;
      this.retry = setTimeout(() => this.connect(), this.wait * (0.5 + Math.random() / 2));
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT_MS);
    };
  }
}
