import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { testDatabase } from "../../../../tests/database.ts";
import { applySchema } from "../store/schema.ts";
import { openStore, type Store } from "../store/store.ts";
import { workflow } from "./model.ts";
import { createRunner } from "./runner.ts";
import { startRun, waitForOperation, readLog, readSteps } from "./store.ts";

let db: Awaited<ReturnType<typeof testDatabase>>;
let store: Store;
beforeAll(async () => {
  db = await testDatabase();
  store = openStore(db.url);
  await applySchema(store);
});
afterAll(async () => {
  await store.close();
  await db.drop();
});

test("smoke", async () => {
  const w = workflow({ name: "smoke", version: 1, input: z.object({ n: z.number() }), subject: ({ n }) => `cell/${n}`, locks: ({n}) => [{name: `cell/${n}`, slots: 1}], steps: [
    { name: "one", run: async ({ input }) => ({ kind: "done", result: input.n + 1 }) },
    { name: "two", tx: async (c, tx) => { await tx.query("select 1"); await c.progress("halfway", 0.5); return { kind: "done", result: (c.result<number>("one") ?? 0) * 2 } } },
    { name: "three", run: async (c) => { if (c.attempt < 3) throw new Error("no"); return { kind: "done", result: c.result<number>("two") ?? null } } , retry: {attemptsMax: 4, firstDelayMs: 10}},
  ] });
  const runner = createRunner({ store, workflows: [w], build: "test", log: (e) => console.log(JSON.stringify(e)) });
  runner.start();
  const id = await store.transaction((tx) => startRun(tx, w, { n: 1 }));
  const op = await waitForOperation(store, id, { timeoutMs: 10000 }).catch(e => e);
  console.log(op, await readSteps(store, id), await readLog(store, id));
  console.log(await store.query("select * from run"))
  await runner.stop();
  console.log(await store.query("select * from worker"))
});
