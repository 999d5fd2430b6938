import { z } from "zod";
import { endpoint, handler, type Handler, page, PageQuery } from "../http/contract.ts";
import type { Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import type { EventSink } from "../drivers/driver.ts";
import { Operation, OperationLogLine, OperationStep, runStates } from "./model.ts";
import type * as runs from "./store.ts";

const OneOperation = z.object({ operation: z.string().max(100) });

export const OperationDetail = Operation.extend({
  /** Those that are done or undone, in that order. */
  steps: z.array(OperationStep),
});
export type OperationDetail = z.infer<typeof OperationDetail>;

const OperationQuery = PageQuery.extend({
  /** "open": whatever is not final. */
  state: z.enum(["open", ...runStates]).optional(),
  /** As in "cell/eu-1". */
  subject: z.string().max(200).optional(),
  workflow: z.string().max(100).optional(),
  parent: z.string().max(100).optional(),
});

export const listOperations = endpoint({ id: "listOperations", method: "GET", path: "/v1/operations", role: "viewer", summary: "Lists the operations, newest first", query: OperationQuery, returns: page(Operation) });
export const getOperation = endpoint({ id: "getOperation", method: "GET", path: "/v1/operations/{operation}", role: "viewer", summary: "Shows an operation and its steps", params: OneOperation, returns: OperationDetail });
export const readOperationLog = endpoint({
  id: "readOperationLog", method: "GET", path: "/v1/operations/{operation}/log", role: "viewer", summary: "Reads an operation's log, oldest line first",
  description: "A line that is committed late is never skipped. To follow the log, ask again with the cursor of the last line.",
  params: OneOperation, query: PageQuery, returns: z.object({ items: z.array(OperationLogLine) }),
});

const verb = (id: string, name: string, summary: string) =>
  endpoint({ id, method: "POST", path: `/v1/operations/{operation}/${name}`, role: "operator", summary, params: OneOperation, returns: Operation });

export const pauseOperation = verb("pauseOperation", "pause", "Begins no further step, and tells the one in work to stop");
export const resumeOperation = verb("resumeOperation", "resume", "Lets a paused operation go on");
export const cancelOperation = verb("cancelOperation", "cancel", "Takes back what an operation has done");
export const retryOperation = verb("retryOperation", "retry", "Tries the step of a parked or waiting operation now, or the undo that failed");
export const signalOperation = endpoint({
  id: "signalOperation", method: "POST", path: "/v1/operations/{operation}/signals/{signal}", role: "operator", summary: "Tells an operation something that it may wait for",
  params: OneOperation.extend({ signal: z.string().min(1).max(100) }), body: z.object({ payload: z.json().default(null) }), returns: Operation,
});

export interface OperationHandlerDeps {
  store: Store;
  runs: typeof runs;
  events?: EventSink;
}

export function operationHandlers({ store, runs, events }: OperationHandlerDeps): Handler[] {
  /** What a worker will do with it, it tells itself; a change that needs none is told here. */
  const told = async (tx: Tx, change: Promise<Operation>): Promise<Operation> => {
    const operation = await change;
    if (operation.asked === null) events?.emit(tx, `operation.${operation.state}`, operation.subject, { operation: operation.id, workflow: operation.workflow, step: operation.step, error: operation.error });
    return operation;
  };
  return [
    handler(listOperations, ({ query }) => runs.listOperations(store, query)),
    handler(getOperation, async ({ params }) => {
      const [operation, steps] = await Promise.all([runs.getOperation(store, params.operation), runs.readSteps(store, params.operation)]);
      return { ...operation, steps };
    }),
    handler(readOperationLog, async ({ params, query }) => {
      await runs.getOperation(store, params.operation);
      return { items: await runs.readLog(store, params.operation, { after: query.cursor, limit: query.limit }) };
    }),
    handler(pauseOperation, ({ params, mutate }) => mutate((tx) => told(tx, runs.pauseRun(tx, params.operation)))),
    handler(resumeOperation, ({ params, mutate }) => mutate((tx) => told(tx, runs.resumeRun(tx, params.operation)))),
    handler(cancelOperation, ({ params, mutate }) => mutate((tx) => told(tx, runs.cancelRun(tx, params.operation)))),
    handler(retryOperation, ({ params, mutate }) => mutate((tx) => told(tx, runs.retryRun(tx, params.operation)))),
    handler(signalOperation, ({ params, body, mutate }) => mutate((tx) => runs.signalRun(tx, params.operation, params.signal, body.payload))),
  ];
}
