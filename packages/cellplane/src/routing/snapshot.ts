import { createHash, createHmac, type Hash, type Hmac, timingSafeEqual } from "node:crypto";
import { BadLines, lineReader } from "./lines.ts";
import { RouteTable } from "./table.ts";

/**
 * A whole table as text, at one version of the route log:
 *
 *   cellplane-routes 1 <version> <digest of the log at that version> <number of lines to come, about>
 *   …lines (lines.ts): rules, cells, tenants, keys…
 *   end <version the lines are complete from> <SHA-256 of all before; on a router's disk HMAC-SHA256>
 *
 * A snapshot written while the table changes is complete only together with the log up to the version in its last line.
 */
export interface SnapshotPosition {
  version: number;
  /** Hex; see `nextDigest` in batch.ts. */
  digest: string;
}

const format = "cellplane-routes 1";
const headerMax = 200;
const lineMax = 1 << 20;

const snapshotHeader = ({ version, digest }: SnapshotPosition, lines: number): string => `${format} ${version} ${digest} ${lines}\n`;

const sealer = (key: string | null): Hash | Hmac => (key === null ? createHash("sha256") : createHmac("sha256", key));

/**
 * Puts the header before and the seal behind the lines.
 * @param key null for the wire, where the connection is trusted; the router's secret on disk
 * @param completeFrom asked after the last line was taken
 */
export async function* sealSnapshot(
  position: SnapshotPosition,
  lineCount: number,
  chunks: Iterable<string> | AsyncIterable<string>,
  { key = null, completeFrom = () => position.version }: { key?: string | null; completeFrom?: () => number } = {},
): AsyncGenerator<Buffer> {
  const seal = sealer(key);
  const header = Buffer.from(snapshotHeader(position, lineCount));
  seal.update(header);
  yield header;
  for await (const chunk of chunks) {
    const bytes = Buffer.from(chunk);
    seal.update(bytes);
    yield bytes;
  }
  const last = `end ${completeFrom()} `;
  seal.update(last);
  yield Buffer.from(`${last}${seal.digest("hex")}\n`);
}

export interface LoadedSnapshot extends SnapshotPosition {
  table: RouteTable;
  completeFrom: number;
}

/**
 * Reads a snapshot into a table of its own, so that a bad one harms nobody.
 * @throws BadLines when a byte of it is not as it was written
 */
export async function readSnapshot(chunks: AsyncIterable<Uint8Array>, key: string | null = null): Promise<LoadedSnapshot> {
  const seal = sealer(key);
  let table: RouteTable | null = null;
  let position: SnapshotPosition | null = null;
  let read: ReturnType<typeof lineReader> | null = null;
  /** What is not yet known to be lines: the last line may be the seal. */
  let rest: Buffer = Buffer.alloc(0);

  for await (const chunk of chunks) {
    rest = rest.length === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength) : Buffer.concat([rest, chunk]);
    if (read === null) {
      const end = rest.indexOf(0x0a);
      if (end < 0 && rest.length > headerMax) throw new BadLines("this is no route snapshot");
      if (end < 0) continue;
      const header = parseHeader(rest.toString("latin1", 0, end));
      position = header;
      table = new RouteTable(header.lines);
      read = lineReader(table);
      seal.update(rest.subarray(0, end + 1));
      rest = rest.subarray(end + 1);
    }
    const lastEnd = rest.lastIndexOf(0x0a);
    const lines = lastEnd <= 0 ? 0 : rest.lastIndexOf(0x0a, lastEnd - 1) + 1;
    if (lines > 0) {
      read(rest, 0, lines);
      seal.update(rest.subarray(0, lines));
      rest = rest.subarray(lines);
    }
    if (rest.length > lineMax) throw new BadLines("a line of the route snapshot has no end");
  }

  const [, last, completeFrom, digest] = /^(end (\d{1,15}) )([0-9a-f]{64})\n$/.exec(rest.toString("latin1")) ?? [];
  if (!table || !position || !last || !digest) throw new BadLines("the route snapshot is cut off");
  seal.update(last);
  if (!timingSafeEqual(seal.digest(), Buffer.from(digest, "hex"))) throw new BadLines("the route snapshot's checksum does not fit");
  return { ...position, table, completeFrom: Number(completeFrom) };
}

function parseHeader(line: string): SnapshotPosition & { lines: number } {
  const [, version, digest, lines] = /^cellplane-routes 1 (\d{1,15}) ([0-9a-f]{64}) (\d{1,9})$/.exec(line) ?? [];
  if (version === undefined || digest === undefined) throw new BadLines("this is no route snapshot, or one of another format");
  return { version: Number(version), digest, lines: Number(lines) };
}
