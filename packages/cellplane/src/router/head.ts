import type { RequestHead } from "../routing/model.ts";

/**
 * Reads the head of an HTTP/1.1 message where it lies in the buffer, strictly as RFC 9112 has it: lines end with CR LF,
 * nothing is folded, a name is followed by its colon, and of two ways to read a message's length none is taken. What is
 * passed on is byte for byte what was checked, so a cell cannot see another message than the router did (SPEC D1).
 */

const headBytesMax = 16 * 1024;
const targetBytesMax = 8 * 1024;
const fieldsMax = 100;

/** What a field means to a router; `plain` ones are passed on. */
const field = {
  plain: 0, host: 1, contentLength: 2, transferEncoding: 3, connection: 4, expect: 5, upgrade: 6, requestId: 7, keepAlive: 8,
  /** Hop by hop, or ours to set: never passed on. */
  dropped: 9,
} as const;

/** Head not complete. Other answers are its end (> 0) or minus an HTTP status (< 0). */
const incomplete = 0;

const cr = 0x0d;
const lf = 0x0a;
const sp = 0x20;
const tab = 0x09;
const colon = 0x3a;

/** Bits of what a byte may be part of. */
const token = 1;
const text = 2;
const target = 4;
const hostName = 8;
const bytesOf = new Uint8Array(256).map((_, byte) => {
  const letter = String.fromCharCode(byte);
  return (
    (/[A-Za-z0-9!#$%&'*+.^_`|~-]/.test(letter) ? token : 0) |
    (byte === tab || (byte >= sp && byte !== 0x7f) ? text : 0) |
    (byte > sp && byte < 0x7f && letter !== "#" ? target : 0) |
    (/[A-Za-z0-9._-]/.test(letter) ? hostName : 0)
  );
});

const bytes = (word: string): Uint8Array => Uint8Array.from(word, (letter) => letter.charCodeAt(0));
const words = {
  host: bytes("host"), te: bytes("te"), connection: bytes("connection"), keepAlive: bytes("keep-alive"), contentLength: bytes("content-length"),
  transferEncoding: bytes("transfer-encoding"), expect: bytes("expect"), upgrade: bytes("upgrade"), trailer: bytes("trailer"), forwarded: bytes("forwarded"),
  xForwarded: bytes("x-forwarded-"), proxyConnection: bytes("proxy-connection"), requestId: bytes("x-request-id"), settings: bytes("http2-settings"), cellplane: bytes("cellplane"),
  chunked: bytes("chunked"), close: bytes("close"), continue: bytes("100-continue"), h2c: bytes("h2c"), get: bytes("get"), head: bytes("head"), options: bytes("options"), connect: bytes("connect"), trace: bytes("trace"),
  http: bytes("http://"), https: bytes("https://"),
};

/** Compares with a word of small letters, digits, `-`, `:` and `/`, in whatever case. */
function isWord(bytes: Uint8Array, start: number, end: number, word: Uint8Array): boolean {
  return end - start === word.length && beginsWith(bytes, start, word);
}
function beginsWith(bytes: Uint8Array, start: number, word: Uint8Array): boolean {
  for (let i = 0; i < word.length; i++) if (((bytes[start + i] as number) | 0x20) !== word[i]) return false;
  return true;
}

/** Fields of either kind of message. One object is used for message after message. */
class Head {
  bytes: Buffer = Buffer.alloc(0);
  start = 0;
  /** Just after the empty line. */
  end = 0;
  minor = 1;
  fields = 0;
  readonly nameStarts = new Int32Array(fieldsMax);
  readonly nameEnds = new Int32Array(fieldsMax);
  readonly valueStarts = new Int32Array(fieldsMax);
  readonly valueEnds = new Int32Array(fieldsMax);
  readonly kinds = new Uint8Array(fieldsMax);
  /** −1: none given. */
  contentLength = -1;
  chunked = false;
  /** The sender will close, or asks to. */
  close = false;
  /** `keep-alive` stands in Connection: what HTTP/1.0 needs to stay open. */
  keepAlive = false;
  /** `upgrade` stands in Connection. */
  upgrade = false;
  /** Connection names other fields, which then are hop by hop too. */
  namesFields = false;
  upgradeField = -1;

  protected reset(bytes: Buffer, start: number): void {
    this.bytes = bytes;
    this.start = start;
    this.fields = 0;
    this.minor = 1;
    this.contentLength = -1;
    this.chunked = false;
    this.close = false;
    this.keepAlive = false;
    this.upgrade = false;
    this.namesFields = false;
    this.upgradeField = -1;
  }

  /** The value of a field, for messages and tests. */
  value(at: number): string {
    return this.bytes.toString("latin1", this.valueStarts[at], this.valueEnds[at]);
  }

  /** Reads field lines from `at` to the empty line. */
  protected readFields(at: number, end: number): number {
    const { bytes } = this;
    let pos = at;
    for (;;) {
      if (pos >= end) return incomplete;
      const first = bytes[pos] as number;
      if (first === cr) {
        if (pos + 1 >= end) return incomplete;
        if (bytes[pos + 1] !== lf) return -400;
        this.end = pos + 2;
        return this.end;
      }
      if (this.fields === fieldsMax) return -431;
      const nameStart = pos;
      while (pos < end && (bytesOf[bytes[pos] as number] as number) & token) pos++;
      if (pos >= end) return incomplete;
      // An empty name, a space before the colon and a folded line all end here.
      if (bytes[pos] !== colon || pos === nameStart) return -400;
      const nameEnd = pos++;
      while (pos < end && (bytes[pos] === sp || bytes[pos] === tab)) pos++;
      const valueStart = pos;
      while (pos < end && (bytesOf[bytes[pos] as number] as number) & text) pos++;
      if (pos >= end) return incomplete;
      if (bytes[pos] !== cr) return -400;
      if (pos + 1 >= end) return incomplete;
      if (bytes[pos + 1] !== lf) return -400;
      let valueEnd = pos;
      while (valueEnd > valueStart && (bytes[valueEnd - 1] === sp || bytes[valueEnd - 1] === tab)) valueEnd--;
      pos += 2;
      const i = this.fields++;
      this.nameStarts[i] = nameStart;
      this.nameEnds[i] = nameEnd;
      this.valueStarts[i] = valueStart;
      this.valueEnds[i] = valueEnd;
      const kind = kindOf(bytes, nameStart, nameEnd);
      this.kinds[i] = kind;
      if (kind !== field.plain) {
        const status = this.take(kind, i, valueStart, valueEnd);
        if (status < 0) return status;
      }
    }
  }

  protected take(kind: number, at: number, start: number, end: number): number {
    switch (kind) {
      case field.contentLength: return this.#takeLength(start, end);
      case field.transferEncoding:
        if (this.chunked) return -400;
        if (!isWord(this.bytes, start, end, words.chunked)) return -501;
        this.chunked = true;
        return 0;
      case field.connection: return this.#takeConnection(start, end);
      case field.upgrade:
        this.upgradeField = at;
        return 0;
      default: return 0;
    }
  }

  #takeLength(start: number, end: number): number {
    // Two lengths, even equal ones, are a sign of trouble: refused.
    if (this.contentLength >= 0 || end === start || end - start > 15) return -400;
    let length = 0;
    for (let at = start; at < end; at++) {
      const digit = (this.bytes[at] as number) - 0x30;
      if (digit < 0 || digit > 9) return -400;
      length = length * 10 + digit;
    }
    this.contentLength = length;
    return 0;
  }

  #takeConnection(start: number, end: number): number {
    const { bytes } = this;
    for (let at = start; at < end; ) {
      while (at < end && (bytes[at] === 0x2c || bytes[at] === sp || bytes[at] === tab)) at++;
      const from = at;
      while (at < end && (bytesOf[bytes[at] as number] as number) & token) at++;
      if (at === from) {
        if (at < end) return -400;
        break;
      }
      if (isWord(bytes, from, at, words.close)) this.close = true;
      else if (isWord(bytes, from, at, words.keepAlive)) this.keepAlive = true;
      else if (isWord(bytes, from, at, words.upgrade)) this.upgrade = true;
      else this.namesFields = true;
    }
    return 0;
  }

  /** The fields to pass on, as they stand in the buffer, each with its line end. */
  protected keptFields(from: number): string {
    const { bytes, kinds, nameStarts } = this;
    let kept = "";
    let runStart = from;
    if (this.namesFields) this.#dropNamedFields();
    for (let i = 0; i < this.fields; i++) {
      const kind = kinds[i] as number;
      if (kind < field.connection || kind === field.expect || kind === field.requestId) continue;
      const nameStart = nameStarts[i] as number;
      if (nameStart > runStart) kept += bytes.toString("latin1", runStart, nameStart);
      runStart = i + 1 < this.fields ? (nameStarts[i + 1] as number) : this.end - 2;
    }
    return runStart < this.end - 2 ? kept + bytes.toString("latin1", runStart, this.end - 2) : kept;
  }

  /** Only plain fields: Host and what frames the message are nobody's to take away. */
  #dropNamedFields(): void {
    for (let i = 0; i < this.fields; i++) {
      if (this.kinds[i] !== field.connection) continue;
      for (const name of this.value(i).toLowerCase().split(",").map((each) => each.trim())) {
        for (let j = 0; j < this.fields; j++) {
          if (this.kinds[j] === field.plain && name.length > 0 && this.bytes.toString("latin1", this.nameStarts[j], this.nameEnds[j]).toLowerCase() === name) this.kinds[j] = field.dropped;
        }
      }
    }
  }
}

