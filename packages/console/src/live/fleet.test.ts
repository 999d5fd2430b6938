import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { cell } from "../testing/cell.ts";
import { Refused, type Client } from "./client.ts";
import { eventOf, liveFleet, touchedBy } from "./fleet.ts";

describe("C2: what an event makes stale", () => {
  const stale = (kind: string, subject: string, data: Record<string, string> = {}) => touchedBy({ kind, subject, data });

  test.each([
    ["cell.health", "cell/eu-1", {}, { cells: ["eu-1"], operations: false, all: false }],
    ["tenant.created", "tenant/acme", { cell: "eu-1" }, { cells: ["eu-1"], operations: false, all: false }],
    ["operation.state", "operation/op-1", { subject: "cell/eu-2" }, { cells: ["eu-2"], operations: true, all: false }],
    ["operation.state", "operation/op-1", {}, { cells: [], operations: true, all: false }],
    ["something.new", "thing/1", {}, { cells: [], operations: false, all: true }],
  ] as const)("%s on %s", (kind, subject, data, expected) => expect(stale(kind, subject, data)).toEqual(expected));

  test("what is no event is none", () => {
    expect(eventOf("1", "message", "not json")).toBeNull();
    expect(eventOf("1", "message", "{}")).toBeNull();
    expect(eventOf("1", "cell.state", `{"subject":"cell/a"}`)).toEqual({ cursor: "1", kind: "cell.state", subject: "cell/a", at: "", data: {} });
  });
});

describe("the picture of the fleet", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function started() {
    const cells = new Map([["eu-1", cell({ name: "eu-1" })], ["eu-2", cell({ name: "eu-2" })]]);
    const asked: string[] = [];
    let push: ((text: string) => void) | null = null;
    let refusal: Refused | null = null;
    const client: Client = {
      get: async <T>(path: string): Promise<T> => {
        asked.push(path);
        if (refusal) throw refusal;
        const name = /^v1\/cells\/(.+)$/.exec(path)?.[1];
        const one = name === undefined ? undefined : cells.get(name);
        if (name !== undefined && !one) throw new Refused({ status: 404, code: "not_found", message: "", fix: "", trace: null });
        return (one ?? (path === "v1/cells" ? { items: [...cells.values()], nextCursor: null } : { items: [] })) as T;
      },
      post: () => Promise.reject(new Error("not asked for")),
      stream: async () => new ReadableStream({ start: (controller) => void (push = (text) => controller.enqueue(new TextEncoder().encode(text))) }),
    };
    const expired = vi.fn<() => void>();
    const fleet = liveFleet(client, { expired });
    const event = (id: number, subject: string): void => push?.(`id: 1.${id}\ndata: ${JSON.stringify({ kind: "cell.state", subject, at: "", data: {} })}\n\n`);
    return { fleet, cells, asked, event, expired, refuse: (status: number | null) => void (refusal = status === null ? null : new Refused({ status, code: "x", message: "", fix: "", trace: null })) };
  }
  const settle = (ms = 300) => vi.advanceTimersByTimeAsync(ms);

  test("is read once when the stream is open, then cell by cell as events come", async () => {
    const { fleet, cells, asked, event } = started();
    await settle();
    expect(fleet.get()).toMatchObject({ phase: "ready", link: { state: "live" } });
    expect([...fleet.get().cells.keys()]).toEqual(["eu-1", "eu-2"]);
    expect(asked.filter((path) => path === "v1/cells")).toHaveLength(1);
    cells.set("eu-1", cell({ name: "eu-1", state: "cordoned" }));
    cells.delete("eu-2");
    event(1, "cell/eu-1");
    event(2, "cell/eu-2");
    await settle(500);
    expect([...fleet.get().cells.values()].map(({ name, state }) => [name, state])).toEqual([["eu-1", "cordoned"]]);
    expect(asked.filter((path) => path === "v1/cells")).toHaveLength(1);
    fleet.stop();
  });

  test("a burst of events is one list, not a call for each", async () => {
    const { fleet, cells, asked, event } = started();
    await settle();
    for (let i = 0; i < 50; i++) {
      cells.set(`new-${i}`, cell({ name: `new-${i}` }));
      event(i + 1, `cell/new-${i}`);
    }
    await settle(1500);
    expect(fleet.get().cells.size).toBe(52);
    expect(asked.filter((path) => path === "v1/cells")).toHaveLength(2);
    expect(asked.filter((path) => path.startsWith("v1/cells/")).length).toBeLessThanOrEqual(8);
    fleet.stop();
  });

  test("C10: a refusal is told, tried again, and forgotten when it is over", async () => {
    const { fleet, refuse } = started();
    refuse(503);
    await settle();
    expect(fleet.get()).toMatchObject({ phase: "failed", problem: { status: 503 } });
    refuse(null);
    await settle(3000);
    expect(fleet.get()).toMatchObject({ phase: "ready", problem: null });
    fleet.stop();
  });

  test("a token that is no longer accepted ends the session", async () => {
    const { fleet, refuse, expired } = started();
    refuse(401);
    await settle();
    expect(expired).toHaveBeenCalledOnce();
    fleet.stop();
  });
});
