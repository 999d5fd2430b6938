import { z } from "zod";
import { testDatabase } from "../../../../../tests/database.ts";
import { applySchema } from "../../store/schema.ts";
import { openStore, type Store } from "../../store/store.ts";
import { type Operation, type StartableWorkflow, type Step, type Workflow, workflow } from "../model.ts";
import { createRunner, type Runner, type RunnerOptions } from "../runner.ts";
import { startRun, type StartOptions, waitForOperation } from "../store.ts";

/** A database, with the schema unless that is for others to apply, and runners on it. */
export async function openEngine({ schema = true } = {}) {
  const db = await testDatabase();
  const store = openStore(db.url);
  if (schema) await applySchema(store);
  const runners: { runner: Runner; store: Store }[] = [];
  const stopRunners = async (): Promise<void> => {
    await Promise.all(runners.splice(0).map(async ({ runner, store }) => {
      await runner.stop({ drainMs: 100 });
      await store.close();
    }));
  };
  return {
    url: db.url,
    store,
    /** Each runner has connections of its own, as if it were a process. */
    run(workflows: readonly Workflow[], options: Partial<RunnerOptions> = {}): Runner {
      const own = openStore(db.url, { connectionsMax: 4 });
      const runner = createRunner({ store: own, workflows, build: "test", ...options });
      runners.push({ runner, store: own });
      runner.start();
      return runner;
    },
    start: <I>(of: StartableWorkflow<I>, input: I, options?: StartOptions): Promise<string> => store.transaction((tx) => startRun(tx, of, input, options)),
    wait: (id: string, timeoutMs = 20_000): Promise<Operation> => waitForOperation(store, id, { timeoutMs }),
    stopRunners,
    async close(): Promise<void> {
      await stopRunners();
      await store.close();
      await db.drop();
    },
  };
}
export type Engine = Awaited<ReturnType<typeof openEngine>>;

/** A workflow whose input is anything, with the name of its test. */
export const flow = (name: string, steps: Step<Input>[], more: Partial<Workflow<Input>> = {}): StartableWorkflow<Input> =>
  workflow<Input>({ name, version: 1, input: Input, subject: () => `test/${name}`, steps, ...more });
const Input = z.record(z.string(), z.json());
type Input = z.infer<typeof Input>;

/** Polls until it holds, which is when the value is neither false, null nor undefined. */
export async function until<T>(what: string, look: () => Promise<T | null | undefined | false> | T | null | undefined | false, timeoutMs = 15_000): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const value = await look();
    if (value !== null && value !== undefined && value !== false) return value;
    if (performance.now() > deadlineMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