function kindOf(bytes: Uint8Array, start: number, end: number): number {
  switch (((bytes[start] as number) | 0x20)) {
    case 0x63: // c
      if (isWord(bytes, start, end, words.connection)) return field.connection;
      return isWord(bytes, start, end, words.contentLength) ? field.contentLength : field.plain;
    case 0x65: // e
      return isWord(bytes, start, end, words.expect) ? field.expect : field.plain;
    case 0x66: // f
      return isWord(bytes, start, end, words.forwarded) ? field.dropped : field.plain;
    case 0x68: // h
      if (isWord(bytes, start, end, words.host)) return field.host;
      return isWord(bytes, start, end, words.settings) ? field.dropped : field.plain;
    case 0x6b: // k
      return isWord(bytes, start, end, words.keepAlive) ? field.keepAlive : field.plain;
    case 0x70: // p
      return isWord(bytes, start, end, words.proxyConnection) ? field.dropped : field.plain;
    case 0x74: // t
      if (isWord(bytes, start, end, words.transferEncoding)) return field.transferEncoding;
      return isWord(bytes, start, end, words.te) || isWord(bytes, start, end, words.trailer) ? field.dropped : field.plain;
    case 0x75: // u
      return isWord(bytes, start, end, words.upgrade) ? field.upgrade : field.plain;
    case 0x78: // x
      if (isOurs(bytes, start, end) || isForwarded(bytes, start, end)) return field.dropped;
      return isWord(bytes, start, end, words.requestId) ? field.requestId : field.plain;
    default: return field.plain;
  }
}

