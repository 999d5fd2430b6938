import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BadLines, lineReader } from "./lines.ts";
import { RouteTable } from "./table.ts";
import { applied, changes, modelTable } from "./testing/model.ts";

describe("R2: lines say exactly what the changes said", () => {
  test("every change, through its line, makes the table that a plain map says", () =>
    fc.assert(
      fc.property(fc.array(changes, { maxLength: 60 }), (list) => {
        const table = applied(list);
        const model = modelTable(list);
        for (const tenant of model.tenants.keys()) expect(table.find("name", Buffer.from(tenant), 0, tenant.length)).toBeGreaterThanOrEqual(0);
        expect(table.tenants).toBe(model.tenants.size);
        expect(table.keys).toBe(model.keys.size);
      }),
    ));

  test.each([
    "t acme 3 active\n", "t acme 0 active 1\n", "t acme 70000 active 1\n", "t acme 3 asleep 1\n", "t acme 3 active 0\n", "t Acme 3 active 1\n", "t -a 3 active 1\n",
    "t acme 3 active 4294967296\n", "t acme 3 active 1 2\n", "k name acme acme\n", "k host acme.example.com\n", "K host\n", "c 0 eu open -\n", "c 1 eu ajar -\n", "c 1 eu open nowhere\n", "r {\n", "r [{\"by\":\"moon\"}]\n", "t acme 3 active 1",
  ])("refuses %j", (line) => {
    const table = new RouteTable();
    expect(() => lineReader(table)(Buffer.from(line), 0, line.length)).toThrow(BadLines);
    expect(table.tenants + table.keys).toBe(0);
  });

  test("skips lines of a newer control plane", () => {
    const bytes = Buffer.from("z something new\nt acme 3 active 1\n");
    const table = new RouteTable();
    expect(lineReader(table)(bytes, 0, bytes.length)).toBe(2);
    expect(table.tenants).toBe(1);
  });
});
