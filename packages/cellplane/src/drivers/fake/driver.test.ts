import { expect, test } from "vitest";
import { CellSpec } from "../../cell/model.ts";
import { conformance } from "../testing/conformance.ts";
import { createFakeDriver, fakeApplyPoints, fakeDestroyPoints, fakeRevertPoints, Killed } from "./driver.ts";

const specOf = (cell: string, change: Partial<CellSpec> = {}): CellSpec =>
  CellSpec.parse({ cell, region: "eu", blueprint: "shop", driver: "fake", baseDirectory: "/", services: { app: { image: "shop" } }, config: {}, ...change });

conformance("fake", async () => {
  const driver = createFakeDriver();
  return {
    driver,
    spec: specOf,
    broken: (spec) => ({ ...spec, config: { broken: "told to be" } }),
    serves: async (cell) => driver.servedBy(cell),
    edit: async (cell) => {
      driver.edit(cell, "config.greeting", "hi");
      return "config.greeting";
    },
    applyPoints: fakeApplyPoints,
    revertPoints: fakeRevertPoints,
    destroyPoints: fakeDestroyPoints,
    killedAt: async (point, work, given) => {
      driver.killAt(point);
      const context = { ...given, signal: new AbortController().signal, log: () => undefined };
      const working: Promise<unknown> = "apply" in work ? driver.apply(work.apply, context) : driver.destroy(work.destroy, context, work);
      return working.then(() => false, (error: unknown) => error instanceof Killed);
    },
    leftovers: async (cell) => (driver.servedBy(cell) ? [cell] : []),
    parallel: 20,
    close: async () => undefined,
  };
});

test("F1: a scripted failure happens as often as told, and only there", async () => {
  const driver = createFakeDriver();
  const { signal } = new AbortController();
  driver.failNext("observe", "a", new Error("no answer"), 2);
  for (let i = 0; i < 2; i++) await expect(driver.observe("a", signal)).rejects.toThrow("no answer");
  expect(await driver.observe("a", signal)).toMatchObject({ exists: false });
  driver.setHealth("a", [{ name: "service/app", ok: false, detail: "told so" }]);
  expect(await driver.health("a", signal)).toEqual([{ name: "service/app", ok: false, detail: "told so" }]);
});