const isSeparator = (byte: number): boolean => !/[A-Za-z0-9]/.test(String.fromCharCode(byte));
const separators = new Uint8Array(256).map((_, byte) => Number(isSeparator(byte)));

/** `x-cellplane-…` with any sign for the hyphens: CGI and its heirs read `_`, and some of them `.`, as the same name. */
const isOurs = (bytes: Uint8Array, start: number, end: number): boolean =>
  end - start >= 11 && separators[bytes[start + 1] as number] === 1 && beginsWith(bytes, start + 2, words.cellplane) && (end - start === 11 || separators[bytes[start + 11] as number] === 1);

function isForwarded(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start < words.xForwarded.length) return false;
  for (let i = 1; i < words.xForwarded.length; i++) {
    const byte = bytes[start + i] as number;
    const wanted = words.xForwarded[i] as number;
    if (wanted === 0x2d ? separators[byte] !== 1 : (byte | 0x20) !== wanted) return false;
  }
  return true;
}

export class ClientHead extends Head implements RequestHead {
  methodEnd = 0;
  targetStart = 0;
  targetEnd = 0;
  pathStart = 0;
  pathEnd = 0;
  /** Host and port as sent, in `bytes`; empty when there is none. */
  authorityStart = 0;
  authorityEnd = 0;
  readonly host = new Uint8Array(256);
  hostLength = 0;
  valueStart = 0;
  valueEnd = 0;
  /** The client waits for 100 Continue. */
  expects = false;
  requestIdField = -1;
  /** GET or HEAD without a body: may be sent again when nothing came back. */
  repeatable = false;
  isHead = false;
  #hosts = 0;

