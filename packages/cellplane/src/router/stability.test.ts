import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { testControl } from "./testing/control.ts";
import { cellChange, hostRule, stampSecret, tenantChange, testCell } from "./testing/fleet.ts";

const holder = fileURLToPath(new URL("testing/holder.mjs", import.meta.url));

/** One request after the other on kept-alive connections, for as long as `running` says. */
async function client(port: number, host: string, running: () => boolean, results: { ok: number; failures: string[] }): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  while (running()) {
    await new Promise<void>((resolve) => {
      const call = request({ agent, host: "127.0.0.1", port, path: "/", headers: { host } }, (response) => {
        response.resume().on("end", () => {
          if (response.statusCode === 200) results.ok++;
          else results.failures.push(`${host} ${response.statusCode}`);
          resolve();
        });
      });
      call.on("error", (error) => {
        results.failures.push(`${host} ${error.message}`);
        resolve();
      });
      call.end();
    });
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  agent.destroy();
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test("D17: with the control plane dead and the router restarted from its disk, no request fails", async () => {
  const directory = await mkdtemp(join(tmpdir(), "cellplane-stability-"));
  const cells = [await testCell("eu-1", 1), await testCell("eu-2", 2)];
  const control = await testControl([hostRule, ...cells.map(cellChange), ...Array.from({ length: 20 }, (_, i) => tenantChange(`t${i}`, 1 + (i % 2)))]);
  const config = { name: "stable", controlPlane: [control.url], token: "router-token", stampSecret, stateDirectory: directory, limits: { drainIdleMs: 300 } };
  const held = spawn(process.execPath, [holder, JSON.stringify(config), "3"], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  held.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const routers = (): { pid: number; version: number }[] => [...said.matchAll(/pid (\d+) version (\d+)/g)].map((match) => ({ pid: Number(match[1]), version: Number(match[2]) }));
  const results = { ok: 0, failures: [] as string[] };
  let running = true;
  try {
    await expect.poll(() => routers().length, { timeout: 20_000 }).toBe(1);
    await expect.poll(() => control.acks.at(-1)?.version, { timeout: 10_000 }).toBe(1);
    const port = Number(/port (\d+)/.exec(said)?.[1]);
    const clients = Array.from({ length: 8 }, (_, i) => client(port, `t${i}.test`, () => running, results));
    await expect.poll(() => results.ok, { timeout: 10_000 }).toBeGreaterThan(100);
    // The last change before the end stands in the journal only.
    control.publish(tenantChange("t0", 2, 2));
    await expect.poll(() => control.acks.at(-1)?.version).toBe(2);
    await control.down();

    for (let restarts = 1; restarts <= 2; restarts++) {
      const before = results.ok;
      process.kill(routers().at(-1)?.pid ?? 0, "SIGTERM");
      await expect.poll(() => routers().length, { timeout: 20_000 }).toBe(restarts + 1);
      expect(routers().at(-1)?.version).toBe(2);
      await expect.poll(() => results.ok, { timeout: 10_000 }).toBeGreaterThan(before + 200);
    }

    await control.up();
    control.publish(tenantChange("t1", 1, 2));
    await expect.poll(() => control.acks.at(-1)?.version, { timeout: 10_000 }).toBe(3);
    running = false;
    await Promise.all(clients);
    expect(results.failures).toEqual([]);
    expect(cells[1]?.seen.filter((seen) => seen.headers["x-cellplane-tenant"] === "t0").length).toBeGreaterThan(0);
  } finally {
    running = false;
    // First the one that would start the next.
    held.kill("SIGKILL");
    while (!held.stdout.closed) {
      for (const { pid } of routers()) if (isRunning(pid)) process.kill(pid, "SIGKILL");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await control.close();
    for (const cell of cells) {
      cell.server.closeAllConnections();
      cell.server.close();
    }
    await rm(directory, { recursive: true, force: true });
  }
});
