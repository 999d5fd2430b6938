import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { CellplaneError } from "../base/errors.ts";
import { bytesMax, parseFleet } from "./parse.ts";

const good = `fleet: demo
regions:
  eu:
  us:
blueprints:
  shop:
    services:
      app:
        command: [node, app.mjs]
        ports: { http: auto }
    capacity: { tenants: 100 }
cells:
  eu-1: { region: eu, blueprint: shop }
  us-1: { region: us, blueprint: shop, overrides: { version: "2" } }
`;

/** Each issue as an editor shows it. */
function issuesOf(text: string): string[] {
  try {
    parseFleet(text, "cellplane.yaml");
    return [];
  } catch (error) {
    const { code, data, kind } = error as CellplaneError<"fleet_invalid">;
    expect(code).toBe("fleet_invalid");
    expect(kind.exit).toBe(3);
    return data.issues.map((issue) => `${issue.line}:${issue.column} ${issue.path ? `${issue.path}: ` : ""}${issue.message}`);
  }
}
/** The good file with one line otherwise. */
const withLine = (line: number, text: string): string => good.split("\n").map((old, i) => (i === line - 1 ? text : old)).join("\n");

test("a file that says the least gets the defaults", () => {
  expect(parseFleet(good, "cellplane.yaml").fleet).toMatchObject({
    fleet: "demo",
    regions: { eu: null },
    blueprints: { shop: { class: "shared", driver: "local", version: "1", config: {} } },
    cells: { "us-1": { overrides: { version: "2" }, labels: {} } },
    placement: { strategy: "shared", headroomRatio: 0.1 },
    routing: { identify: [{ by: "host" }] },
  });
});

test("F11: one cell for all, and one cell per customer, are one line", () => {
  const one = good.replace("  us:\n", "").replace(/ {2}us-1.*\n/, "");
  expect(issuesOf(`${one}placement: { strategy: one-cell }\n`)).toEqual([]);
  const none = good.slice(0, good.indexOf("cells:"));
  expect(issuesOf(`${none}placement: { strategy: cell-per-tenant, blueprint: shop }\n`)).toEqual([]);
});

describe("F1: a file that is wrong is refused with line, column and what to do", () => {
  test.each([
    ["bad YAML", withLine(3, "\teu:"), ["3:1 Tabs are not allowed as indentation"]],
    ["bad YAML: an open bracket", withLine(9, "        command: [node, app.mjs"), [expect.stringMatching(/^10:\d+ .*flow/i)]],
    ["an empty file", "", ["1:1 the file is empty; it begins with `fleet: <name>`"]],
    ["a list", "- a\n", ["1:1 expected fields, found a list"]],
    ["two documents", `${good}---\nfleet: other\n`, ["15:1 a fleet is one YAML document: remove the `---` and what follows"]],
    ["a tag", withLine(1, "fleet: !!js/function x"), [expect.stringMatching(/^1:8 Unresolved tag/)]],
    ["an unknown field", withLine(7, "    sevices:"), [
      "7:5 blueprints.shop.services: is missing: names with their values is needed",
      "7:5 blueprints.shop.sevices: unknown field sevices; did you mean services?",
    ]],
    ["an unknown field in overrides", withLine(14, "  us-1: { region: us, blueprint: shop, overrides: { verison: \"2\" } }"), ["14:53 cells.us-1.overrides.verison: unknown field verison; did you mean version?"]],
    ["an override of the wrong kind", withLine(14, "  us-1: { region: us, blueprint: shop, overrides: { capacity: { tenants: many } } }"), ["14:74 cells.us-1.overrides.capacity.tenants: expected a number, found text"]],
    ["a bad name", withLine(13, "  EU_1: { region: eu, blueprint: shop }"), ["13:3 cells.EU_1: a name is a DNS label: lower-case letters, digits and inner hyphens"]],
    ["a name for a browser to misread", withLine(1, "fleet: xn--demo"), ["1:8 fleet: a name may not start with xn--"]],
    ["a key that stands twice", withLine(14, "  eu-1: { region: us, blueprint: shop }"), ["14:3 the key eu-1 stands twice: first in line 13"]],
    ["a number where text is needed", withLine(14, "  us-1: { region: us, blueprint: shop, overrides: { version: 2 } }"), ["14:62 cells.us-1.overrides.version: expected text, found a number; put it in quotes"]],
    ["a missing field", withLine(13, "  eu-1: { region: eu }"), ["13:9 cells.eu-1.blueprint: is missing: text is needed"]],
    ["a region that is not there", withLine(13, "  eu-1: { region: ue, blueprint: shop }"), [
      "3:3 regions.eu: region eu has no cell: add one under `cells`, or say `spare: true` if it is meant to have none for now",
      "13:19 cells.eu-1.region: there is no region ue in this file; there is eu, us",
    ]],
    ["a blueprint that is not there", withLine(13, "  eu-1: { region: eu, blueprint: shpo }"), ["13:34 cells.eu-1.blueprint: there is no blueprint shpo in this file; there is shop"]],
    ["a region without cells", withLine(14, ""), ["4:3 regions.us: region us has no cell: add one under `cells`, or say `spare: true` if it is meant to have none for now"]],
    ["no port for the routers", withLine(10, "        ports: { metrics: auto }"), ["8:7 blueprints.shop.services: no service has a port named http, so routers could not reach the cell: add `ports: { http: auto }` to one"]],
    ["a port that is none", withLine(10, "        ports: { http: 70000 }"), ["10:24 blueprints.shop.services.app.ports.http: must be at most 65535"]],
    ["a capacity below nothing", withLine(11, "    capacity: { tenants: -1 }"), ["11:26 blueprints.shop.capacity.tenants: must be at least 0"]],
    ["an unknown dimension", withLine(11, "    capacity: { tenant: 1 }"), [expect.stringMatching(/^11:17 .*unknown field tenant; did you mean tenants\?/)]],
    ["an unknown strategy", `${good}placement: { strategy: sharded }\n`, ["15:24 placement.strategy: expected shared or cell-per-tenant or one-cell"]],
    ["one cell per customer, from nothing", `${good}placement: { strategy: cell-per-tenant }\n`, ["15:24 placement.strategy: cell-per-tenant has to know what a tenant's cell is made from: add `blueprint: <name>` beside it"]],
    ["an unknown rule", `${good}routing: { identify: [{ by: cookie }] }\n`, [expect.stringMatching(/^15:29 routing\.identify\.0\.by: expected/)]],
    ["no rule at all", `${good}routing: { identify: [] }\n`, [expect.stringMatching(/^15:22 routing\.identify: /)]],
    ["a key that is no text", withLine(13, "  ? [eu-1, eu-2]\n  : { region: eu, blueprint: shop }"), [expect.stringMatching(/^13:5 .*keys must be strings/)]],
  ] as const)("%s", (_, text, issues) => {
    expect(issuesOf(text)).toEqual(issues);
  });
});

