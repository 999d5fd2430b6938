/**
 * Finds the end of a message's body in the bytes as they come, without keeping any. Chunked bodies are checked to the
 * last digit and line end and passed on as they are, so both sides see the same chunks (SPEC D1). Trailers are dropped:
 * some apps would read them as header fields, which the router has then not seen.
 */
export type BodyKind = "none" | "length" | "chunked" | "close";

const size = 0;
const extension = 1;
const sizeEnd = 2;
const data = 3;
const dataEnd = 4;
const dataEndLine = 5;
const trailerStart = 6;
const trailer = 7;
const trailerEnd = 8;
const lastEnd = 9;

const sizeDigitsMax = 12;
const extensionBytesMax = 256;
const trailerBytesMax = 8 * 1024;
const cr = 0x0d;
const lf = 0x0a;

export class Body {
  kind: BodyKind = "none";
  done = true;
  /** Broken framing: both connections must go. */
  failed = false;
  /** Where what may be passed on of the last piece ends: before its trailers. */
  passEnd = 0;
  /** The chunks are over and the trailers dropped: an empty line is owed to the receiver. */
  endsTrailers = false;
  #left = 0;
  #state = size;
  #digits = 0;
  #spent = 0;

  begin(kind: BodyKind, length = 0): void {
    this.kind = kind;
    this.#left = kind === "length" ? length : 0;
    this.#state = size;
    this.#digits = 0;
    this.#spent = 0;
    this.done = kind === "none" || (kind === "length" && length === 0);
    this.failed = false;
    this.endsTrailers = false;
  }

  /** Takes what belongs to the body. @returns where it ends in this piece; `done` says whether for good */
  take(bytes: Uint8Array, start: number, end: number): number {
    this.passEnd = start;
    if (this.done) return start;
    if (this.kind === "chunked") return this.#takeChunks(bytes, start, end);
    const taken = this.kind === "close" ? end - start : Math.min(end - start, this.#left);
    if (this.kind === "length") {
      this.#left -= taken;
      this.done = this.#left === 0;
    }
    this.passEnd = start + taken;
    return start + taken;
  }

  #takeChunks(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    let trailersFrom = this.#state >= trailerStart ? start : -1;
    while (at < end && !this.done) {
      const byte = bytes[at] as number;
      switch (this.#state) {
        case size: {
          const digit = hexDigit(byte);
          if (digit >= 0 && this.#digits < sizeDigitsMax) {
            this.#left = this.#left * 16 + digit;
            this.#digits++;
          } else if (byte === cr && this.#digits > 0) this.#state = sizeEnd;
          else if (byte === 0x3b && this.#digits > 0) this.#state = extension;
          else return this.#fail(at);
          break;
        }
        case extension:
          if (byte === cr) this.#state = sizeEnd;
          else if ((byte < 0x20 && byte !== 0x09) || byte > 0x7e || ++this.#spent > extensionBytesMax) return this.#fail(at);
          break;
        case sizeEnd:
          if (byte !== lf) return this.#fail(at);
          this.#digits = 0;
          if (this.#left > 0) this.#state = data;
          else {
            this.#state = trailerStart;
            this.#spent = 0;
            trailersFrom = at + 1;
          }
          break;
        case data: {
          const taken = Math.min(end - at, this.#left);
          this.#left -= taken;
          if (this.#left === 0) this.#state = dataEnd;
          at += taken;
          continue;
        }
        case dataEnd:
          if (byte !== cr) return this.#fail(at);
          this.#state = dataEndLine;
          break;
        case dataEndLine:
          if (byte !== lf) return this.#fail(at);
          this.#state = size;
          this.#spent = 0;
          break;
        case trailerStart:
          this.#state = byte === cr ? lastEnd : trailer;
          if (byte === lf || byte === 0x20 || byte === 0x09) return this.#fail(at);
          break;
        case trailer:
          if (byte === cr) this.#state = trailerEnd;
          else if ((byte < 0x20 && byte !== 0x09) || byte === 0x7f || ++this.#spent > trailerBytesMax) return this.#fail(at);
          break;
        case trailerEnd:
          if (byte !== lf) return this.#fail(at);
          this.#state = trailerStart;
          break;
        case lastEnd:
          if (byte !== lf) return this.#fail(at);
          this.done = true;
          this.endsTrailers = true;
          break;
      }
      at++;
    }
    // The usual end, an empty line and no trailers, is passed on with the rest.
    if (trailersFrom < 0) this.passEnd = at;
    else if (this.done && at === trailersFrom + 2) {
      this.passEnd = at;
      this.endsTrailers = false;
    } else this.passEnd = trailersFrom;
    return at;
  }

  #fail(at: number): number {
    this.failed = true;
    this.passEnd = at;
    return at;
  }
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}
