import { createHmac, timingSafeEqual } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { checkBatch, type Frame } from "../routing/batch.ts";
import { BadLines, lineReader, tableLines } from "../routing/lines.ts";
import { readSnapshot, sealSnapshot, type SnapshotPosition } from "../routing/snapshot.ts";
import type { RouteTable } from "../routing/table.ts";

/**
 * The router's copy of the table, from which it starts when nobody answers: a snapshot, and a journal of the batches
 * since. Both are signed with the fleet's secret; what does not fit is left aside, and the former snapshot is tried.
 *
 *   routes.snapshot  routes.journal           in use
 *   routes.snapshot.old  routes.journal.old   the ones before
 *   routes.snapshot.new  routes.journal.new   being written
 *
 * The table changes while its snapshot is written, so a snapshot names the version up to which the journal must reach
 * for it to be whole. A kill between any two system calls leaves a set from which the same table comes.
 */
export interface RouteDisk {
  /** The newest table that can be put together; null when there is none. @param onBad is told of everything left aside */
  load(onBad: (why: string) => void): Promise<{ table: RouteTable; position: SnapshotPosition } | null>;
  /** Adds a batch that has been applied. */
  append(frame: BatchFrame): void;
  /**
   * Writes a snapshot of the table as it is now and goes on with it. Calls that come while one is written end in one more.
   * @param position up to where everything is applied
   * @param reached up to where something may be: beyond `position` while a batch is being applied
   */
  save(table: RouteTable, position: () => SnapshotPosition, reached: () => number): Promise<void>;
  /** The journal has grown so long that a snapshot is due. */
  isDue(): boolean;
  close(): Promise<void>;
}

type BatchFrame = Extract<Frame, { kind: "batch" }>;

const journalBytesMin = 1024 * 1024;
const sealBytes = "seal ".length + 64 + 1;

