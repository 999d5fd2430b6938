import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { CellSpec, ServiceSpec } from "../../cell/model.ts";
import type { DriverContext } from "../driver.ts";
import { readText } from "../files.ts";
import { connectKeeper } from "../keeper/client.ts";
import { startKeeper } from "../keeper/keeper.ts";
import type { Keeper } from "../keeper/model.ts";
import { findPostgres } from "../postgres/binaries.ts";
import { conformance } from "../testing/conformance.ts";
import { applyPoints } from "./converge.ts";
import { createLocalDriver, destroyPoints, type LocalDriver, revertPoints } from "./driver.ts";

const app = fileURLToPath(new URL("./testing/app.mjs", import.meta.url));
const dist = fileURLToPath(new URL("../../../dist/drivers/", import.meta.url));
const { signal } = new AbortController();

interface Machine {
  state: string;
  files: string;
  keeper: Keeper;
  driver: LocalDriver;
  spec: (cell: string, change?: Partial<CellSpec>) => CellSpec;
  serves: (cell: string) => Promise<{ version: string; config: unknown; pid: number } | null>;
  stop: () => Promise<void>;
}

async function startMachine(): Promise<Machine> {
  const root = await mkdtemp(join(tmpdir(), "cells-"));
  await chmod(root, 0o711);
  const [state, files] = [join(root, "state"), join(root, "files")];
  await mkdir(join(files, "schema"), { recursive: true });
  await writeFile(join(files, "schema/0001-item.sql"), "create table item (tenant_id text not null, id int, primary key (tenant_id, id));\n");
  const keeper = await startKeeper(state);
  const driver = createLocalDriver({ stateDirectory: state, keeper, findPostgres: () => findPostgres(process.env["CELLPLANE_PG_BIN"]), environment: { CELLPLANE_STAMP_SECRET: "never-to-be-shown" } });
  return {
    state, files, keeper, driver,
    spec: (cell, change = {}) =>
      CellSpec.parse({
        cell, region: "eu", blueprint: "shop", baseDirectory: files,
        services: {
          app: {
            command: [process.execPath, app],
            env: { PORT: "${port.http}", CONFIG: "${config.file}", DATABASE_URL: "${database.url}" },
            ports: { http: "auto" },
            readiness: { path: "/ready", intervalMs: 50, timeoutMs: 4000 },
          },
        },
        database: { engine: "postgres", schema: ["schema"] },
        ...change,
      }),
    async serves(cell) {
      const http = (await driver.endpoints(cell))?.http;
      return http ? get(`http://${http}/`) : null;
    },
    async stop() {
      await keeper.stopAll();
      await keeper.close();
      await rm(root, { recursive: true, force: true });
    },
  };
}

const get = <T>(url: string): Promise<T | null> =>
  new Promise((resolve) => {
    request(url, { agent: false }, (answer) => {
      let text = "";
      answer.on("data", (part: Buffer) => (text += part.toString()));
      answer.on("end", () => resolve(JSON.parse(text) as T));
    }).on("error", () => resolve(null)).end();
  });

const withEnv = (spec: CellSpec, env: Record<string, string>): CellSpec => {
  const service = spec.services["app"];
  return service ? { ...spec, services: { app: { ...service, env: { ...service.env, ...env } } } } : spec;
};

const edit = async (file: string, change: (text: string) => string): Promise<void> => writeFile(file, change(await readFile(file, "utf8")));

