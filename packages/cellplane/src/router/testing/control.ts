import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { batchFrame, beatFrame, gapFrame, type LogRow, nextDigest } from "../../routing/batch.ts";
import { lineOf, tableLines } from "../../routing/lines.ts";
import type { RouteChange } from "../../routing/model.ts";
import { sealSnapshot } from "../../routing/snapshot.ts";
import { applied } from "../../routing/testing/model.ts";

/** What a router speaks with, from memory; `mangle` may spoil what is sent. */
export interface TestControl {
  url: string;
  publish(...changes: RouteChange[]): number;
  /** Forgets the log up to now: who is behind takes a snapshot. */
  trim(): void;
  /** Another history, as after a restore from a backup. */
  restart(): void;
  mangle: ((what: "snapshot" | "batch", bytes: Buffer) => Buffer) | null;
  acks: { router: string; version: number; inFlight: Record<string, number> }[];
  snapshots: number;
  /** Ends every stream. */
  cut(): void;
  /** Refuses everything until `up`. */
  down(): Promise<void>;
  up(): Promise<void>;
  close(): Promise<void>;
}

const digestAtStart = (): string => nextDigest("00", String(Math.random()));

export async function testControl(changes: RouteChange[] = [], token = "router-token"): Promise<TestControl> {
  let all: RouteChange[] = [];
  let rows: LogRow[] = [];
  let first = digestAtStart();
  let port = 0;
  const streams = new Set<ServerResponse>();
  const head = (): LogRow => rows.at(-1) ?? { version: 0, digest: first, changes: "" };
  const spoil = (what: "snapshot" | "batch", bytes: Buffer): Buffer => control.mangle?.(what, bytes) ?? bytes;

  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? "/", "http://control");
    if (request.headers.authorization !== `Bearer ${token}`) return void response.writeHead(401).end();
    if (url.pathname === "/v1/routes/snapshot") {
      control.snapshots++;
      void (async () => {
        const parts: Buffer[] = [];
        for await (const part of sealSnapshot(head(), all.length, tableLines(applied(all)))) parts.push(part);
        response.end(spoil("snapshot", Buffer.concat(parts)));
      })();
    } else if (url.pathname === "/v1/routes/stream") {
      const from = Number(url.searchParams.get("from"));
      const known = rows.some((row) => row.version === from && row.digest === url.searchParams.get("digest")) || (from === head().version && url.searchParams.get("digest") === head().digest);
      const rest = rows.filter((row) => row.version > from);
      if (!known || (rest[0] && rest[0].version !== from + 1)) return void response.end(gapFrame());
      response.write(beatFrame(head().version, 0));
      if (rest.length > 0) response.write(spoil("batch", batchFrame(rest)));
      streams.add(response);
      response.on("close", () => streams.delete(response));
    } else if (url.pathname === "/v1/routes/acks") {
      let text = "";
      request.on("data", (chunk: Buffer) => (text += chunk.toString()));
      request.on("end", () => {
        control.acks.push(JSON.parse(text) as TestControl["acks"][number]);
        response.writeHead(204).end();
      });
    } else response.writeHead(404).end();
  });
  const listen = (): Promise<void> => new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve()));
  await listen();
  port = (server.address() as AddressInfo).port;
  const beats = setInterval(() => streams.forEach((stream) => stream.write(beatFrame(head().version, 0))), 200);

  const control: TestControl = {
    url: `http://127.0.0.1:${port}`, mangle: null, acks: [], snapshots: 0,
    publish(...added) {
      all = [...all, ...added];
      const changes = added.map(lineOf).join("");
      const row = { version: head().version + 1, changes, digest: nextDigest(head().digest, changes) };
      rows.push(row);
      for (const stream of streams) stream.write(spoil("batch", batchFrame([row])));
      return row.version;
    },
    trim() {
      rows = rows.slice(-1);
    },
    restart() {
      first = digestAtStart();
      rows = [{ version: head().version, changes: "", digest: digestAtStart() }];
      control.cut();
    },
    cut: () => streams.forEach((stream) => stream.destroy()),
    async down() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
    up: listen,
    async close() {
      clearInterval(beats);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  if (changes.length > 0) control.publish(...changes);
  return control;
}
