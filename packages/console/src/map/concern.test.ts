import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { brokenHealth, cell, operation } from "../testing/cell.ts";
import { concernsOf, type FleetFacts } from "./concern.ts";
import { parseFilter } from "./filter.ts";

const nowMs = Date.parse("2026-01-02T03:04:20.000Z");
const concerns = (facts: Partial<FleetFacts>) => concernsOf({ cells: [], operations: [], events: [], nowMs, ...facts });
const said = (facts: Partial<FleetFacts>) => concerns(facts).map(({ subject, text }) => `${subject} ${text}`);

describe("C9: what needs attention", () => {
  test("nothing, when all is well", () => expect(concerns({ cells: [cell({ name: "eu-1" })], operations: [operation({ id: "op-1", workflow: "cell.create", subject: "cell/eu-1" })] })).toEqual([]));

  test("worst first", () => {
    const cells = [
      cell({ name: "eu-1", drift: [{ path: "config.a" }] }), cell({ name: "eu-2", used: { tenants: 190 } }), cell({ name: "eu-3", health: brokenHealth }), cell({ name: "us-1", state: "failed" }),
      cell({ name: "us-2", health: { ...brokenHealth, ok: true, observedAt: "2026-01-02T03:02:00.000Z" } }), cell({ name: "us-3", state: "cordoned", health: brokenHealth }),
    ];
    expect(said({ cells, operations: [operation({ id: "op-1", workflow: "cell.update", subject: "cell/eu-1", state: "failed", error: { code: "x", message: "not ready", fix: "" } })] })).toEqual([
      "eu-3 is down: service/app, connection refused", "us-3 is down: service/app, connection refused", "us-1 could not be made", "eu-1 cell.update failed: not ready",
      "eu-2 is at 95 % of its tenants", "us-2 is no longer looked at", "eu-1 differs from its spec in 1 place",
    ]);
  });

  test("since when, as the latest event tells", () => {
    const events = [{ kind: "cell.health", subject: "cell/eu-1", at: "2026-01-02T03:04:10.000Z" }, { kind: "cell.health", subject: "cell/eu-1", at: "2026-01-02T02:00:00.000Z" }];
    expect(concerns({ cells: [cell({ name: "eu-1", health: brokenHealth })], events })[0]?.at).toBe("2026-01-02T03:04:10.000Z");
  });

  test("a failed operation leaves when a later one of its kind succeeded, not when another kind did", () => {
    const failed = operation({ id: "op-1", workflow: "cell.update", subject: "cell/eu-1", state: "failed", createdAt: "2026-01-02T03:00:00.000Z" });
    const later = { subject: "cell/eu-1", createdAt: "2026-01-02T03:01:00.000Z" };
    expect(concerns({ operations: [failed] })).toHaveLength(1);
    expect(concerns({ operations: [operation({ id: "op-2", workflow: "cell.update", ...later }), failed] })).toHaveLength(0);
    expect(concerns({ operations: [operation({ id: "op-2", workflow: "cell.drain", ...later }), failed] })).toHaveLength(1);
  });

  test("many of one region are one line, whose filter shows exactly them", () => {
    const cells = [...Array.from({ length: 5 }, (_, i) => cell({ name: `eu-${i}`, health: brokenHealth })), cell({ name: "us-1", health: brokenHealth }), cell({ name: "eu-9" })];
    const [eu, us] = concerns({ cells });
    expect([eu?.subject, us?.subject]).toEqual(["5 cells in eu", "us-1"]);
    expect(cells.filter(parseFilter(eu?.filter ?? "")).map(({ name }) => name)).toEqual(eu?.cells);
  });

  test("nothing is hidden: every cell that is down is in some line", () => {
    const fleet = fc.array(fc.tuple(fc.constantFrom("eu", "us", "ap"), fc.boolean()), { maxLength: 40 }).map((all) => all.map(([region, ok], i) => cell({ name: `${region}-${i}`, ...(ok ? {} : { health: brokenHealth }) })));
    fc.assert(
      fc.property(fleet, (cells) => {
        const down = new Set(concerns({ cells }).flatMap((concern) => (concern.kind === "down" ? concern.cells : [])));
        expect(down).toEqual(new Set(cells.filter((one) => one.health.ok === false).map(({ name }) => name)));
      }),
    );
  });
});
