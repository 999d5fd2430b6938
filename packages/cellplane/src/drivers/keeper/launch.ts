import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import { assert } from "../../base/assert.ts";
import { failpoint } from "../failpoint.ts";
import { type ProcessId, processOf } from "../process.ts";
import type { Service } from "./model.ts";

/** Digest of all that makes one process differ from another; a change of it wants a restart. */
export function launchDigest({ command, env, directory, account, revision }: Service): string {
  const sorted = Object.entries(env).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256").update(JSON.stringify([command, sorted, directory, account?.uid, account?.gid, revision])).digest("hex").slice(0, 16);
}

/** A shell that becomes the program once it is told to; when nobody is left to tell it, it ends. */
const gate = 'read -r go && exec "$@" </dev/null';

const inherited = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];

/**
 * Starts the service's process in a session of its own, so that neither our end nor that of the terminal reaches it.
 * The program starts only after `record` has told the disk of its process: killed at any instruction we leave either no
 * program or one that the next keeper finds.
 */
export async function launch(service: Service, record: (process: ProcessId, logFrom: number) => Promise<void>): Promise<ChildProcess> {
  await mkdir(dirname(service.logFile), { recursive: true, mode: 0o711 });
  const log = await open(service.logFile, "a", 0o600);
  try {
    const { size } = await log.stat();
    const env = Object.fromEntries([...inherited.map((name) => [name, process.env[name]]).filter(([, value]) => value !== undefined), ...Object.entries(service.env)]);
    const child = spawn("/bin/sh", ["-c", gate, "sh", ...service.command], {
      cwd: service.directory,
      env,
      detached: true,
      stdio: ["pipe", log.fd, log.fd],
      ...(service.account ? { uid: service.account.uid, gid: service.account.gid } : {}),
    });
    await new Promise<void>((resolve, reject) => child.once("spawn", resolve).once("error", reject));
    child.unref();
    const gatekeeper = child.stdin;
    assert(gatekeeper, "the gate has a pipe");
    gatekeeper.on("error", () => undefined);
    failpoint("keeper.spawned");
    try {
      const id = child.pid === undefined ? null : await processOf(child.pid);
      assert(id, "a child that waits for us runs");
      await record(id, size);
      failpoint("keeper.recorded");
      gatekeeper.write("go\n");
    } finally {
      gatekeeper.end();
    }
    failpoint("keeper.started");
    return child;
  } finally {
    await log.close();
  }
}
