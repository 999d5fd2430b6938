import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { cellConfig, cellEnvironment, configFromEnvironment, guardFromEnvironment, signStamp } from "./index.ts";

let folder = "";
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), "cellplane-sdk-"))));
afterEach(() => rmSync(folder, { recursive: true }));

test("G9: a changed file is seen, a broken one is told of once, a good one is seen again", () => {
  const file = join(folder, "config.json");
  const errors: string[] = [];
  writeFileSync(file, JSON.stringify({ latencyMs: 5 }));
  const config = cellConfig({ latencyMs: 0, banner: "none" }, { file, staleMs: 0, onError: (error) => errors.push(error.message) });
  expect(config()).toEqual({ latencyMs: 5, banner: "none" });
  // As drivers do it: written beside and renamed over.
  writeFileSync(`${file}.new`, JSON.stringify({ banner: "sale" }));
  renameSync(`${file}.new`, file);
  expect(config()).toEqual({ latencyMs: 0, banner: "sale" });
  for (const broken of ["{", "[1]", "null"]) {
    writeFileSync(file, broken);
    for (let i = 0; i < 3; i++) expect(config().banner).toBe("sale");
  }
  rmSync(file);
  for (let i = 0; i < 3; i++) expect(config().banner).toBe("sale");
  expect(errors).toHaveLength(4);
  writeFileSync(file, JSON.stringify({ latencyMs: 7 }));
  expect(config().latencyMs).toBe(7);
});

test("G9: the file is not looked at more often than asked for", () => {
  const file = join(folder, "config.json");
  writeFileSync(file, "{}");
  const config = cellConfig({ on: false }, { file, staleMs: 3_600_000 });
  config();
  writeFileSync(file, JSON.stringify({ on: true }));
  expect(config()).toEqual({ on: false });
});

test("G9: an app does not start on a broken file, and runs on its defaults without one", () => {
  expect(() => cellConfig({}, { file: join(folder, "absent.json") })).toThrow(/ENOENT/);
  expect(configFromEnvironment({ latencyMs: 3 }, {}, {})()).toEqual({ latencyMs: 3 });
});

test("G10: what is missing in the environment is named", () => {
  const env = { CELLPLANE_CELL: "eu-1", CELLPLANE_REGION: "eu", CELLPLANE_STAMP_SECRET: "new,old", CELLPLANE_CONFIG_FILE: "/cell/config.json" };
  expect(cellEnvironment(env)).toEqual({ cell: "eu-1", region: "eu", stampSecrets: ["new", "old"], configFile: "/cell/config.json", unstamped: "refuse" });
  expect(() => cellEnvironment({ ...env, CELLPLANE_CELL: "" })).toThrow(/CELLPLANE_CELL is not set/);
  expect(() => guardFromEnvironment({}, { CELLPLANE_CELL: "eu-1" })).toThrow(/CELLPLANE_STAMP_SECRET is not set/);
});

test("G10: without a cell the app runs when asked to, and then no stamp is believed", () => {
  const guard = guardFromEnvironment({}, { CELLPLANE_UNSTAMPED: "allow" });
  expect(guard.admit("/", () => undefined)).toEqual({ tenant: undefined });
  for (const secret of ["local", "", "undefined"]) {
    const headers: Record<string, string> = {
      "x-cellplane-tenant": "acme", "x-cellplane-cell": "local", "x-cellplane-epoch": "1",
      "x-cellplane-signature": signStamp(secret, { tenant: "acme", cell: "local", epoch: 1 }),
    };
    expect(guard.admit("/", (name) => headers[name]).refusal?.code).toBe("stamp_forged");
  }
});