/** @param onError is told when the disk fails: the router goes on and writes again at the next occasion */
export async function openRouteDisk(directory: string, secret: string, onError: (why: string) => void): Promise<RouteDisk> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const key = createHmac("sha256", secret).update("cellplane router disk").digest("hex");
  const file = (name: string): string => join(directory, `routes.${name}`);
  const journals = [file("journal.old"), file("journal"), file("journal.new")];

  /** Batches are written to the journal in use and, while a snapshot is written, to the next one. */
  let journal: FileHandle | null = null;
  let nextJournal: FileHandle | null = null;
  let journalBytes = 0;
  let snapshotBytes = 0;
  /** The journal in use may end in half a batch, after which nothing can be read. */
  let torn = false;
  let work: Promise<void> = Promise.resolve();

  const enqueue = (job: () => Promise<void>): Promise<void> =>
    (work = work.then(job).catch((error: Error) => {
      torn = true;
      onError(error.message);
    }));

  async function loadFrom(snapshot: string, onBad: (why: string) => void): Promise<{ table: RouteTable; position: SnapshotPosition } | null> {
    try {
      const { table, completeFrom, version, digest } = await readSnapshot(createReadStream(snapshot, { highWaterMark: 1 << 20 }), key);
      let position: SnapshotPosition = { version, digest };
      for (const path of journals) position = await replay(path, table, position, onBad);
      if (position.version < completeFrom) throw new BadLines(`the journal of ${snapshot} ends at version ${position.version}; it is whole from ${completeFrom} on`);
      return { table, position };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") onBad(`${snapshot}: ${(error as Error).message}`);
      return null;
    }
  }

  async function replay(path: string, table: RouteTable, from: SnapshotPosition, onBad: (why: string) => void): Promise<SnapshotPosition> {
    const bytes = await readFile(path).catch(() => Buffer.alloc(0));
    const read = lineReader(table);
    let position = from;
    try {
      for (const frame of journaled(bytes, key)) {
        const batch = checkBatch(position, frame);
        if (batch === null) continue;
        for (const { start, end } of batch.versions) read(frame.payload, start, end);
        position = { version: frame.to, digest: batch.digest };
      }
    } catch (error) {
      torn = true;
      // A journal of former times need not fit a newer snapshot.
      if (path === file("journal")) onBad(`${path}: ${(error as Error).message}`);
    }
    return position;
  }

  async function rotate(table: RouteTable, position: () => SnapshotPosition, reached: () => number): Promise<void> {
    nextJournal = await open(file("journal.new"), "w", 0o600);
    const handle = await open(file("snapshot.new"), "w", 0o600);
    let bytes = 0;
    try {
      // From here to the first chunk nothing else runs: the journal begins where the snapshot's version ends.
      for await (const chunk of sealSnapshot(position(), table.tenants + table.keys, tableLines(table), { key, completeFrom: reached })) {
        await handle.write(chunk);
        bytes += chunk.length;
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    const former = journal;
    await work;
    await ignoreMissing(rename(file("snapshot"), file("snapshot.old")));
    await ignoreMissing(rename(file("journal"), file("journal.old")));
    await rename(file("snapshot.new"), file("snapshot"));
    await rename(file("journal.new"), file("journal"));
    journal = nextJournal;
    nextJournal = null;
    snapshotBytes = bytes;
    journalBytes = 0;
    torn = false;
    await former?.close();
  }

  let saving: Promise<void> | null = null;
  let again: Promise<void> | null = null;

  const disk: RouteDisk = {
    async load(onBad) {
      const loaded = (await loadFrom(file("snapshot"), onBad)) ?? (await loadFrom(file("snapshot.old"), onBad));
      await rm(file("snapshot.new"), { force: true });
      if (loaded && !torn) journal = await open(file("journal"), "a", 0o600);
      return loaded;
    },

    append(frame) {
      const head = Buffer.from(`batch ${frame.from} ${frame.to} ${frame.digest} ${frame.payload.length}\n`);
      const seal = createHmac("sha256", key).update(head).update(frame.payload).digest("hex");
      const record = Buffer.concat([head, frame.payload, Buffer.from(`seal ${seal}\n`)]);
      journalBytes += record.length;
      void enqueue(async () => {
        await journal?.write(record);
        await nextJournal?.write(record);
      });
    },

    save(table, position, reached) {
      if (saving) return (again ??= saving.then(() => ((again = null), disk.save(table, position, reached))));
      saving = rotate(table, position, reached)
        .catch((error: Error) => {
          torn = true;
          nextJournal = null;
          onError(error.message);
        })
        .finally(() => (saving = null));
      return saving;
    },

    isDue: () => torn || journalBytes > Math.max(journalBytesMin, snapshotBytes / 4),

    async close() {
      await saving;
      await work;
      await journal?.close().catch(() => undefined);
      journal = null;
    },
  };
  return disk;
}

const ignoreMissing = (change: Promise<void>): Promise<void> => change.catch((error: NodeJS.ErrnoException) => (error.code === "ENOENT" ? undefined : Promise.reject(error)));

/** @throws BadLines at the first batch that is not as it was written; a cut end is one */
function* journaled(bytes: Buffer, key: string): Generator<BatchFrame> {
  for (let at = 0; at < bytes.length; ) {
    const headEnd = bytes.indexOf(0x0a, at);
    const [, from, to, digest, size] = /^batch (\d{1,15}) (\d{1,15}) ([0-9a-f]{64}) (\d{1,9})$/.exec(bytes.toString("latin1", at, Math.max(at, headEnd))) ?? [];
    const end = headEnd + 1 + Number(size);
    const [, seal] = /^seal ([0-9a-f]{64})\n$/.exec(bytes.toString("latin1", end, end + sealBytes)) ?? [];
    if (digest === undefined || seal === undefined) throw new BadLines("a batch in the journal is cut off");
    if (!timingSafeEqual(createHmac("sha256", key).update(bytes.subarray(at, end)).digest(), Buffer.from(seal, "hex"))) throw new BadLines("the seal of a batch in the journal does not fit");
    yield { kind: "batch", from: Number(from), to: Number(to), digest, payload: bytes.subarray(headEnd + 1, end) };
    at = end + sealBytes;
  }
}
