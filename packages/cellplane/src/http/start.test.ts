import { connect } from "node:net";
import { mkdtemp, chmod, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findPostgres } from "../drivers/postgres/binaries.ts";
import { startPostgres } from "../drivers/postgres/server.ts";
import { applySchema } from "../store/schema.ts";
import { openStore } from "../store/store.ts";
import { createClient } from "./client.ts";
import { type RunningServer, startServer } from "./server.ts";
import { type TestApi, testApi } from "./testing/api.ts";
import { createNote, createNoteTable, getNote, listNotes, updateNote } from "./testing/notes.ts";

let api: TestApi;
let server: RunningServer;
beforeAll(async () => {
  api = await testApi({ live: { beatMs: 200 } });
  server = await startServer(api.app, { port: 0 });
});
afterAll(async () => {
  api.live.close();
  await server.close(1000);
  await api.close();
});

const clientAs = (role: keyof TestApi["secrets"], patienceMs = 2000) => createClient({ server: server.url, token: api.secrets[role], patienceMs });
let serial = 0;
const fresh = () => `s${serial++}`;

describe("H10: a client says what the server said", () => {
  test("calls, errors with their data and trace, and no answer at all", async () => {
    const client = clientAs("operator");
    const name = fresh();
    expect(await client.call(createNote, { body: { name, text: "ünï" } })).toMatchObject({ name, generation: 1 });
    await expect(client.call(getNote, { params: { note: "none" } })).rejects.toMatchObject({ code: "not_found", data: { what: "note", name: "none" }, cause: { trace: expect.stringMatching(/^[0-9a-f]{32}$/) as string } });
    await expect(client.call(updateNote, { params: { note: name }, body: { text: "x" } }, { ifMatch: 9 })).rejects.toMatchObject({ code: "generation_stale" });
    await expect(createClient({ server: "http://127.0.0.1:9", token: null }).call(listNotes, {})).rejects.toMatchObject({ code: "server_unreachable" });
    await expect(createClient({ server: server.url, token: "cpt_wrong" }).call(listNotes, {})).rejects.toMatchObject({ code: "unauthenticated" });
  });

  test("reasons of any language reach the audit log; a dry run leaves nothing", async () => {
    const client = clientAs("operator");
    const name = fresh();
    await client.call(createNote, { body: { name } }, { dryRun: true });
    await client.call(createNote, { body: { name } }, { reason: "für später — 後で" });
    expect((await api.audit.list({ subject: `note/${name}` }, null, 10)).map((entry) => entry.reason)).toEqual(["für später — 後で"]);
  });

  test("all pages", async () => {
    const names: string[] = [];
    for await (const note of clientAs("viewer").pages(listNotes, {})) names.push(note.name);
    expect(names.length).toBeGreaterThan(0);
    expect(new Set(names).size).toBe(names.length);
  });
});

describe("H11: streams over a socket", () => {
  test("an event arrives in a moment; the stream goes on where it broke", async () => {
    const stop = new AbortController();
    const [a, b, c] = [fresh(), fresh(), fresh()];
    const mine = new Set([a, b, c].map((name) => `note/${name}`));
    const seen: string[] = [];
    const second = await startServer(api.app, { port: 0 });
    const reading = (async () => {
      for await (const event of createClient({ server: second.url, token: api.secrets.viewer }).events({ kinds: ["note."], signal: stop.signal })) if (mine.has(event.subject)) seen.push(event.subject);
    })();
    await expect.poll(() => api.live.followers(), { timeout: 10_000 }).toBe(1);
    await clientAs("operator").call(createNote, { body: { name: a } });
    await expect.poll(() => seen, { timeout: 10_000 }).toEqual([`note/${a}`]);
    await second.close(0);
    await clientAs("operator").call(createNote, { body: { name: b } });
    const third = await startServer(api.app, { port: second.port });
    await expect.poll(() => seen, { timeout: 10_000 }).toEqual([`note/${a}`, `note/${b}`]);
    await clientAs("operator").call(createNote, { body: { name: c } });
    await expect.poll(() => seen, { timeout: 10_000 }).toEqual([`note/${a}`, `note/${b}`, `note/${c}`]);
    stop.abort();
    await reading;
    await third.close(100);
  });

  test("a client that goes away is forgotten", async () => {
    await expect.poll(() => api.live.followers(), { timeout: 10_000 }).toBe(0);
    const away = new AbortController();
    const response = await fetch(`${server.url}/v1/events`, { headers: { accept: "text/event-stream", authorization: `Bearer ${api.secrets.viewer}` }, signal: away.signal });
    expect(response.headers.get("content-type")).toContain("text/event-stream");
    await expect.poll(() => api.live.followers(), { timeout: 10_000 }).toBe(1);
    away.abort();
    await expect.poll(() => api.live.followers(), { timeout: 5000 }).toBe(0);
  });

  test.each([["?kinds=x&what=1", {}], ["", { "last-event-id": "yesterday" }], ["?after=1.2.3", {}]])("a wrong request is refused before the stream begins: %s", async (query, headers) => {
    const response = await fetch(`${server.url}/v1/events${query}`, { headers: { accept: "text/event-stream", authorization: `Bearer ${api.secrets.viewer}`, ...(headers as Record<string, string>) } });
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([400, "invalid_input"]);
  });
});

