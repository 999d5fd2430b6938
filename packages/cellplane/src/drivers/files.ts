import { randomBytes } from "node:crypto";
import { chmod, chown, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { fail } from "../base/errors.ts";

interface WriteOptions {
  /** Default 0600: what drivers write holds passwords. */
  mode?: number;
  /** Who owns it; null for the caller. */
  account?: { uid: number; gid: number } | null;
  /** Also through a power failure. Default: only through the death of processes. */
  durable?: boolean;
}

/**
 * Writes the file whole or not at all, whoever reads or dies meanwhile.
 *
 * @throws CellplaneError disk_full
 */
export async function writeWhole(file: string, text: string, { mode = 0o600, account = null, durable = false }: WriteOptions = {}): Promise<void> {
  const draft = `${file}.${randomBytes(4).toString("hex")}.draft`;
  try {
    await writeFile(draft, text, { mode, flush: durable });
    await chmod(draft, mode);
    if (account) await chown(draft, account.uid, account.gid);
    await rename(draft, file);
    if (durable) await syncDirectory(dirname(file));
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined);
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw fail("disk_full", { path: file }, { cause: error });
    throw error;
  }
}

/** A rename is on disk only when its folder is. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path);
  await handle.sync().finally(() => handle.close());
}

/** Null when there is no such file. */
export async function readText(file: string): Promise<string | null> {
  return readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw error;
  });
}

/** The last few KiB of a file that grows; "" when it is absent. `from`: nothing before this many bytes. */
export async function readTail(file: string, { bytesMax = 4096, from = 0 } = {}): Promise<string> {
  const handle = await open(file).catch(() => null);
  if (!handle) return "";
  try {
    const { size } = await handle.stat();
    // A log that was cut shorter meanwhile starts anew.
    const start = Math.max(0, size < from ? 0 : from, size - bytesMax);
    const { buffer, bytesRead } = await handle.read({ buffer: Buffer.alloc(bytesMax), position: start });
    return buffer.toString("utf8", 0, bytesRead);
  } finally {
    await handle.close();
  }
}
