import { randomBytes } from "node:crypto";
import { link, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { stableHash } from "../../base/prng.ts";
import { fail } from "../../base/errors.ts";
import { readText } from "../files.ts";

/**
 * Below the range from which systems take ports for outgoing connections (32768… on Linux, 49152… elsewhere): one of
 * those might be taken just while its service restarts.
 */
const first = 20_000;
const count = 12_000;

/** Ports that were picked once and are kept: one file `ports/<port>` each, which names its owner. */
export interface PortBook {
  /** As in { "eu-1/app/http": 21000 }. */
  all(): Promise<Record<string, number>>;
  /** The owner's port, or a free one that is its own from now on. Any number of callers at once. */
  reserve(owner: string): Promise<number>;
  /** Gives back the ports of all owners that begin so. */
  release(ownerPrefix: string): Promise<void>;
}

export function portBook(stateDirectory: string): PortBook {
  const directory = join(stateDirectory, "ports");

  async function all(): Promise<Record<string, number>> {
    const ports = (await readdir(directory).catch(() => [])).filter((name) => /^\d+$/.test(name));
    const owners = await Promise.all(ports.map((port) => readText(join(directory, port))));
    return Object.fromEntries(ports.flatMap((port, i) => (owners[i] ? [[owners[i], Number(port)]] : [])));
  }

  return {
    all,
    async reserve(owner) {
      const own = (await all())[owner];
      if (own !== undefined) return own;
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const draft = join(directory, `${randomBytes(6).toString("hex")}.draft`);
      await writeFile(draft, owner);
      try {
        // State directories start at different places, so that two on one machine seldom want the same port.
        const start = stableHash(stateDirectory) % count;
        for (let i = 0; i < count; i++) {
          const port = first + ((start + i) % count);
          if (!(await isFree(port))) continue;
          // A link fails where there is one already: of two callers one gets the port.
          const got = await link(draft, join(directory, String(port))).then(() => true, (error: NodeJS.ErrnoException) => {
            if (error.code !== "EEXIST") throw error;
            return false;
          });
          if (got) return port;
        }
        throw fail("driver_failed", { cell: owner, why: `no port is free between ${first} and ${first + count - 1}` });
      } finally {
        await rm(draft, { force: true });
      }
    },
    async release(ownerPrefix) {
      for (const [owner, port] of Object.entries(await all())) if (owner.startsWith(ownerPrefix)) await rm(join(directory, String(port)), { force: true });
    },
  };
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
  });
}
