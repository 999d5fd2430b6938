import { Agent as HttpAgent, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { checkBatch, type Frame, readFrames, type VersionLines } from "../routing/batch.ts";
import { BadLines } from "../routing/lines.ts";
import { type LoadedSnapshot, readSnapshot, type SnapshotPosition } from "../routing/snapshot.ts";

/** How a router keeps up with the control plane: a snapshot when it has none or lost the thread, then batches as they come. */
export interface Feed {
  /** Says anew what is applied; several calls at once are one. */
  ack(): void;
  stop(): Promise<void>;
}

export interface FeedParts {
  /** Control plane instances, tried in turn. */
  urls: readonly string[];
  token: string;
  router: string;
  /** Where the table is; null before the first one. */
  position(): SnapshotPosition | null;
  takeSnapshot(loaded: LoadedSnapshot): void;
  /** Applies what has been checked; `position` moves when it is done. */
  takeBatch(frame: Extract<Frame, { kind: "batch" }>, batch: { versions: VersionLines[]; digest: string }): Promise<void>;
  /** The control plane has confirmed that this version is the newest. */
  confirmed(version: number): void;
  /** Requests under way for tenants on hold. */
  inFlight(): Record<string, number>;
  failed(why: string, badData: boolean): void;
}

/** The server beats every two seconds: silence for so long is a dead connection. */
const silenceMs = 10_000;
const firstRetryMs = 100;
const retryMaxMs = 5000;

export function startFeed(parts: FeedParts): Feed {
  const stopping = new AbortController();
  const headers = { authorization: `Bearer ${parts.token}` };
  let url = parts.urls[0] ?? "";
  /** History or bytes did not fit: go on from a whole table. The old one serves until that is here. */
  let wantsSnapshot = false;

  async function open(path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const response = await fetch(`${url}${path}`, { headers, signal });
    if (!response.ok || !response.body) throw new Error(`${url}${path.split("?", 1)[0]} answered ${response.status}`);
    return response.body;
  }

  async function follow(): Promise<void> {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(new Error(`${url} is silent`)), silenceMs);
    const heard = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(new Error(`${url} is silent`)), silenceMs);
    };
    async function* listened(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      for await (const chunk of chunks) {
        heard();
        yield chunk;
      }
    }
    const signal = AbortSignal.any([stopping.signal, silence.signal]);
    try {
      let at = parts.position();
      if (wantsSnapshot || at === null) {
        const loaded = await readSnapshot(listened(await open("/v1/routes/snapshot", signal)));
        parts.takeSnapshot(loaded);
        wantsSnapshot = false;
        at = { version: loaded.version, digest: loaded.digest };
        ack();
      }
      for await (const frame of readFrames(listened(await open(`/v1/routes/stream?from=${at.version}&digest=${at.digest}`, signal)))) {
        retryMs = firstRetryMs;
        if (frame.kind === "gap") {
          wantsSnapshot = true;
          return void (await delay(firstRetryMs));
        }
        if (frame.kind === "batch") {
          const now = parts.position() ?? at;
          const batch = checkBatch(now, frame);
          if (batch) await parts.takeBatch(frame, batch);
        }
        if (frame.kind === "beat") ackEveryMs = frame.ackEveryMs;
        parts.confirmed(frame.kind === "batch" ? frame.to : frame.version);
        ack();
      }
      throw new Error(`${url} ended the route stream`);
    } finally {
      clearTimeout(timer);
    }
  }

  let retryMs = firstRetryMs;
  async function run(): Promise<void> {
    for (let turn = 1; !stopping.signal.aborted; turn++) {
      try {
        await follow();
        continue;
      } catch (error) {
        if (stopping.signal.aborted) return;
        if (error instanceof BadLines) wantsSnapshot = true;
        parts.failed(reasonOf(error), error instanceof BadLines);
      }
      url = parts.urls[turn % parts.urls.length] ?? url;
      // Routers that lost the same instance come back at different moments.
      await delay(retryMs * (0.5 + Math.random()), undefined, { signal: stopping.signal }).catch(() => undefined);
      retryMs = Math.min(retryMs * 2, retryMaxMs);
    }
  }

  /** Told by the control plane: the more routers it has, the rarer. */
  let ackEveryMs = 0;
  let ackedMs = 0;
  let acking = false;
  let ackWanted = false;
  let ackTimer: NodeJS.Timeout | null = null;
  function ack(): void {
    const at = parts.position();
    const waitMs = ackedMs + ackEveryMs - performance.now();
    ackWanted = true;
    if (acking || ackTimer || at === null || parts.urls.length === 0 || stopping.signal.aborted) return;
    if (waitMs > 1) {
      ackTimer = setTimeout(() => {
        ackTimer = null;
        ack();
      }, waitMs);
      return;
    }
    acking = true;
    ackWanted = false;
    ackedMs = performance.now();
    post(`${url}/v1/routes/acks`, JSON.stringify({ router: parts.router, version: at.version, inFlight: parts.inFlight() }), () => {
      acking = false;
      if (ackWanted) ack();
    });
  }

  const agents = { "http:": new HttpAgent({ keepAlive: true, maxSockets: 1 }), "https:": new HttpsAgent({ keepAlive: true, maxSockets: 1 }) };
  /** A third of what `fetch` costs, and acknowledgements are what a router sends most. When it fails the next one says the same. */
  function post(to: string, body: string, done: () => void): void {
    const secure = to.startsWith("https:");
    const request = (secure ? httpsRequest : httpRequest)(to, {
      agent: agents[secure ? "https:" : "http:"], method: "POST", timeout: 5000, headers: { ...headers, "content-type": "application/json", "content-length": Buffer.byteLength(body) },
    });
    request.on("response", (response) => response.resume());
    request.on("timeout", () => request.destroy());
    request.on("error", () => undefined);
    request.on("close", done);
    request.end(body);
  }

  const running = parts.urls.length > 0 ? run() : Promise.resolve();
  return {
    ack,
    async stop() {
      stopping.abort();
      if (ackTimer) clearTimeout(ackTimer);
      for (const agent of Object.values(agents)) agent.destroy();
      await running;
    },
  };
}

function reasonOf(error: unknown): string {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause;
  return `${(error as Error).message}${cause ? ` (${cause.code ?? cause.message})` : ""}`;
}