test("F1: an issue within an alias is shown where it is written", () => {
  const text = good.replace("capacity: { tenants: 100 }", "capacity: &few { tenants: none }").replace("overrides: { version: \"2\" }", "overrides: { capacity: *few }");
  expect(issuesOf(text)).toEqual(["11:31 blueprints.shop.capacity.tenants: expected a number, found text"]);
});

describe("F2: whatever a file holds, it is judged in bounded time", () => {
  const cellsFile = (cells: number): string => `${good}${Array.from({ length: cells }, (_, i) => `  c-${i}: { region: eu, blueprint: shop }\n`).join("")}`;
  test.each([
    ["nested lists", "[".repeat(100_000), /nested deeper than 64 levels/],
    ["nested fields", "{a: ".repeat(100_000), /nested deeper than 64 levels/],
    ["compact sequences", "- ".repeat(50_000), /nested deeper than 64 levels/],
    ["a billion laughs", `a: &a [x, x, x, x, x, x, x, x, x, x]\n${[..."bcdefghij"].map((name, i) => `${name}: &${name} [${Array(10).fill(`*${"abcdefghij"[i]}`).join(", ")}]`).join("\n")}`, /aliases refer to aliases too often/],
    ["an alias of itself", "fleet: &a [*a]", /more than 200000 values/],
    ["many wide aliases", `a: &a [${"1,".repeat(5000)}1]\nb: [${"*a,".repeat(90)}*a]`, /more than 200000 values/],
    ["too many values", `a: [${"1,".repeat(300_000)}1]`, /more than a fleet could need/],
    ["too large", "#".repeat(bytesMax + 1), /larger than 1048576 bytes/],
    ["many unknown fields", Array.from({ length: 10_000 }, (_, i) => `k${i}: 1\n`).join(""), /unknown field k0/],
    ["a key that stands twice, late", `${cellsFile(2000)}  c-1: {}\n`, /the key c-1 stands twice: first in line 16/],
  ])("%s", (_, text, message) => {
    const before = process.cpuUsage();
    expect(issuesOf(text).join("\n")).toMatch(message);
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1000, "ms of CPU").toBeLessThan(3000);
  });

  test("ten thousand cells are read", () => {
    expect(Object.keys(parseFleet(cellsFile(10_000), "cellplane.yaml").fleet.cells)).toHaveLength(10_002);
  });

  test("any text is a fleet or has issues, and nothing else comes of it", () => {
    const line = fc.constantFrom(...good.split("\n"), "  - a", "x: &x 1", "y: *x", "{", "]", "? b", "--- ", "%YAML 1.1", "__proto__: { a: 1 }", "<<: *x", "\u0000", "'");
    fc.assert(fc.property(fc.array(line, { maxLength: 25 }), (lines) => issuesOf(lines.join("\n")).every((issue) => /^\d+:\d+ ./.test(issue))), { numRuns: 300 });
    expect(({} as Record<string, unknown>)["a"]).toBeUndefined();
  });
});
