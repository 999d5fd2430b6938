import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const here = fileURLToPath(new URL(".", import.meta.url));

test("D18: the router stays thin enough to be read in an afternoon", () => {
  const files = readdirSync(here).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"));
  const lines = files.reduce((sum, name) => sum + readFileSync(here + name, "utf8").split("\n").length, 0);
  expect(lines).toBeLessThan(3000);
});
