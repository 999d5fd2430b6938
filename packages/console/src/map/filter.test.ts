import { describe, expect, test } from "vitest";
import { brokenHealth, cell } from "../testing/cell.ts";
import { shade } from "./colour.ts";
import { parseFilter, toggleTerm } from "./filter.ts";

const cells = [
  cell({ name: "eu-1", labels: { team: "core" } }), cell({ name: "eu-2", health: brokenHealth, version: "1.5.0" }), cell({ name: "us-1", state: "cordoned", used: { tenants: 188 } }),
  cell({ name: "us-2", class: "dedicated", capacity: {}, drift: [{ path: "config" }] }),
];
const found = (filter: string) => cells.filter(parseFilter(filter)).map(({ name }) => name);

describe("the filter", () => {
  test.each([
    ["", ["eu-1", "eu-2", "us-1", "us-2"]], ["EU", ["eu-1", "eu-2"]], ["eu 1.5", ["eu-2"]], ["status:down", ["eu-2"]], ["status:down status:cordoned", ["eu-2", "us-1"]],
    ["region:us class:shared", ["us-1"]], ["load:90-", ["us-1"]], ["load:25-50", ["eu-1", "eu-2"]], ["load:none", ["us-2"]], ["drift:yes", ["us-2"]], ["drift:no region:us", ["us-1"]],
    ["label:team", ["eu-1"]], ["label:team=core", ["eu-1"]], ["team=core", ["eu-1"]], ["nothing:such", []], ["load:abc", []],
  ])("%s", (filter, expected) => expect(found(filter)).toEqual(expected));

  test("a term is added, and taken out again", () => {
    expect(toggleTerm("eu", "status:down")).toBe("eu status:down");
    expect(toggleTerm("eu status:down", "status:down")).toBe("eu");
  });
});

describe.each(["status", "load", "version", "class"] as const)("C3: the legend by %s", (by) => {
  const { legend, tokenOf } = shade(cells, by);

  test("counts every cell once, and each of its terms finds exactly those it counts", () => {
    expect(legend.reduce((sum, one) => sum + one.count, 0)).toBe(cells.length);
    for (const { term, count, token } of legend) {
      const matching = cells.filter(parseFilter(term));
      expect(matching).toHaveLength(count);
      expect(new Set(matching.map(tokenOf))).toEqual(new Set([token]));
    }
  });
});
