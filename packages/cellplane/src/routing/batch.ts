import { createHash } from "node:crypto";
import { BadLines } from "./lines.ts";
import type { SnapshotPosition } from "./snapshot.ts";

/**
 * The live stream from the control plane to a router:
 *
 *   batch <from> <to> <digest at to> <bytes>      then so many bytes: for each version a line `v <version>` and its lines
 *   beat <version> <ms>                           nothing new; sent every few seconds. Acknowledge at most every so many ms
 *   gap                                           the log no longer reaches back to where the reader is: take a snapshot
 *
 * Each version's digest covers its lines and the digest before it, so that a reader whose digest fits has the same
 * history, whatever connections broke and whichever instance it asked.
 */
export interface LogRow {
  version: number;
  /** Lines (lines.ts). */
  changes: string;
  /** Hex. */
  digest: string;
}

export type Frame =
  | { kind: "batch"; from: number; to: number; digest: string; payload: Buffer }
  | { kind: "beat"; version: number; ackEveryMs: number }
  | { kind: "gap" };

/** What the store computes in SQL, once more. */
export const nextDigest = (before: string, changes: string | Uint8Array): string => createHash("sha256").update(Buffer.from(before, "hex")).update(changes).digest("hex");

/** @param rows at least one, without holes */
export function batchFrame(rows: readonly LogRow[]): Buffer {
  const payload = Buffer.from(rows.map((row) => `v ${row.version}\n${row.changes}`).join(""));
  const first = rows[0];
  const last = rows.at(-1);
  if (!first || !last) throw new RangeError("a batch has at least one version");
  return Buffer.concat([Buffer.from(`batch ${first.version - 1} ${last.version} ${last.digest} ${payload.length}\n`), payload]);
}

export const beatFrame = (version: number, ackEveryMs: number): Buffer => Buffer.from(`beat ${version} ${ackEveryMs}\n`);
export const gapFrame = (): Buffer => Buffer.from("gap\n");

const headMax = 200;
const payloadMax = 256 * 1024 * 1024;

/** @throws BadLines when what arrives is no stream of frames, or ends within one */
export async function* readFrames(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Frame> {
  const parts: Uint8Array[] = [];
  let held = 0;
  /** Bytes needed before it is worth looking again. */
  let wanted = 1;
  for await (const chunk of chunks) {
    parts.push(chunk);
    held += chunk.length;
    if (held < wanted) continue;
    let bytes: Buffer = Buffer.concat(parts);
    for (wanted = 1; ; ) {
      const headEnd = bytes.indexOf(0x0a);
      if (headEnd < 0) {
        if (bytes.length > headMax) throw new BadLines("a frame of the route stream has no end");
        break;
      }
      const head = bytes.toString("latin1", 0, headEnd);
      const [, from, to, digest, size] = /^batch (\d{1,15}) (\d{1,15}) ([0-9a-f]{64}) (\d{1,9})$/.exec(head) ?? [];
      if (digest !== undefined && Number(size) <= payloadMax) {
        const end = headEnd + 1 + Number(size);
        if (bytes.length < end) {
          wanted = end;
          break;
        }
        yield { kind: "batch", from: Number(from), to: Number(to), digest, payload: bytes.subarray(headEnd + 1, end) };
        bytes = bytes.subarray(end);
        continue;
      }
      const [, version, ackEveryMs] = /^beat (\d{1,15}) (\d{1,6})$/.exec(head) ?? [];
      if (version !== undefined) yield { kind: "beat", version: Number(version), ackEveryMs: Number(ackEveryMs) };
      else if (head === "gap") yield { kind: "gap" };
      else throw new BadLines(`no frame of the route stream: ${head.slice(0, 100)}`);
      bytes = bytes.subarray(headEnd + 1);
    }
    parts.length = 0;
    held = bytes.length;
    if (held > 0) parts.push(bytes);
  }
  if (held > 0) throw new BadLines("the route stream ended within a frame");
}

/** A stretch of a batch's payload: the lines of one version. */
export interface VersionLines {
  version: number;
  start: number;
  end: number;
}

/**
 * Checks a batch against where its reader is, before anything of it is applied.
 *
 * @returns the lines of each version the reader lacks, and the digest it will then have; null when the batch begins behind the reader or ends before it
 * @throws BadLines when the history differs or a version is missing
 */
export function checkBatch(at: SnapshotPosition, frame: Extract<Frame, { kind: "batch" }>): { versions: VersionLines[]; digest: string } | null {
  if (frame.to <= at.version) return null;
  if (frame.from > at.version) throw new BadLines(`the route stream skips from version ${at.version} to ${frame.from}`);
  const { payload } = frame;
  const versions: VersionLines[] = [];
  let digest = at.digest;
  let version = frame.from;
  for (let start = 0; start < payload.length; ) {
    const headEnd = payload.indexOf(0x0a, start);
    if (headEnd < 0 || payload.toString("latin1", start, headEnd) !== `v ${version + 1}`) throw new BadLines(`version ${version + 1} is missing in a batch`);
    version++;
    const next = payload.indexOf("\nv ", headEnd, "latin1");
    const end = next < 0 ? payload.length : next + 1;
    if (version > at.version) {
      versions.push({ version, start: headEnd + 1, end });
      digest = nextDigest(digest, payload.subarray(headEnd + 1, end));
    }
    start = end;
  }
  if (version !== frame.to || digest !== frame.digest) throw new BadLines(`the digest of version ${frame.to} does not fit: another history, or bytes were changed`);
  return { versions, digest };
}