  get hasBody(): boolean {
    return this.chunked || this.contentLength > 0;
  }

  /** @returns the end of the head, {@link incomplete}, or minus the status to refuse it with */
  read(bytes: Buffer, start: number, end: number): number {
    const result = this.#read(bytes, start, end);
    if (result === incomplete && end - start > headBytesMax) return -431;
    return result > 0 && result - start > headBytesMax ? -431 : result;
  }

  #read(bytes: Buffer, begin: number, end: number): number {
    let start = begin;
    // One empty line before a request is tolerated (RFC 9112 §2.2).
    if (bytes[start] === cr) {
      if (start + 1 >= end) return incomplete;
      if (bytes[start + 1] !== lf) return -400;
      start += 2;
    }
    this.reset(bytes, start);
    this.#hosts = 0;
    this.authorityStart = this.authorityEnd = 0;
    this.hostLength = 0;
    this.expects = false;
    this.requestIdField = -1;

    let pos = start;
    while (pos < end && (bytesOf[bytes[pos] as number] as number) & token) pos++;
    if (pos - start > 32) return -400;
    if (pos >= end) return incomplete;
    if (bytes[pos] !== sp || pos === start) return -400;
    // Methods are told apart by case (RFC 9110 §9.1), and not every server does: `head` would have a body here and none there.
    for (let at = start; at < pos; at++) if ((bytes[at] as number) >= 0x61 && (bytes[at] as number) <= 0x7a) return -400;
    this.methodEnd = pos++;
    this.targetStart = pos;
    let query = -1;
    for (; pos < end; pos++) {
      const byte = bytes[pos] as number;
      if (!((bytesOf[byte] as number) & target)) break;
      if (byte === 0x3f && query < 0) query = pos;
    }
    if (pos - this.targetStart > targetBytesMax) return -414;
    if (pos >= end) return incomplete;
    if (bytes[pos] !== sp || pos === this.targetStart) return -400;
    this.targetEnd = pos++;
    const version = readVersion(bytes, pos, end);
    if (version <= incomplete) return version;
    this.minor = version - 1;
    const headEnd = this.readFields(pos + 10, end);
    if (headEnd <= 0) return headEnd;
    return this.#check(query) || headEnd;
  }

  protected override take(kind: number, at: number, start: number, end: number): number {
    switch (kind) {
      case field.host:
        if (this.#hosts++ > 0) return -400;
        this.authorityStart = start;
        this.authorityEnd = end;
        return this.#takeHost(start, end);
      case field.expect:
        if (!isWord(this.bytes, start, end, words.continue)) return -417;
        this.expects = true;
        return 0;
      case field.requestId:
        // A second one, an empty or a long one goes; then the router gives one.
        if (this.requestIdField >= 0 || start === end || end - start > 128) this.kinds[at] = field.dropped;
        else this.requestIdField = at;
        return 0;
      default: return super.take(kind, at, start, end);
    }
  }

  /** uri-host [ ":" port ], a registered name or an address; nothing that needs decoding. */
  #takeHost(start: number, end: number): number {
    const { bytes, host } = this;
    if (end - start > 255) return -400;
    let at = start;
    if (bytes[at] === 0x5b) {
      while (at < end && bytes[at] !== 0x5d) if (!/[0-9a-fA-F:.[]/.test(String.fromCharCode(bytes[at++] as number))) return -400;
      if (at++ === end) return -400;
    } else while (at < end && (bytesOf[bytes[at] as number] as number) & hostName) at++;
    for (let i = start; i < at; i++) {
      const byte = bytes[i] as number;
      host[i - start] = byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
    }
    this.hostLength = at - start;
    if (at === end) return 0;
    if (bytes[at++] !== colon || end - at > 5) return -400;
    for (; at < end; at++) if ((bytes[at] as number) < 0x30 || (bytes[at] as number) > 0x39) return -400;
    return 0;
  }

  /** What only the whole head tells. @returns 0 or minus a status */
  #check(query: number): number {
    const { bytes, start, methodEnd, targetStart, targetEnd } = this;
    // CONNECT would open a tunnel to anywhere; TRACE would show a client its stamp.
    if (isWord(bytes, start, methodEnd, words.connect) || isWord(bytes, start, methodEnd, words.trace)) return -405;
    if (this.#hosts === 0 && this.minor === 1) return -400;
    if (this.chunked && (this.contentLength >= 0 || this.minor === 0)) return -400;
    this.isHead = isWord(bytes, start, methodEnd, words.head);
    this.repeatable = !this.hasBody && (this.isHead || isWord(bytes, start, methodEnd, words.get));
    this.pathStart = targetStart;
    this.pathEnd = query < 0 ? targetEnd : query;
    if (bytes[targetStart] === 0x2f) return 0;
    if (bytes[targetStart] === 0x2a) return targetEnd - targetStart === 1 && isWord(bytes, start, methodEnd, words.options) ? 0 : -400;
    return this.#checkAbsolute();
  }

  /** An absolute target whose authority is another than Host's could be routed by one and served by the other. */
  #checkAbsolute(): number {
    const { bytes, targetStart, targetEnd } = this;
    const scheme = beginsWith(bytes, targetStart, words.http) ? 7 : beginsWith(bytes, targetStart, words.https) ? 8 : 0;
    if (scheme === 0 || targetEnd - targetStart <= scheme) return -400;
    let end = targetStart + scheme;
    while (end < targetEnd && bytes[end] !== 0x2f && bytes[end] !== 0x3f) end++;
    const length = end - targetStart - scheme;
    if (length === 0 || length !== this.authorityEnd - this.authorityStart) return -400;
    for (let i = 0; i < length; i++) {
      const a = bytes[targetStart + scheme + i] as number;
      const b = bytes[this.authorityStart + i] as number;
      if (a !== b && ((a | 0x20) !== (b | 0x20) || (a | 0x20) < 0x61 || (a | 0x20) > 0x7a)) return -400;
    }
    this.pathStart = end;
    if (this.pathEnd < end) this.pathEnd = end;
    return 0;
  }

  count(name: string): number {
    let count = 0;
    for (let i = 0; i < this.fields; i++) {
      const start = this.nameStarts[i] as number;
      if ((this.nameEnds[i] as number) - start !== name.length) continue;
      let at = 0;
      while (at < name.length && lower(this.bytes[start + at] as number) === name.charCodeAt(at)) at++;
      if (at < name.length || count++ > 0) continue;
      this.valueStart = this.valueStarts[i] as number;
      this.valueEnd = this.valueEnds[i] as number;
    }
    return count;
  }

  /** An upgrade that is passed on. `h2c` is not: it would open a way around these checks. */
  get asksUpgrade(): boolean {
    if (!this.upgrade || this.upgradeField < 0 || this.minor === 0 || this.hasBody) return false;
    return !isWord(this.bytes, this.valueStarts[this.upgradeField] as number, this.valueEnds[this.upgradeField] as number, words.h2c);
  }

  /**
   * What goes to the cell, up to where the router's own fields follow: no empty line yet.
   * @param pathStart where the path to send begins
   */
  forwarded(pathStart: number): string {
    const { bytes, start, targetStart, targetEnd } = this;
    const asIs = pathStart === targetStart && this.minor === 1;
    let head = "";
    if (!asIs) {
      const first = bytes[pathStart];
      const rooted = pathStart < targetEnd && (first === 0x2f || first === 0x2a);
      const path = `${rooted ? "" : "/"}${bytes.toString("latin1", pathStart, targetEnd)}`;
      head = `${bytes.toString("latin1", start, targetStart)}${path} HTTP/1.${this.minor}\r\n`;
    }
    head += this.keptFields(asIs ? start : targetEnd + 11);
    if (this.asksUpgrade) head += `connection: upgrade\r\nupgrade: ${this.value(this.upgradeField)}\r\n`;
    return this.minor === 0 ? `${head}connection: close\r\n` : head;
  }
}