conformance("local", async () => {
  const machine = await startMachine();
  const { state, driver } = machine;
  return {
    driver,
    spec: machine.spec,
    broken: (spec) => withEnv(spec, { BROKEN: "crash" }),
    serves: machine.serves,
    edit: async (cell) => {
      await edit(join(state, "cells", cell, "config.json"), () => JSON.stringify({ greeting: "by hand" }));
      return "config.greeting";
    },
    applyPoints,
    revertPoints,
    destroyPoints,
    killedAt: async (point, work, given) => {
      const code = `import { connectKeeper } from ${JSON.stringify(`${dist}keeper/client.js`)};
        import { createLocalDriver } from ${JSON.stringify(`${dist}local/driver.js`)};
        import { findPostgres } from ${JSON.stringify(`${dist}postgres/binaries.js`)};
        const stateDirectory = ${JSON.stringify(state)};
        const driver = createLocalDriver({ stateDirectory, keeper: connectKeeper(stateDirectory), findPostgres: () => findPostgres(), environment: { CELLPLANE_STAMP_SECRET: "never-to-be-shown" } });
        const context = { ...${JSON.stringify(given)}, signal: new AbortController().signal, log: () => undefined };
        const work = ${JSON.stringify(work)};
        await (work.apply ? driver.apply(work.apply, context) : driver.destroy(work.destroy, context, work));`;
      const child = spawn(process.execPath, ["--input-type=module", "-e", code], { env: { ...process.env, CELLPLANE_FAILPOINT: point }, stdio: "inherit" });
      const [, endedBy] = (await once(child, "exit")) as [number | null, string | null];
      return endedBy === "SIGKILL";
    },
    leftovers: async (cell) => {
      const services = (await readdir(join(state, "services"))).filter((name) => name.includes(cell));
      const owners = await Promise.all((await readdir(join(state, "ports"))).map((port) => readText(join(state, "ports", port))));
      const files = (await readdir(join(state, "cells", cell))).filter((name) => name !== "cell.json");
      return [...services, ...owners.filter((owner) => owner?.startsWith(`${cell}/`)).map(String), ...files];
    },
    parallel: 3,
    close: machine.stop,
  };
});

