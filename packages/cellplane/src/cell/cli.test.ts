import { expect, test } from "vitest";
import { overridesOf } from "./cli.ts";

test("flags of the form path=value become overrides", () => {
  expect(overridesOf({ version: "2", "config.theme": "dark", "config.limits": "[1,2]", "capacity.tenants": "50", "services.app.env.PORT": "80", "config.on": "true" })).toEqual({
    version: "2",
    config: { theme: "dark", limits: [1, 2], on: true },
    capacity: { tenants: 50 },
    services: { app: { env: { PORT: "80" } } },
  });
});

test.each([{ "__proto__.polluted": "1" }, { "config..a": "1" }, { "config.__proto__": "1" }, { "config.a": "1", "config.a.b": "2" }])("a path that names no field is refused: %o", (pairs) => {
  expect(() => overridesOf(pairs)).toThrow(expect.objectContaining({ code: "bad_usage" }) as Error);
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});