const lower = (byte: number): number => (byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte);

const versionBytes = bytes("HTTP/1.");
/** @returns minor + 1, {@link incomplete}, or minus a status */
function readVersion(bytes: Uint8Array, at: number, end: number): number {
  for (let i = 0; i < 7; i++) {
    if (at + i >= end) return incomplete;
    if (bytes[at + i] !== versionBytes[i]) return i > 4 ? -505 : -400;
  }
  if (at + 8 >= end) return incomplete;
  const minor = (bytes[at + 7] as number) - 0x30;
  if (bytes[at + 8] !== cr) return -400;
  if (at + 9 >= end) return incomplete;
  if (bytes[at + 9] !== lf) return -400;
  return minor === 0 || minor === 1 ? minor + 1 : -505;
}

/** The head of a cell's answer. */
export class CellHead extends Head {
  status = 0;
  /** Seconds the cell says it keeps an idle connection (`Keep-Alive: timeout=`); null when it does not say. */
  keepAliveSeconds: number | null = null;

  /** @returns the end of the head, {@link incomplete}, or any negative number when it is none */
  read(bytes: Buffer, start: number, end: number): number {
    this.reset(bytes, start);
    this.keepAliveSeconds = null;
    if (end - start < 13) return incomplete;
    for (let i = 0; i < 7; i++) if (bytes[start + i] !== versionBytes[i]) return -502;
    this.minor = (bytes[start + 7] as number) - 0x30;
    this.status = 0;
    for (let at = start + 9; at < start + 12; at++) {
      const digit = (bytes[at] as number) - 0x30;
      if (digit < 0 || digit > 9) return -502;
      this.status = this.status * 10 + digit;
    }
    if ((this.minor !== 0 && this.minor !== 1) || bytes[start + 8] !== sp || this.status < 100 || this.status > 599) return -502;
    let pos = start + 12;
    // The space before an empty reason is often left out.
    if (bytes[pos] !== cr && bytes[pos] !== sp) return -502;
    while (pos < end && (bytesOf[bytes[pos] as number] as number) & text) pos++;
    if (pos + 1 >= end) return pos - start > headBytesMax ? -502 : incomplete;
    if (bytes[pos] !== cr || bytes[pos + 1] !== lf) return -502;
    const headEnd = this.readFields(pos + 2, end);
    if (headEnd === incomplete && end - start > 4 * headBytesMax) return -502;
    if (headEnd > 0 && this.chunked && (this.contentLength >= 0 || this.minor === 0)) return -502;
    return headEnd;
  }

