import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "../../../../tests/database.ts";
import { createFakeDriver } from "../drivers/fake/driver.ts";
import { declaredEndpoints } from "../http/testing/declared.ts";
import { type ControlPlane, startControlPlane } from "./server.ts";

let db: Awaited<ReturnType<typeof testDatabase>>;
let stateDirectory: string;
let planes: ControlPlane[];
beforeAll(async () => {
  db = await testDatabase();
  stateDirectory = await mkdtemp(join(tmpdir(), "cellplane-server-"));
  const start = (): Promise<ControlPlane> =>
    startControlPlane({ databaseUrl: db.url, stateDirectory, listen: { host: "127.0.0.1", port: 0 }, drivers: { fake: createFakeDriver() }, eraser: { erase: async () => ({}) }, logLevel: "silent" });
  planes = await Promise.all([start(), start(), start()]);
});
afterAll(async () => {
  await Promise.all(planes.map((plane) => plane.close()));
  await rm(stateDirectory, { recursive: true });
  await db.drop();
});

test("three control planes started at once on an empty database all serve", async () => {
  for (const { url } of planes) expect((await fetch(`${url}/ready`)).status).toBe(200);
});

test("every declared endpoint is served: asked without a token it is refused, and not unknown", async () => {
  const [plane] = planes;
  const endpoints = await declaredEndpoints();
  expect(endpoints.length).toBeGreaterThan(40);
  for (const { id, method, path } of endpoints) {
    const response = await fetch((plane?.url ?? "") + path.replaceAll(/\{\w+\}/g, "x"), { method, headers: method === "GET" ? {} : { "content-type": "application/json" }, ...(method === "GET" ? {} : { body: "{}" }) });
    expect([id, response.status]).toEqual([id, 401]);
  }
});

test("metrics are in Prometheus' form", async () => {
  const text = await (await fetch(`${planes[0]?.url ?? ""}/metrics`)).text();
  for (const line of text.trim().split("\n")) expect(line).toMatch(/^(# (HELP|TYPE) cellplane_\w+ .+|cellplane_\w+(\{.*\})? [\d.e+-]+|)$/);
  expect(text).toContain("cellplane_route_table_version 0");
});
