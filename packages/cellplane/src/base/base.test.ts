import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CellplaneError, errorKinds, fail } from "./errors.ts";
import { newId } from "./ids.ts";
import { Name } from "./names.ts";
import { prng, stableHash } from "./prng.ts";
import { formatBytes, formatDurationMs, parseBytes, parseDurationMs } from "./units.ts";

describe("names", () => {
  test.each(["a", "eu-1", "7", "a".repeat(63)])("%s is one", (name) => expect(Name.safeParse(name).success).toBe(true));
  test.each(["", "-a", "a-", "A", "ä", "a.b", "a_b", "a b", "a\n", "xn--p1ai", "a".repeat(64), "а", "a\u0000"])("%j is none", (name) =>
    expect(Name.safeParse(name).success).toBe(false),
  );
  test("none survives in a header, host or path other than as itself", () =>
    fc.assert(fc.property(fc.string(), (text) => !Name.safeParse(text).success || (encodeURIComponent(text) === text && text === text.toLowerCase().trim()))));
});

test("ids sort by their age and do not repeat", () => {
  const random = prng(1);
  const ids = Array.from({ length: 1000 }, (_, i) => newId("op", 1_700_000_000_000 + i, random));
  expect(ids.toSorted()).toEqual(ids);
  expect(new Set(ids).size).toBe(1000);
});

test("the same seed gives the same numbers, evenly spread", () => {
  const [a, b] = [prng(7), prng(7)];
  const tenths = new Array<number>(10).fill(0);
  for (let i = 0; i < 10_000; i++) {
    const x = a();
    expect(x).toBe(b());
    const slot = Math.floor(x * 10);
    tenths[slot] = (tenths[slot] ?? 0) + 1;
  }
  for (const n of tenths) expect(Math.abs(n - 1000)).toBeLessThan(150);
  expect(stableHash("acme")).toBe(stableHash("acme"));
  expect(stableHash("acme")).not.toBe(stableHash("acmf"));
});

test("units are read as they are written", () => {
  expect([parseBytes("512MiB"), parseBytes("20 GB"), parseBytes("7"), parseBytes("7x")]).toEqual([536870912, 2e10, 7, null]);
  expect([parseDurationMs("250ms"), parseDurationMs("2.5s"), parseDurationMs("7d"), parseDurationMs("7")]).toEqual([250, 2500, 604800000, null]);
  expect([formatBytes(12_897_485), formatBytes(12)]).toEqual(["12.3 MiB", "12 B"]);
  expect([formatDurationMs(12), formatDurationMs(1234), formatDurationMs(200_000), formatDurationMs(187_200_000)]).toEqual(["12ms", "1.23s", "3m20s", "2d4h"]);
});

test("every error says what to do, with a status and an exit code of the contract", () => {
  for (const [code, kind] of Object.entries(errorKinds)) {
    expect(code).toMatch(/^[a-z][a-z_]+$/);
    expect(kind.fix.length, code).toBeGreaterThan(15);
    expect(kind.http, code).toBeGreaterThanOrEqual(400);
    expect([1, 3, 4, 5, 6, 7, 8], code).toContain(kind.exit);
  }
  const error = fail("not_found", { what: "cell", name: "eu-9" });
  expect(error).toBeInstanceOf(CellplaneError);
  expect(error.message).toBe("there is no cell eu-9");
});