  protected override take(kind: number, at: number, start: number, end: number): number {
    switch (kind) {
      case field.keepAlive: {
        const [, seconds] = /timeout=(\d{1,6})/.exec(this.value(at)) ?? [];
        if (seconds !== undefined) this.keepAliveSeconds = Number(seconds);
        return 0;
      }
      case field.transferEncoding:
      case field.contentLength:
      case field.connection:
      case field.upgrade: return super.take(kind, at, start, end);
      // What only means something in a request passes as it is, except our names.
      default:
        if (!isOurs(this.bytes, this.nameStarts[at] as number, this.nameEnds[at] as number) && !isHopByHop(this.bytes, this.nameStarts[at] as number, this.nameEnds[at] as number)) this.kinds[at] = field.plain;
        return 0;
    }
  }

  /** What goes to the client, without the empty line. */
  forwarded(): string {
    const upgraded = this.status === 101 && this.upgradeField >= 0 ? `connection: upgrade\r\nupgrade: ${this.value(this.upgradeField)}\r\n` : "";
    return this.keptFields(this.start) + upgraded;
  }
}

const isHopByHop = (bytes: Uint8Array, start: number, end: number): boolean => isWord(bytes, start, end, words.te) || isWord(bytes, start, end, words.trailer) || isWord(bytes, start, end, words.proxyConnection);
