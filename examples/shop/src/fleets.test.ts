import { existsSync, readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parseFleet } from "../../../packages/cellplane/src/fleet/parse.ts";

const examples = fileURLToPath(new URL("../../", import.meta.url));
const read = (folder: string) => parseFleet(readFileSync(resolve(examples, folder, "cellplane.yaml"), "utf8"), "cellplane.yaml").fleet;

test.each([["shop", "shared"], ["cell-per-customer", "cell-per-tenant"], ["one-cell", "one-cell"]] as const)("the fleet file of %s is valid, says %s, and points at what is there", (folder, strategy) => {
  const fleet = read(folder);
  expect(fleet.placement.strategy).toBe(strategy);
  for (const { services, database } of Object.values(fleet.blueprints)) {
    for (const { directory = ".", command } of Object.values(services)) expect(existsSync(resolve(examples, folder, directory, command?.at(-1) ?? "")), "the app is built").toBe(true);
    for (const schema of database?.schema ?? []) expect(readdirSync(resolve(examples, folder, schema))).toContain("0001-shop.sql");
  }
});

test("the ways of running the shop differ in where tenants live, and in nothing else", () => {
  const [shop, ...others] = (["shop", "cell-per-customer", "one-cell"] as const).map((folder) => {
    const { routing, blueprints } = read(folder);
    const { config, services, database } = blueprints["shop"] ?? {};
    return { routing, config, env: services?.["app"]?.env, command: services?.["app"]?.command, engine: database?.engine };
  });
  for (const other of others) expect(other).toEqual(shop);
});