describe("local driver on this machine", () => {
  let machine: Machine;
  let keys = 0;
  const context = (more: Partial<DriverContext> = {}): DriverContext => ({ opKey: `op-${++keys}`, epoch: 1, signal, log: () => undefined, ...more });
  const apply = async (spec: CellSpec, { overwriteDrift = false } = {}) => machine.driver.apply(await machine.driver.plan(spec, signal, { overwriteDrift }), context());
  const query = async (cell: string, sql: string): Promise<unknown[]> => {
    const client = new pg.Client({ connectionString: (await machine.driver.databaseOf(cell))?.url });
    await client.connect();
    return (await client.query(sql).finally(() => client.end())).rows;
  };
  const driftOf = async (cell: string): Promise<Record<string, unknown>> => Object.fromEntries((await machine.driver.observe(cell, signal)).drift.map(({ path, ...values }) => [path, values]));

  /** One cell serves all tests here, brought back to this before each. */
  const one = (change: Partial<CellSpec> = {}): CellSpec => machine.spec("one", change);

  beforeAll(async () => {
    machine = await startMachine();
  }, 60_000);
  beforeEach(() => apply(one(), { overwriteDrift: true }));
  afterAll(() => machine?.stop(), 60_000);

  test("L1: schema steps run once each, as the app's role; a failing one names file and line and leaves the former cell", async () => {
    expect(await query("one", "select name from cellplane.schema_step")).toEqual([{ name: "0001-item.sql" }]);
    expect(await query("one", "select tableowner from pg_tables where tablename = 'item'")).toEqual([{ tableowner: "app" }]);
    const file = join(machine.files, "schema/0002-more.sql");
    await writeFile(file, "alter table item add more int;\n\nalter table absent add more int;\n");
    const plan = await machine.driver.plan(one(), signal);
    expect(plan.changes.map(({ path }) => path)).toEqual(["database.schema.0002-more.sql"]);
    await expect(machine.driver.apply(plan, context())).rejects.toMatchObject({ code: "update_reverted", message: expect.stringContaining('schema step 0002-more.sql: relation "absent" does not exist') });
    expect(await query("one", "select count(*)::int as columns from information_schema.columns where table_name = 'item'")).toEqual([{ columns: 2 }]);
    await writeFile(file, "alter table item add more int;\n");
    const before = await machine.serves("one");
    await apply(one());
    expect(await query("one", "select name from cellplane.schema_step order by name")).toHaveLength(2);
    // The services did not change, so they were not restarted.
    expect(await machine.serves("one")).toEqual(before);
    await edit(join(machine.files, "schema/0001-item.sql"), (text) => `${text}-- later\n`);
    await expect(apply(one())).rejects.toMatchObject({ code: "update_reverted", message: expect.stringContaining("0001-item.sql differs") });
    await edit(join(machine.files, "schema/0001-item.sql"), (text) => text.replace("-- later\n", ""));
    await rm(file);
  });

  test("L2: only the services that changed are restarted", async () => {
    const two = (second: Record<string, string>): CellSpec => {
      const spec = one();
      return { ...spec, services: { ...spec.services, other: ServiceSpec.parse({ command: ["sleep", "1000"], env: second }) } };
    };
    await apply(two({ A: "1" }));
    const before = await machine.serves("one");
    const { changes, restarts } = await machine.driver.plan(two({ A: "2" }), signal);
    expect({ changes, restarts }).toEqual({ changes: [{ path: "services.other.env.A", from: "1", to: "2" }], restarts: true });
    await apply(two({ A: "2" }));
    expect(await machine.serves("one")).toEqual(before);
    await apply({ ...one() });
    expect((await machine.keeper.status()).map(({ name }) => name)).not.toContain("cell-one.other");
  });

  test("L3: a service that is not ready in time is told with its last words", async () => {
    await expect(apply(withEnv(one(), { BROKEN: "crash" }))).rejects.toMatchObject({ code: "update_reverted", message: expect.stringMatching(/service\/app: it ended with code 3; it said: .*told to crash/) });
    const slow = withEnv(one(), { BROKEN: "unready" });
    if (slow.services["app"]) slow.services["app"].readiness = { path: "/ready", timeoutMs: 1500, intervalMs: 50 };
    await expect(apply(slow)).rejects.toMatchObject({ code: "update_reverted", message: expect.stringContaining("/ready answers 503") });
    expect(await machine.serves("one")).toMatchObject({ version: "1" });
    expect((await machine.driver.health("one", signal)).map(({ name, ok }) => [name, ok])).toEqual([["database", true], ["service/app", true]]);
  });

  test("L4: each foreign change shows where it is: configuration, service, setting, ALTER SYSTEM, access, a missing and an extra service", async () => {
    await apply(one({ config: { limit: 1 } }));
    const cell = join(machine.state, "cells/one");
    const service = join(machine.state, "services/cell-one.app.json");
    await edit(join(cell, "config.json"), (text) => text.replace("1", "2"));
    await edit(service, (text) => text.replace('"PORT"', '"OTHER": "x", "PORT"'));
    await edit(join(cell, "postgres/data/postgresql.conf"), (text) => `${text}work_mem = '8MB'\n`);
    await edit(join(cell, "postgres/data/pg_hba.conf"), (text) => `${text}host all all 0.0.0.0/0 trust\n`);
    await query("one", "alter system set max_connections = 70");
    await writeFile(join(machine.state, "services/cell-one.extra.json"), JSON.stringify({ name: "cell-one.extra", tier: "app", command: ["true"], directory: "/", logFile: "/dev/null" }));
    const drift = await driftOf("one");
    expect(drift).toMatchObject({
      "config.limit": { expected: 1, actual: 2 },
      "services.app.env.OTHER": { actual: "x" },
      "database.settings.work_mem": { expected: "4MB", actual: "8MB" },
      "database.settings.max_connections": { expected: "60", actual: "70" },
      "database.access": {},
      "services.extra.command": { actual: ["true"] },
    });
    // A spec that has the change already takes it over.
    await rm(join(machine.state, "services/cell-one.extra.json"));
    await apply(one({ config: { limit: 2 } }), { overwriteDrift: true });
    expect(await driftOf("one")).toEqual({});
    await rm(service);
    expect(Object.keys(await driftOf("one"))).toContain("services.app.command");
    await apply(one({ config: { limit: 2 } }), { overwriteDrift: true });
    expect(await driftOf("one")).toEqual({});
  });

  test("L4: a spec that says what the foreign hand did is no conflict", async () => {
    await apply(one({ config: { limit: 1 } }));
    await edit(join(machine.state, "cells/one/config.json"), (text) => text.replace("1", "2"));
    expect(await apply(one({ config: { limit: 2 } }))).toMatchObject({ drift: [] });
    expect(await machine.serves("one")).toMatchObject({ config: { limit: 2 } });
  });

  test("L5: secrets are in no plan and no drift, and closed to others on the disk", async () => {
    await edit(join(machine.state, "services/cell-one.app.json"), (text) => text.replace("/app\"", "/app?x=1\""));
    const [observed, plan] = [await machine.driver.observe("one", signal), await machine.driver.plan(one({ version: "2" }), signal, { overwriteDrift: true })];
    const password = (await readFile(join(machine.state, "cells/one/postgres/app-password"), "utf8")).trim();
    expect(observed.drift.map(({ path }) => path)).toEqual(["services.app.env.DATABASE_URL"]);
    for (const shown of [JSON.stringify(observed), JSON.stringify(plan)]) {
      expect(shown).toContain("***");
      expect(shown).not.toContain(password);
      expect(shown).not.toContain("never-to-be-shown");
    }
    for (const file of ["services/cell-one.app.json", "cells/one/cell.json", "cells/one/config.json", "cells/one/postgres/password", "cells/one/postgres/app-password"]) {
      expect({ file, others: (await stat(join(machine.state, file))).mode & 0o077 }).toEqual({ file, others: 0 });
    }
  });

  test("L6: what the blueprint cannot mean here is refused by its path, before anything is made", async () => {
    const spec = machine.spec("l6");
    const bad = (change: Partial<ServiceSpec>): CellSpec => ({ ...spec, services: { app: { ...ServiceSpec.parse(spec.services["app"]), ...change } } });
    const refused = (wanted: CellSpec, path: string) => expect(machine.driver.plan(wanted, signal)).rejects.toMatchObject({ code: "invalid_input", data: { issues: [expect.objectContaining({ path })] } });
    await refused(bad({ env: { A: "${port.grpc}", CONFIG: "$${config.file}" } }), "services.app.env.A");
    await refused(bad({ env: { A: "${env.CELLPLANE_ABSENT}" } }), "services.app.env.A");
    await refused(bad({ command: undefined, image: "shop:1" }), "services.app.command");
    await refused(bad({ ports: {}, env: {} }), "services.app.readiness");
    await refused({ ...spec, database: { engine: "postgres", settings: {}, schema: ["absent.sql"], tenantColumn: "tenant_id" } }, "database.schema.0");
    expect(await readText(join(machine.state, "cells/l6/cell.json"))).toBeNull();
  });

  test("L7: cells go on without keeper and driver, and are found again as they were", async () => {
    const before = await machine.serves("one");
    await machine.keeper.close();
    expect(await machine.serves("one")).toEqual(before);
    expect((await machine.driver.health("one", signal)).every(({ ok }) => ok)).toBe(true);
    // Another driver, in another process, whose client starts a keeper.
    const other = createLocalDriver({ stateDirectory: machine.state, keeper: connectKeeper(machine.state), findPostgres: () => findPostgres(), environment: { CELLPLANE_STAMP_SECRET: "never-to-be-shown" } });
    const plan = await other.plan(one(), signal);
    expect(plan.changes).toEqual([]);
    await other.apply(plan, context());
    expect(await machine.serves("one")).toEqual(before);
    const keeper = await startKeeper(machine.state);
    expect(await machine.serves("one")).toEqual(before);
    machine = { ...machine, keeper, driver: createLocalDriver({ stateDirectory: machine.state, keeper, findPostgres: () => findPostgres(), environment: { CELLPLANE_STAMP_SECRET: "never-to-be-shown" } }), stop: async () => {
      await keeper.stopAll();
      await keeper.close();
      await rm(join(machine.state, ".."), { recursive: true, force: true });
    } };
  });

  test("L2: a change of the database's settings is applied by a restart of the server", async () => {
    await apply(one({ database: { engine: "postgres", settings: { max_connections: 33 }, schema: ["schema"], tenantColumn: "tenant_id" } }));
    expect(await query("one", "show max_connections")).toEqual([{ max_connections: "33" }]);
    expect(await query("one", "show wal_level")).toEqual([{ wal_level: "logical" }]);
  });
});
