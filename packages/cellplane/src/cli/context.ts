import { existsSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fail } from "../base/errors.ts";
import { writeWhole } from "../drivers/files.ts";

/** Where the control plane is and how to be let in. */
export interface Context {
  server: string;
  token: string | null;
}

type Environment = Record<string, string | undefined>;

/**
 * Data of a fleet on this machine, when no --state-dir is given. root has a system directory, since the servers' own user
 * cannot pass root's home; everyone else their data directory (XDG).
 */
export function defaultStateDir(env: Environment): string {
  if (process.getuid?.() === 0) return "/var/lib/cellplane";
  return join(env["XDG_DATA_HOME"] || join(env["HOME"] ?? homedir(), ".local", "share"), "cellplane");
}

export const contextFileIn = (directory: string): string => join(directory, "context.json");

/** A person's own choice, which wins over a fleet that happens to run here. */
export const userContextFile = (env: Environment): string => contextFileIn(join(env["XDG_CONFIG_HOME"] || join(env["HOME"] ?? homedir(), ".config"), "cellplane"));

/** Readable by its owner only: it holds a token. */
export async function writeContext(file: string, context: Context): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await writeWhole(file, `${JSON.stringify(context, null, 2)}\n`);
}

/** The context of a file; null when there is none. @throws CellplaneError context_invalid */
export function readContext(file: string): Context | null {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw fail("context_invalid", { file, why: message });
  }
  try {
    const { server, token } = JSON.parse(text) as Partial<Context>;
    if (typeof server !== "string" || !URL.canParse(server)) throw new Error("it names no server");
    return { server, token: typeof token === "string" ? token : null };
  } catch (error) {
    throw fail("context_invalid", { file, why: (error as Error).message });
  }
}

const projectFileName = ".cellplane.yaml";

/** The nearest project file at or above a folder: flags and their values for everybody who works there. Null when there is none. */
export function projectFileAbove(directory: string): string | null {
  for (let at = directory; ; at = dirname(at)) {
    const file = join(at, projectFileName);
    if (existsSync(file)) return file;
    if (dirname(at) === at) return null;
  }
}
