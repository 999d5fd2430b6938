import type { Cell } from "../../../cellplane/src/cell/model.ts";
import type { Operation } from "../../../cellplane/src/workflow/model.ts";

/** A healthy cell that is half full, in the region its name begins with; the test says what is otherwise. */
export function cell(patch: Partial<Cell> & Pick<Cell, "name">): Cell {
  return {
    region: patch.name.replace(/-\d+$/, ""), blueprint: "shop", class: "shared", driver: "local", origin: "fleet", index: 1, state: "active", generation: 1, version: "1.4.2",
    capacity: { tenants: 200, connections: 100, diskBytes: 20 * 2 ** 30 }, used: { tenants: 84, connections: 31, diskBytes: 6.2 * 2 ** 30 }, labels: {},
    health: { ok: true, checks: [{ name: "service/app", ok: true, detail: "" }, { name: "database", ok: true, detail: "" }], observedAt: "2026-01-02T03:04:05.000Z" },
    drift: [], overrides: {}, endpoint: "127.0.0.1:4101", operation: null, createdAt: "2026-01-02T03:04:05.000Z", ...patch,
  };
}

/** The health of a cell whose app is gone. */
export const brokenHealth: Cell["health"] = {
  ok: false, observedAt: "2026-01-02T03:04:05.000Z",
  checks: [{ name: "service/app", ok: false, detail: "connection refused" }, { name: "database", ok: true, detail: "" }],
};

export function operation(patch: Partial<Operation> & Pick<Operation, "id" | "workflow" | "subject">): Operation {
  return {
    version: 1, state: "succeeded", step: null, ratio: 1, message: "", waitsFor: null, asked: null, error: null, result: null, parent: null,
    createdAt: "2026-01-02T03:04:05.000Z", finishedAt: "2026-01-02T03:05:05.000Z", ...patch,
  };
}
