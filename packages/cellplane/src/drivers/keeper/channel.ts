import { randomBytes } from "node:crypto";
import { readdir, rename, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { CellplaneError, type ErrorCode, fail } from "../../base/errors.ts";

/**
 * The keeper's socket: others talk to it there, and that it answers there is what makes it the only one.
 *
 * No two may keep one state directory, and a killed one must not be in the way of the next. A stale socket file cannot be
 * taken over safely (between "nobody answers" and "removed" another may have come), so each candidate listens under a
 * name of its own, only then looks at the others, and keeps the directory when it sees none: of two that come at once at
 * least one sees the other. The first by name then waits, the others give way.
 */
const pattern = /^keeper-(\d+)-[0-9a-f]+\.sock$/;
/** sockaddr_un has room for 104 bytes on macOS, 108 on Linux. */
const pathBytesMax = 103;
const answerTimeoutMs = 2000;
const openTimeoutMs = 10_000;

/** The first line each caller reads. */
interface Greeting {
  pid: number;
  /** False while it still looks whether it is alone. */
  keeps: boolean;
  /** It was started by a driver because nobody kept the directory, and gives way to whoever wants to. */
  yields: boolean;
}

export interface Channel {
  close(): Promise<void>;
}

type Answer = { result: unknown } | { error: { code: ErrorCode; data: never } } | { defect: string };
export type Answering = (method: string, params: unknown, signal: AbortSignal) => Promise<unknown>;

/**
 * Becomes the one who keeps the directory. A keeper that yields is asked to let go.
 *
 * @throws CellplaneError state_dir_in_use, state_dir_too_long
 */
export async function openChannel(stateDirectory: string, { yields, answer }: { yields: boolean; answer: Answering }): Promise<Channel> {
  const deadlineMs = performance.now() + openTimeoutMs;
  const name = `keeper-${process.pid}-${randomBytes(3).toString("hex")}.sock`;
  const greeting: Greeting = { pid: process.pid, keeps: false, yields };
  let own: Channel | null = null;
  try {
    for (;;) {
      const others = await othersIn(stateDirectory, name);
      if (own && others.length === 0) {
        greeting.keeps = true;
        return own;
      }
      const keeper = others.find((other) => other.keeps);
      const givesWay = keeper?.yields && !yields;
      if ((keeper && !givesWay) || performance.now() > deadlineMs) throw fail("state_dir_in_use", { path: stateDirectory, pid: (keeper ?? others[0])?.pid ?? 0 });
      if (givesWay) await callKeeper(stateDirectory, "yield", null).catch(() => undefined);
      const mine = !others.some((other) => other.name < name);
      if (mine) own ??= await listen(stateDirectory, name, greeting, answer);
      else {
        await own?.close();
        own = null;
      }
      // Once it listens it looks at once; then it waits for those who see it to go.
      if (others.length > 0) await sleep(10 + Math.random() * 20);
    }
  } catch (error) {
    await own?.close();
    throw error;
  }
}

async function listen(stateDirectory: string, name: string, greeting: Greeting, answer: Answering): Promise<Channel> {
  const path = join(stateDirectory, name);
  if (Buffer.byteLength(path) > pathBytesMax) throw fail("state_dir_too_long", { path: stateDirectory, bytesMax: pathBytesMax - name.length - 1 });
  const server = createServer((socket) => serve(socket, greeting, answer));
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => void sockets.add(socket.once("close", () => sockets.delete(socket))));
  // Seen by others only once it listens, for a socket that refuses counts as dead.
  const draft = join(stateDirectory, `${name.slice(0, -5)}.tmp`);
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(draft, resolve));
  await rename(draft, path);
  return { close: () => closeServer(server, sockets, path) };
}

async function closeServer(server: Server, sockets: Set<Socket>, path: string): Promise<void> {
  await rm(path, { force: true });
  const closed = new Promise((resolve) => server.close(resolve));
  for (const socket of sockets) socket.destroySoon();
  await closed;
}

