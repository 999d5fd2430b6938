import { existsSync, readdirSync, readFileSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findPostgres } from "../../packages/cellplane/src/drivers/postgres/binaries.ts";
import { startPostgres } from "../../packages/cellplane/src/drivers/postgres/server.ts";

/** A PostgreSQL of the bench's own, as durable as a real one. */
export async function openPostgres(): Promise<{ url: string; pid: number; close(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), "cellplane-bench-"));
  await chmod(directory, 0o711);
  const server = await startPostgres(await findPostgres(process.env["CELLPLANE_PG_BIN"]), { directory: join(directory, "postgres"), port: 0 });
  return {
    url: server.url,
    pid: server.process.pid,
    async close() {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Linux counts a process's time in hundredths of a second (sysconf _SC_CLK_TCK). */
const ticksPerSecond = 100;

/** Processor seconds of the server and all its processes so far, the ended ones too; NaN where /proc does not tell. */
export function postgresCpuSeconds(pid: number): number {
  if (!existsSync("/proc/self/stat")) return Number.NaN;
  let ticks = 0;
  for (const entry of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    // proc(5): behind the name, field 4 is the parent, 14 and 15 the own time, 16 and 17 that of ended children.
    const [parent = 0, user = 0, system = 0, childrenUser = 0, childrenSystem = 0] = statOf(entry, [4, 14, 15, 16, 17]);
    if (Number(entry) === pid) ticks += user + system + childrenUser + childrenSystem;
    else if (parent === pid) ticks += user + system;
  }
  return ticks / ticksPerSecond;
}

/** Fields of a process, counted from 1; none when it has ended meanwhile. */
function statOf(pid: string, fields: number[]): number[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const behindName = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields.map((field) => Number(behindName[field - 3]));
  } catch {
    return [];
  }
}
