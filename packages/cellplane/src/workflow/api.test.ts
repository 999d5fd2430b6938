import { afterAll, beforeAll, expect, test } from "vitest";
import { eventSink } from "../observe/events.ts";
import { insertEvents } from "../observe/store.ts";
import type { Call } from "../http/contract.ts";
import { fail } from "../base/errors.ts";
import { type OperationDetail, operationHandlers } from "./api.ts";
import type { Operation, OperationLogLine } from "./model.ts";
import * as runs from "./store.ts";
import { type Engine, flow, openEngine, until } from "./testing/engine.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await openEngine();
});
afterAll(() => engine.close());

const events = eventSink(insertEvents);
const told = async (id: string): Promise<string[]> => (await engine.store.query<{ kind: string }>("select kind from event where data->>'operation' = $1 order by id", [id])).map(({ kind }) => kind);

/** As the server calls it, without the server. */
async function call<R>(id: string, params: Record<string, string>, { query = {}, body = {} }: { query?: object; body?: object } = {}): Promise<R> {
  const found = operationHandlers({ store: engine.store, runs, events }).find(({ endpoint }) => endpoint.id === id) ?? expect.unreachable(id);
  const given = { params, query: found.endpoint.query.parse(query), body: found.endpoint.body.parse(body), mutate: (work: Parameters<typeof engine.store.transaction>[0]) => engine.store.transaction(work) };
  return found.endpoint.returns.parse(await found.handle(given as unknown as Call<never, never, never, never>)) as R;
}

test("W9: what people ask for over the API happens, and each change of the whole run is told as an event", async () => {
  const approved = flow("approved", [
    { name: "ask", run: async ({ received }) => (received("approve") === undefined ? { kind: "signal", name: "approve", timeoutMs: null } : { kind: "done", result: received("approve") ?? null }) },
    { name: "act", run: async ({ input }) => { if (input["bad"]) throw fail("not_found", { what: "cell", name: "x" }); }, undo: async () => undefined },
  ]);
  engine.run([approved], { events });
  const good = await engine.start(approved, {});
  const at = { operation: good };
  await until("it waits", async () => (await call<Operation>("getOperation", at)).state === "waiting");
  expect((await call<Operation>("pauseOperation", at)).state).toBe("paused");
  await call("resumeOperation", at);
  await until("it waits again", async () => (await call<Operation>("getOperation", at)).state === "waiting");
  await call("signalOperation", { ...at, signal: "approve" }, { body: { payload: "yes" } });
  await engine.wait(good);
  expect(await call<OperationDetail>("getOperation", at)).toMatchObject({ state: "succeeded", steps: [{ name: "ask", state: "done", result: "yes" }, { name: "act", state: "done" }] });
  expect(await told(good)).toEqual(["operation.paused", "operation.pending", "operation.succeeded"]);

  const bad = await engine.start(approved, { bad: true });
  await call("signalOperation", { operation: bad, signal: "approve" });
  await engine.wait(bad);
  expect(await told(bad)).toEqual(["operation.undoing", "operation.undone"]);
  await expect(call("resumeOperation", { operation: bad })).rejects.toMatchObject({ code: "wrong_state" });

  expect((await call<{ items: Operation[] }>("listOperations", {}, { query: { workflow: "approved", state: "undone" } })).items.map(({ id }) => id)).toEqual([bad]);
});

test("W14: the log is followed over the API by its last cursor", async () => {
  const talking = flow("talking", [{ name: "talk", run: async ({ progress }) => {
    for (const line of ["one", "two", "two", "three"]) await progress(line, 0.5);
  } }]);
  engine.run([talking]);
  const id = await engine.start(talking, {});
  await engine.wait(id);
  const lines: string[] = [];
  let cursor: string | undefined;
  await until("the last line is there", async () => {
    const { items } = await call<{ items: OperationLogLine[] }>("readOperationLog", { operation: id }, { query: { limit: 2, ...(cursor === undefined ? {} : { cursor }) } });
    lines.push(...items.map(({ message }) => message));
    cursor = items.at(-1)?.cursor ?? cursor;
    return lines.at(-1) === "talk: done";
  });
  expect(lines).toEqual(["one", "two", "three", "talk: done"]);
  await expect(call("readOperationLog", { operation: "op-none" })).rejects.toMatchObject({ code: "not_found" });
});