describe("H12: starting and stopping", () => {
  test("a port in use is told with the flag that chooses another", async () => {
    await expect(startServer(api.app, { port: server.port, flag: "--api-listen" })).rejects.toMatchObject({ code: "port_in_use", data: { port: server.port, flag: "--api-listen" } });
  });

  test("a request in work is answered, a new one is not taken, streams are ended", async () => {
    const own = await testApi({ url: api.db.url, secrets: api.secrets });
    const stopping = await startServer(own.app, { port: 0 });
    const client = createClient({ server: stopping.url, token: own.secrets.admin, patienceMs: 0 });
    const name = fresh();
    let unlock = () => undefined as void;
    const locked = own.store.transaction(async (tx) => {
      await tx.query("lock table note");
      await new Promise<void>((resolve) => (unlock = resolve));
    });
    const inWork = client.call(createNote, { body: { name } });
    const away = new AbortController();
    const stream = client.events({ signal: away.signal })[Symbol.asyncIterator]();
    const streaming = stream.next();
    await expect.poll(() => own.live.followers()).toBe(1);
    await expect.poll(async () => (await own.store.query("select 1 from pg_locks where not granted and locktype = 'relation' and database = (select oid from pg_database where datname = current_database())")).length).toBe(1);
    own.live.close();
    const closed = stopping.close(10_000);
    await sleep(50);
    await expect(createClient({ server: stopping.url, token: own.secrets.admin, patienceMs: 0 }).call(listNotes, {})).rejects.toMatchObject({ code: expect.stringMatching(/^(server_unreachable|shutting_down)$/) as string });
    unlock();
    await locked;
    expect(await inWork).toMatchObject({ name });
    await closed;
    away.abort();
    expect(await streaming).toMatchObject({ done: true });
    await own.close();
  });

  test("who sends his head too slowly is cut off", async () => {
    const hasty = await startServer(api.app, { port: 0, headTimeoutMs: 1000 });
    const socket = connect(hasty.port, "127.0.0.1");
    const closed = new Promise<string>((resolve) => {
      let text = "";
      socket.on("data", (chunk) => (text += chunk.toString()));
      socket.on("close", () => resolve(text));
    });
    socket.write("GET /v1/notes HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    const drip = setInterval(() => socket.write("y"), 200);
    expect(await closed).toContain("408");
    clearInterval(drip);
    await hasty.close(0);
  });

  test("10 MB are refused without being taken in", async () => {
    const response = await fetch(`${server.url}/v1/notes`, { method: "POST", headers: { authorization: `Bearer ${api.secrets.operator}`, "content-type": "application/json" }, body: "x".repeat(10_000_000) }).catch((error: Error) => error);
    // The connection may be cut while the client still sends: either way it is not taken in.
    expect(response instanceof Error ? 413 : response.status).toBe(413);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });
});

test("H13: a database that is killed is 503 at once, and back without a restart; nothing acknowledged is lost", async () => {
  const directory = await mkdtemp(join(tmpdir(), "cellplane-http-"));
  await chmod(directory, 0o711);
  const binaries = await findPostgres(process.env["CELLPLANE_PG_BIN"]);
  let postgres = await startPostgres(binaries, { directory: join(directory, "postgres"), port: 0, settings: {} });
  const port = Number(new URL(postgres.url).port);
  const store = openStore(postgres.url);
  await applySchema(store);
  await store.query(createNoteTable);
  await store.close();
  const own = await testApi({ url: postgres.url });
  const running = await startServer(own.app, { port: 0 });
  const impatient = createClient({ server: running.url, token: own.secrets.operator, patienceMs: 0 });
  const patient = createClient({ server: running.url, token: own.secrets.operator, patienceMs: 30_000 });
  const seen: string[] = [];
  const stop = new AbortController();
  try {
    const reading = (async () => {
      for await (const event of patient.events({ kinds: ["note."], signal: stop.signal })) seen.push(event.subject);
    })();
    await impatient.call(createNote, { body: { name: "before" } });
    await expect.poll(() => seen, { timeout: 10_000 }).toEqual(["note/before"]);

    process.kill(postgres.process.pid, "SIGKILL");
    await expect.poll(() => impatient.call(listNotes, {}).then(() => "answered", (error: { code: string }) => error.code), { timeout: 10_000 }).toBe("database_unavailable");
    const answer = await fetch(`${running.url}/v1/notes`, { headers: { authorization: `Bearer ${own.secrets.operator}` } });
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "1"]);
    expect((await fetch(`${running.url}/ready`)).status).toBe(503);
    expect((await fetch(`${running.url}/health`)).status).toBe(200);
    const during = patient.call(createNote, { body: { name: "during" } });

    postgres = await startPostgres(binaries, { directory: join(directory, "postgres"), port, settings: {} });
    expect(await during).toMatchObject({ name: "during" });
    const names: string[] = [];
    for await (const note of patient.pages(listNotes, {})) names.push(note.name);
    expect(names).toEqual(["before", "during"]);
    expect((await own.audit.verify(null)).ok).toBe(true);
    await expect.poll(() => seen, { timeout: 20_000 }).toEqual(["note/before", "note/during"]);
    stop.abort();
    await reading;
  } finally {
    stop.abort();
    await running.close(100);
    await own.close();
    await postgres.stop();
    await rm(directory, { recursive: true, force: true });
  }
}, 120_000);
