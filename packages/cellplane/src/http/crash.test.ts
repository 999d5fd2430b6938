import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { CellplaneError } from "../base/errors.ts";
import { prng } from "../base/prng.ts";
import { createToken } from "../token/api.ts";
import { createClient } from "./client.ts";
import { testApi } from "./testing/api.ts";

const program = fileURLToPath(new URL("./testing/instance.mjs", import.meta.url));

async function startInstance(databaseUrl: string, port: number): Promise<{ child: ChildProcess; port: number }> {
  const child = spawn(process.execPath, [program, databaseUrl, String(port)], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return { child, port: Number(line.toString()) };
}

const seed = Date.now() % 1e9;
test(`H6: every call is done once, though the process is killed again and again (SEED=${seed})`, async () => {
  const random = prng(seed);
  const api = await testApi();
  let instance = await startInstance(api.db.url, 0);
  const { port } = instance;
  const client = createClient({ server: `http://127.0.0.1:${port}`, token: api.secrets.admin, patienceMs: 0 });
  const names = Array.from({ length: 240 }, (_, i) => `t${i}`);
  let repeats = 0;

  /** As a caller does who knows only that there was no answer. */
  async function create(name: string): Promise<void> {
    for (;;) {
      try {
        const { token } = await client.call(createToken, { body: { name, role: "viewer" } }, { idempotencyKey: `make-${name}` });
        expect(token.name).toBe(name);
        return;
      } catch (error) {
        if (!(error instanceof CellplaneError) || error.kind.http !== 503) throw error;
        repeats++;
        await sleep(20);
      }
    }
  }

  try {
    const waiting = [...names];
    const callers = Promise.all(Array.from({ length: 8 }, async () => {
      for (let name = waiting.shift(); name; name = waiting.shift()) await create(name);
    }));
    const killing = (async () => {
      for (let kills = 0; kills < 6 && waiting.length > 0; kills++) {
        await sleep(20 + random() * 120);
        instance.child.kill("SIGKILL");
        await once(instance.child, "exit");
        instance = await startInstance(api.db.url, port);
      }
    })();
    await Promise.all([callers, killing]);
    const done = await api.store.query<{ subject: string; n: number }>("select subject, count(*) as n from audit where action = 'createToken' group by subject");
    expect(done.length).toBe(names.length);
    expect(done.filter((row) => row.n !== 1)).toEqual([]);
    expect(await api.store.query("select 1 from token where name like 't%'")).toHaveLength(names.length);
    expect((await api.audit.verify(null)).ok).toBe(true);
    expect(repeats).toBeGreaterThan(0);
  } finally {
    instance.child.kill("SIGKILL");
    await api.close();
  }
});
