import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readdir, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Addressing, type Outcome, outcomes } from "./model.ts";

/**
 * What clients were told of each write, one JSON object a line, append-only, in segments `<run>.<NNNN>.ndjson`:
 *
 *   {"run":"…","target":"http://…","addressing":{…},"from":0}      first line of each segment
 *   {"n":7,"t":"acme","o":"ok"}                                    operation number, tenant, outcome
 *   {"end":8}                                                      last line of a run that ended well: every number below has its line
 */
export interface Journal {
  /** Written through to the disk within 100 ms. */
  record(number: number, tenant: string, outcome: Outcome): void;
  /** @param next the number after the last one used */
  end(next: number): Promise<void>;
}

interface JournalHead {
  run: string;
  target: string;
  addressing: Addressing;
}

const flushMs = 100;
const segmentName = (run: string, segment: number): string => `${run}.${String(segment).padStart(4, "0")}.ndjson`;
const segmentForm = /^([0-9a-z]+)\.(\d{4,})\.ndjson$/;

interface JournalOptions {
  folder: string;
  head: JournalHead;
  /** Of all segments in the folder together, other runs' too; the oldest are deleted first. */
  bytesMax: number;
  /** Nothing can be recorded any more, as on a full disk: traffic from then on proves nothing. */
  onFailure: (error: Error) => void;
}

export async function openJournal({ folder, head, bytesMax, onFailure }: JournalOptions): Promise<Journal> {
  await mkdir(folder, { recursive: true });
  const segmentBytesMax = Math.ceil(bytesMax / 8);
  let pending = "";
  let segment = 0;
  let segmentBytes = 0;
  /** The number above all that were recorded, now and at the last flush: earlier segments have no line from there on. */
  let above = 0;
  let from = 0;
  let file: FileHandle | null = null;

  async function flush(): Promise<void> {
    if (pending === "") return;
    if (!file || segmentBytes >= segmentBytesMax) {
      await file?.close();
      await makeRoom(folder, bytesMax - segmentBytesMax);
      file = await open(join(folder, segmentName(head.run, ++segment)), "ax");
      segmentBytes = 0;
      await file.appendFile(`${JSON.stringify({ ...head, from })}\n`);
    }
    const text = pending;
    pending = "";
    from = above;
    segmentBytes += Buffer.byteLength(text);
    await file.appendFile(text);
    await file.datasync();
  }

  let flushed = Promise.resolve();
  const flushNext = (): Promise<void> => (flushed = flushed.then(flush).catch(onFailure));
  const timer = setInterval(() => void flushNext(), flushMs);

  return {
    record(number, tenant, outcome) {
      above = Math.max(above, number + 1);
      pending += `{"n":${number},"t":${JSON.stringify(tenant)},"o":"${outcome}"}\n`;
    },
    async end(next) {
      clearInterval(timer);
      pending += `${JSON.stringify({ end: next })}\n`;
      await flushNext();
      await file?.close().catch(onFailure);
    },
  };
}

async function segmentsOf(folder: string): Promise<{ name: string; run: string; segment: number }[]> {
  return (await readdir(folder))
    .flatMap((name) => {
      const match = segmentForm.exec(name);
      return match ? [{ name, run: match[1] ?? "", segment: Number(match[2]) }] : [];
    })
    .sort((a, b) => (a.run === b.run ? a.segment - b.segment : a.run < b.run ? -1 : 1));
}

async function makeRoom(folder: string, bytesMax: number): Promise<void> {
  const sizes = await Promise.all((await segmentsOf(folder)).map(async ({ name }) => ({ name, bytes: (await stat(join(folder, name))).size })));
  let total = sizes.reduce((sum, { bytes }) => sum + bytes, 0);
  for (const { name, bytes } of sizes) {
    if (total <= bytesMax) return;
    await unlink(join(folder, name));
    total -= bytes;
  }
}

/** What the journal says of a run, in 5 bytes a write. */
export interface Recorded extends JournalHead {
  /** False when the generator was killed: then the numbers without a line were under way. */
  complete: boolean;
  /** The lowest number that is still on record; older segments were dropped to stay within bytes. */
  from: number;
  /** The number after the last one used. */
  next: number;
  tenants: string[];
  /** null: no line. */
  outcomeOf(number: number): Outcome | null;
  /** Index in `tenants`; -1: no line. */
  tenantOf(number: number): number;
}

/** @param run as in the file names; null: the newest @throws Error when there is no such journal */
export async function readJournal(folder: string, run: string | null): Promise<Recorded> {
  const all = await segmentsOf(folder);
  const wanted = run ?? all.at(-1)?.run;
  const segments = all.filter((segment) => segment.run === wanted);
  if (segments.length === 0) throw new Error(`there is no journal${run === null ? "" : ` of run ${run}`} in ${folder}`);

  const tenants: string[] = [];
  const indexes = new Map<string, number>();
  let outcomeAt = new Uint8Array(1024);
  let tenantAt = new Int32Array(1024);
  let head: (JournalHead & { from: number }) | undefined;
  let end: number | null = null;
  let next = 0;

  const put = (number: number, tenant: string, outcome: Outcome): void => {
    if (number >= outcomeAt.length) {
      outcomeAt = grown(outcomeAt, new Uint8Array(number * 2));
      tenantAt = grown(tenantAt, new Int32Array(number * 2));
    }
    const index = indexes.get(tenant) ?? tenants.push(tenant) - 1;
    indexes.set(tenant, index);
    outcomeAt[number] = outcomes.indexOf(outcome) + 1;
    tenantAt[number] = index;
    next = Math.max(next, number + 1);
  };

  for (const { name } of segments) {
    for await (const line of createInterface({ input: createReadStream(join(folder, name)), crlfDelay: Infinity })) {
      const entry = parseLine(line);
      if (entry === null) continue;
      if ("n" in entry) put(entry.n, entry.t, entry.o);
      else if ("end" in entry) end = entry.end;
      else head ??= entry;
    }
  }
  if (!head) throw new Error(`the journal of run ${wanted} in ${folder} has no first line`);
  return {
    ...head,
    complete: end !== null,
    next: end ?? next,
    tenants,
    outcomeOf: (number) => outcomes[(outcomeAt[number] ?? 0) - 1] ?? null,
    tenantOf: (number) => (outcomeAt[number] ? (tenantAt[number] ?? -1) : -1),
  };
}

type Line = (JournalHead & { from: number }) | { n: number; t: string; o: Outcome } | { end: number };

/** A generator that was killed leaves half a line at the end; it says nothing. */
function parseLine(line: string): Line | null {
  try {
    return JSON.parse(line) as Line;
  } catch {
    return null;
  }
}

function grown<T extends Uint8Array | Int32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
