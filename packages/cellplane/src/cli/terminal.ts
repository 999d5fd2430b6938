import { createInterface } from "node:readline";
import type { Progress, Terminal } from "./command.ts";
import { printable } from "./failure.ts";

/** What a process has to talk through; tests hand in their own. */
export interface Io {
  env: Record<string, string | undefined>;
  cwd: string;
  stdin: NodeJS.ReadStream;
  stdout: { write(text: string): unknown; isTTY?: boolean };
  stderr: { write(text: string): unknown; isTTY?: boolean; columns?: number };
  /** Calls back on Ctrl-C. @returns how to stop listening */
  onInterrupt(call: () => void): () => void;
}

export const processIo = (): Io => ({
  env: process.env, cwd: process.cwd(), stdin: process.stdin, stdout: process.stdout, stderr: process.stderr,
  onInterrupt(call) {
    process.on("SIGINT", call);
    process.on("SIGTERM", call);
    return () => {
      process.off("SIGINT", call);
      process.off("SIGTERM", call);
    };
  },
});

/** Colours go to terminals only (no-color.org). */
export const mayColour = (stream: { isTTY?: boolean }, env: Io["env"]): boolean => stream.isTTY === true && !env["NO_COLOR"] && env["TERM"] !== "dumb";

export function openTerminal(io: Io, { yes }: { yes: boolean }): Terminal {
  const live = io.stderr.isTTY === true && !io.env["CI"];
  const note = (line: string) => void io.stderr.write(`${printable(line, { colours: true })}\n`);
  return {
    colour: mayColour(io.stderr, io.env),
    interactive: live && io.stdin.isTTY === true && !yes,
    note,
    progress: (title) => (live ? bar(io, title) : spacedLines(note, title)),
  };
}

const spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏";
const barWidth = 24;

function bar(io: Io, title: string): Progress {
  let turn = 0;
  let ratio: number | null = null;
  let message = "";
  const paint = () => {
    const filled = Math.round((ratio ?? 0) * barWidth);
    const gauge = ratio === null ? "" : ` ${"█".repeat(filled)}${"░".repeat(barWidth - filled)} ${String(Math.floor(ratio * 100)).padStart(3)}%`;
    const line = `${spinner.charAt(turn++ % spinner.length)} ${title}${gauge} ${printable(message)}`;
    io.stderr.write(`\r\x1b[K${line.slice(0, (io.stderr.columns ?? 80) - 1)}`);
  };
  const timer = setInterval(paint, 100);
  return {
    update(newRatio, newMessage) {
      ratio = newRatio === null ? null : Math.min(1, Math.max(0, newRatio));
      message = newMessage;
    },
    done(last) {
      clearInterval(timer);
      io.stderr.write(`\r\x1b[K${last === undefined ? "" : `${printable(last)}\n`}`);
    },
  };
}

/** For logs and pipes: what is new, at most every two seconds. */
function spacedLines(note: (line: string) => void, title: string): Progress {
  let saidAtMs = -Infinity;
  let said = "";
  return {
    update(ratio, message) {
      const line = `${title}${ratio === null ? "" : ` ${Math.floor(ratio * 100)}%`} ${message}`.trimEnd();
      if (line === said || performance.now() - saidAtMs < 2000) return;
      saidAtMs = performance.now();
      said = line;
      note(line);
    },
    done: (last) => last !== undefined && note(last),
  };
}

/** One line of an answer; "" when the input ends. */
export async function ask(io: Io, question: string, signal: AbortSignal): Promise<string> {
  io.stderr.write(question);
  const lines = createInterface({ input: io.stdin, terminal: false });
  try {
    return await Promise.race([
      new Promise<string>((resolve) => lines.once("line", resolve).once("close", () => resolve(""))),
      new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(new Error("interrupted")), { once: true })),
    ]);
  } finally {
    lines.close();
  }
}
