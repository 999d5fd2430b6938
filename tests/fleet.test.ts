import { createServer } from "node:net";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { cellplane, eventually, shopFleet, startFleet, type TestFleet } from "./fleet.ts";

/** Two cells of the shop: enough to see that one does not concern the other. */
const twoCells = shopFleet(["eu-1", "us-1"]);

let fleet: TestFleet;
const loads = new Set<() => void>();
afterEach(() => loads.forEach((end) => end()));
beforeAll(async () => {
  fleet = await startFleet({ fleetFile: twoCells });
  for (const [name, region] of [["acme", "eu"], ["globex", "us"]]) expect((await fleet.cli("tenant", "create", name as string, "--region", region as string)).code).toBe(0);
}, 90_000);
afterAll(async () => {
  expect(await fleet.stop(), "Ctrl-C leaves no process behind").toBe(true);
}, 60_000);

const status = (tenant: string): Promise<number> => fleet.request(tenant, "/balance").then(async (response) => (await response.arrayBuffer(), response.status));

/** Sends requests of the tenant one after the other until it is told to stop. */
function traffic(tenant: string): { sent: () => number; stop: () => Promise<{ sent: number; failed: string[] }> } {
  let on = true;
  // A test that fails leaves no traffic to the next one.
  loads.add(() => (on = false));
  const failed: string[] = [];
  let sent = 0;
  const sending = (async () => {
    while (on) {
      sent++;
      const answer = await status(tenant).catch((error: Error) => error.message);
      if (answer !== 200) failed.push(String(answer));
    }
  })();
  return {
    sent: () => sent,
    async stop() {
      on = false;
      await sending;
      return { sent, failed };
    },
  };
}

describe("a fleet on one machine", () => {
  test("a tenant's requests reach its cell, stamped; another name reaches nobody", async () => {
    await eventually("acme is routed", async () => (await status("acme")) === 200);
    const where = await fleet.cli("route", "explain", "--header", "x-tenant: acme", "-o", "json");
    expect(JSON.parse(where.stdout)).toMatchObject({ tenant: "acme", cell: "eu-1" });
    expect(await status("nobody")).toBe(404);
    expect((await fleet.request("globex", "/")).headers.get("x-shop-version")).toBeTruthy();
  });

  test("the control plane dead: nothing fails, the router restarts from its disk, and cells are found again as they are", async () => {
    await eventually("both are routed", async () => (await status("acme")) === 200 && (await status("globex")) === 200);
    const app = await fleet.pidOf("cell-eu-1.app");
    const load = traffic("acme");
    // Stopped, not killed: the keeper would start a killed one again at once.
    await fleet.kill("control-plane", "SIGSTOP");
    await eventually("a hundred requests went well without it", () => load.sent() > 100);
    expect((await load.stop()).failed).toEqual([]);
    // And the router comes back from its copy on disk, since there is nobody to ask.
    const former = await fleet.pidOf("router");
    await fleet.kill("router", "SIGTERM");
    await eventually("another router runs", async () => (await fleet.pidOf("router")) !== former);
    await eventually("it serves", async () => (await status("globex")) === 200);
    expect(await status("acme")).toBe(200);

    await fleet.kill("control-plane", "SIGKILL");
    await eventually("the control plane is back and sees the cell well", async () => {
      const { body } = await fleet.api("GET", "/v1/cells/eu-1");
      return (body as { health: { ok: boolean } }).health.ok;
    });
    expect(await fleet.pidOf("cell-eu-1.app")).toBe(app);
  });

  test("a killed app is seen as down, hurts only its own tenants, and comes back", async () => {
    const other = traffic("globex");
    await fleet.kill("cell-eu-1.app", "SIGSTOP");
    await eventually("eu-1 is seen as down", async () => (JSON.parse((await fleet.cli("cell", "describe", "eu-1", "-o", "json")).stdout) as { health: { ok: boolean } }).health.ok === false);
    await fleet.kill("cell-eu-1.app", "SIGKILL");
    await eventually("acme is served again", async () => (await status("acme")) === 200);
    await eventually("eu-1 is seen as well", async () => (JSON.parse((await fleet.cli("cell", "describe", "eu-1", "-o", "json")).stdout) as { health: { ok: boolean } }).health.ok);
    expect((await other.stop()).failed).toEqual([]);
  });

  test("the control plane's database killed: a clear error meanwhile, nothing lost, requests go on", async () => {
    const load = traffic("acme");
    await fleet.kill("control-postgres", "SIGSTOP");
    await fleet.kill("control-postgres", "SIGKILL");
    await eventually("the API answers again", async () => (await fleet.api("GET", "/v1/tenants/acme")).status === 200);
    expect((await fleet.cli("tenant", "list", "-o", "name")).stdout.trim().split("\n").sort()).toEqual(["acme", "globex"]);
    expect((await load.stop()).failed).toEqual([]);
  });

  test("the keeper killed: everything goes on, and the next `up` adopts it", async () => {
    const services = ["control-postgres", "control-plane", "router", "cell-eu-1.app", "cell-us-1.app"];
    const before = await Promise.all(services.map((service) => fleet.pidOf(service)));
    await fleet.killUp();
    expect(await status("acme")).toBe(200);
    await fleet.startAgain();
    expect(await Promise.all(services.map((service) => fleet.pidOf(service)))).toEqual(before);
    expect(await status("acme")).toBe(200);
  });

  test("the audit log has it all and is unbroken; nothing secret is in the logs", async () => {
    const verified = await fleet.cli("audit", "verify", "-o", "json");
    expect(verified.code).toBe(0);
    const secrets = Object.values(JSON.parse(await readFile(join(fleet.stateDirectory, "tokens.json"), "utf8")) as Record<string, string>);
    secrets.push((await readFile(join(fleet.stateDirectory, "stamp-secret"), "utf8")).trim());
    for (const service of ["control-plane", "router"]) {
      const log = await readFile(join(fleet.stateDirectory, "logs", `${service}.log`), "utf8").catch(() => "");
      for (const secret of secrets) expect(log.includes(secret)).toBe(false);
    }
  });
});

describe("what keeps a fleet from starting is said clearly", () => {
  test("a port in use", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const ran = await cellplane(["up", "--state-dir", join(fleet.stateDirectory, "other"), "--listen", `127.0.0.1:${port}`]);
    server.close();
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain("port_in_use");
    expect(ran.stderr).toContain("--listen");
  });

  test("a state directory in use", async () => {
    const ran = await cellplane(["up", "--state-dir", fleet.stateDirectory]);
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain("state_dir_in_use");
    expect(await status("acme")).toBe(200);
  });

  test("a wrong token, an unknown name, a server that is not there", async () => {
    const wrong = await cellplane(["cell", "list", "--server", fleet.apiUrl, "--token", "wrong"]);
    expect([wrong.code, wrong.stderr]).toEqual([4, expect.stringContaining("unauthenticated")]);
    const unknown = await fleet.cli("cell", "describe", "eu-9");
    expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining("not_found")]);
    const dead = await cellplane(["cell", "list", "--server", "http://127.0.0.1:9", "--token", "x"]);
    expect([dead.code, dead.stderr]).toEqual([1, expect.stringContaining("server_unreachable")]);
  });
});
