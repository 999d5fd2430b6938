import { PassThrough } from "node:stream";
import { type Entry, runCli } from "../program.ts";
import type { Io } from "../terminal.ts";

export interface Shell {
  env?: Record<string, string>;
  cwd?: string;
  /** A person sits there and types this. */
  typed?: string;
  tty?: boolean;
  /** Called with a way to press Ctrl-C. */
  interrupt?: (press: () => void) => void;
}

/** Runs a command line in this process. `stdout` and `stderr` are what it wrote there. */
export async function run(entries: Entry[], words: string[], { env = {}, cwd = "/", typed, tty = typed !== undefined, interrupt }: Shell = {}): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: "", stderr: "" };
  const stdin = Object.assign(new PassThrough(), { isTTY: tty }) as unknown as NodeJS.ReadStream & PassThrough;
  if (typed !== undefined) stdin.end(`${typed}\n`);
  const io: Io = {
    // Away from whatever fleet runs on this machine.
    env: { HOME: "/nonexistent", ...(env["HOME"] ? {} : { CELLPLANE_STATE_DIR: "/nonexistent" }), ...env }, cwd, stdin,
    stdout: { isTTY: tty, write: (text) => (written.stdout += text) },
    stderr: { isTTY: tty, write: (text) => (written.stderr += text) },
    onInterrupt(press) {
      interrupt?.(press);
      return () => undefined;
    },
  };
  return { code: await runCli(words, entries, "0.0.0-test", io), ...written };
}