/** Everyone else who answers; sockets of the dead are removed. One that is silent lives: it may be stopped or busy. */
async function othersIn(stateDirectory: string, ownName: string): Promise<(Greeting & { name: string })[]> {
  const found: (Greeting & { name: string })[] = [];
  for (const name of await readdir(stateDirectory)) {
    const pid = pattern.exec(name)?.[1];
    if (pid === undefined || name === ownName) continue;
    const path = join(stateDirectory, name);
    const socket = await dial(path);
    // Whoever ends in an orderly way takes the file away first, so a refusal comes from the dead, whose names never return.
    if (socket === "dead") await rm(path, { force: true });
    if (socket === "dead" || socket === "gone") continue;
    const greeting = await firstLine(socket).finally(() => socket.destroy());
    if (greeting !== "closed") found.push({ name, ...(greeting ?? { pid: Number(pid), keeps: true, yields: false }) });
  }
  return found;
}

function dial(path: string): Promise<Socket | "dead" | "gone"> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("connect", () => resolve(socket));
    socket.once("error", (error: NodeJS.ErrnoException) => (error.code === "ECONNREFUSED" ? resolve("dead") : ["ENOENT", "ECONNRESET", "EPIPE"].includes(error.code ?? "") ? resolve("gone") : reject(error)));
  });
}

async function firstLine(socket: Socket): Promise<Greeting | null | "closed"> {
  socket.on("error", () => undefined);
  const timeout = AbortSignal.timeout(answerTimeoutMs);
  timeout.addEventListener("abort", () => socket.destroy());
  const line = await nextLine(linesOf(socket));
  return line !== null ? (JSON.parse(line) as Greeting) : timeout.aborted ? null : "closed";
}

const linesOf = (socket: Socket): AsyncIterator<string> => createInterface(socket)[Symbol.asyncIterator]();

/** Null when the other end has gone, in whatever way. */
const nextLine = (lines: AsyncIterator<string>): Promise<string | null> => lines.next().then(({ done, value }) => (done ? null : value), () => null);

function serve(socket: Socket, greeting: Greeting, answer: Answering): void {
  const gone = new AbortController();
  socket.on("error", () => undefined).on("close", () => gone.abort());
  socket.write(`${JSON.stringify(greeting)}\n`);
  createInterface(socket).on("line", (line) => {
    const { method, params } = JSON.parse(line) as { method: string; params: unknown };
    void answer(method, params, gone.signal)
      .then((result): Answer => ({ result: result ?? null }), asAnswer)
      .then((reply) => void (socket.destroyed || socket.end(`${JSON.stringify(reply)}\n`)));
  });
}

const asAnswer = (error: unknown): Answer => (error instanceof CellplaneError ? { error: { code: error.code, data: error.data as never } } : { defect: error instanceof Error ? error.message : String(error) });

/**
 * Calls the keeper of the directory, over a connection of its own.
 *
 * @throws CellplaneError keeper_gone when nobody keeps it, or who did died meanwhile; and what the keeper answers
 */
export async function callKeeper(stateDirectory: string, method: string, params: unknown, signal?: AbortSignal): Promise<unknown> {
  signal?.throwIfAborted();
  for (const name of await readdir(stateDirectory).catch(() => [])) {
    if (!pattern.test(name)) continue;
    const socket = await dial(join(stateDirectory, name));
    if (typeof socket === "string") continue;
    const abort = (): void => void socket.destroy();
    signal?.addEventListener("abort", abort);
    try {
      socket.on("error", () => undefined);
      const lines = linesOf(socket);
      const greeting = await nextLine(lines);
      if (greeting === null || !(JSON.parse(greeting) as Greeting).keeps) continue;
      socket.write(`${JSON.stringify({ method, params })}\n`);
      const line = await nextLine(lines);
      signal?.throwIfAborted();
      if (line === null) break;
      const reply = JSON.parse(line) as Answer;
      if ("error" in reply) throw fail(reply.error.code, reply.error.data);
      if ("defect" in reply) throw new Error(`the keeper failed: ${reply.defect}`);
      return reply.result;
    } finally {
      signal?.removeEventListener("abort", abort);
      socket.destroy();
    }
  }
  throw fail("keeper_gone", { path: stateDirectory });
}
