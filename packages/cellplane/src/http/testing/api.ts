import { pino } from "pino";
import { testDatabase } from "../../../../../tests/database.ts";
import { auditHandlers } from "../../audit/api.ts";
import { openAuditStore } from "../../audit/store.ts";
import { eventHandlers, eventStream } from "../../observe/api.ts";
import { openLiveEvents } from "../../observe/live.ts";
import { openMetrics } from "../../observe/metrics.ts";
import { openEventStore } from "../../observe/store.ts";
import { applySchema } from "../../store/schema.ts";
import { openStore } from "../../store/store.ts";
import { tokenHandlers } from "../../token/api.ts";
import { newSecret } from "../../token/secret.ts";
import { admitSecrets, openTokenStore } from "../../token/store.ts";
import type { Problem } from "../problem.ts";
import { createApp } from "../server.ts";
import { createNoteTable, noteHandlers } from "./notes.ts";

export type TestApi = Awaited<ReturnType<typeof testApi>>;

const newSecrets = () => ({ viewer: newSecret(), operator: newSecret(), admin: newSecret(), router: newSecret() });

/** The whole border on a fresh database: tokens, audit, events and one sample noun. */
export async function testApi({ url, secrets = newSecrets(), live: liveOptions = {} }: { url?: string; secrets?: ReturnType<typeof newSecrets>; live?: Parameters<typeof openLiveEvents>[1] } = {}) {
  const db = url ? { url, drop: async () => undefined } : await testDatabase();
  const store = openStore(db.url, { connectionsMax: 8 });
  if (!url) {
    await applySchema(store);
    await store.query(createNoteTable);
  }
  await admitSecrets(store, secrets, { replace: true });
  const tokens = openTokenStore(store);
  const events = openEventStore(store);
  const live = openLiveEvents(events, liveOptions);
  const audit = openAuditStore(store);
  const metrics = openMetrics();
  const handlers = [...noteHandlers(store), ...tokenHandlers({ tokens }), ...auditHandlers({ audit }), ...eventHandlers({ events })];
  const app = createApp({ store, tokens, handlers, raw: [eventStream({ live })], log: pino({ level: process.env["TEST_LOG"] ?? "silent" }), metrics });

  /** A call as a role, without a socket. `body` is sent as JSON. */
  async function send(role: keyof typeof secrets | null, method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
    const response = await app.request(path, {
      method,
      headers: { ...(role ? { authorization: `Bearer ${secrets[role]}` } : {}), ...(body === undefined ? {} : { "content-type": "application/json", "content-length": String(Buffer.byteLength(JSON.stringify(body))) }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, body: (text ? JSON.parse(text) : {}) as Partial<Problem> };
  }

  return {
    db, store, secrets, tokens, events, live, audit, metrics, handlers, app, send,
    async close() {
      live.close();
      tokens.close();
      await store.close();
      await db.drop();
    },
  };
}
