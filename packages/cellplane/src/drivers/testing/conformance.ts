import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CellSpec } from "../../cell/model.ts";
import type { CellDriver, CellPlan, DriverContext } from "../driver.ts";

/** What the kit needs to try a driver. */
export interface Rig {
  driver: CellDriver;
  /** A small cell that gets ready. */
  spec: (cell: string, change?: Partial<CellSpec>) => CellSpec;
  /** The same, but it never gets ready. */
  broken: (spec: CellSpec) => CellSpec;
  /** What a request to the cell is answered, with the version in it; null when it is not. */
  serves: (cell: string) => Promise<{ version: string; config: unknown } | null>;
  /** Changes something by a foreign hand. @returns the path it is reported under */
  edit: (cell: string) => Promise<string>;
  applyPoints: string[];
  destroyPoints: string[];
  /** Lets another process do it, which is killed at the point. */
  killedAt: (point: string, work: { apply: CellPlan } | { destroy: string; purge: boolean }, context: Pick<DriverContext, "opKey" | "epoch">) => Promise<void>;
  /** Everything that is left of the cell and should not be, after it was destroyed with its data. */
  leftovers: (cell: string) => Promise<string[]>;
  /** How many cells it is to make at once. */
  parallel: number;
  close: () => Promise<void>;
}

/** What every driver promises (docs/drivers.md), tried on one. */
export function conformance(name: string, build: () => Promise<Rig>): void {
  describe(`${name} driver`, () => {
    let rig: Rig;
    let keys = 0;
    const signal = new AbortController().signal;
    const context = (more: Partial<DriverContext> = {}): DriverContext => ({ opKey: `op-${++keys}`, epoch: 1, signal, log: () => undefined, ...more });
    const applyNow = async (spec: CellSpec, more: Partial<DriverContext> = {}) => rig.driver.apply(await rig.driver.plan(spec, signal), context(more));
    const version = async (cell: string): Promise<string | undefined> => (await rig.serves(cell))?.version;

    beforeAll(async () => {
      rig = await build();
    }, 120_000);
    afterAll(() => rig?.close(), 120_000);

    test("D1: plan reads only, says what would change by path, and is the same for the same cell and spec", async () => {
      const spec = rig.spec("d1");
      const first = await rig.driver.plan(spec, signal);
      expect(await rig.driver.plan(spec, signal)).toEqual(first);
      expect(first).toMatchObject({ baseObserved: null, restarts: false, spec });
      expect(await rig.driver.observe("d1", signal)).toMatchObject({ exists: false, observedHash: null });
      expect(await rig.driver.endpoints("d1")).toBeNull();
      await applyNow(spec);
      expect((await rig.driver.plan(spec, signal)).changes).toEqual([]);
      const next = await rig.driver.plan(rig.spec("d1", { version: "2" }), signal);
      expect(next).toMatchObject({ changes: [{ path: "version", from: "1", to: "2" }], restarts: true });
      expect(next.hash).not.toBe(first.hash);
    });

    test("D2: applied twice is applied once, by the same key or another", async () => {
      const plan = await rig.driver.plan(rig.spec("d2"), signal);
      const observed = await rig.driver.apply(plan, context({ opKey: "d2" }));
      expect(observed).toMatchObject({ exists: true, version: "1", drift: [] });
      const answer = await rig.serves("d2");
      expect(answer).not.toBeNull();
      // The plan is stale by now, but the key says that it was this one.
      expect(await rig.driver.apply(plan, context({ opKey: "d2" }))).toEqual(observed);
      expect(await applyNow(rig.spec("d2"))).toEqual(observed);
      expect(await rig.serves("d2")).toEqual(answer);
      expect((await rig.driver.health("d2", signal)).filter((check) => !check.ok)).toEqual([]);
    });

    test("D2: an update changes what is served and keeps the endpoint", async () => {
      await applyNow(rig.spec("d2b"));
      const endpoint = (await rig.driver.endpoints("d2b"))?.http;
      await applyNow(rig.spec("d2b", { version: "2", config: { greeting: "hello" } }));
      expect(await rig.serves("d2b")).toMatchObject({ version: "2", config: { greeting: "hello" } });
      expect((await rig.driver.endpoints("d2b"))?.http).toBe(endpoint);
    });

    test("D3: a stale plan is refused", async () => {
      await applyNow(rig.spec("d3"));
      const stale = await rig.driver.plan(rig.spec("d3", { version: "2" }), signal);
      await applyNow(rig.spec("d3", { version: "3" }));
      await expect(rig.driver.apply(stale, context())).rejects.toMatchObject({ code: "plan_stale" });
      expect(await version("d3")).toBe("3");
    });

    test("D4: a lower epoch is refused, for apply and destroy", async () => {
      await applyNow(rig.spec("d4"), { epoch: 5 });
      await expect(applyNow(rig.spec("d4", { version: "2" }), { epoch: 4 })).rejects.toMatchObject({ code: "fenced", data: { cell: "d4", epoch: 4, seen: 5 } });
      await expect(rig.driver.destroy("d4", context({ epoch: 4 }), { purge: true })).rejects.toMatchObject({ code: "fenced" });
      expect(await version("d4")).toBe("1");
    });

    test("D5: a foreign change is found, shown and kept; overwritten only when told to", async () => {
      await applyNow(rig.spec("d5"));
      const path = await rig.edit("d5");
      const { drift } = await rig.driver.observe("d5", signal);
      expect(drift.map((field) => field.path)).toContain(path);
      const next = rig.spec("d5", { version: "2" });
      await expect(applyNow(next)).rejects.toMatchObject({ code: "cell_drifted", data: { paths: drift.map((field) => field.path) } });
      expect((await rig.driver.observe("d5", signal)).drift).toEqual(drift);
      expect(await version("d5")).toBe("1");
      const overwriting = await rig.driver.plan(next, signal, { overwriteDrift: true });
      expect(overwriting.changes.map((change) => change.path)).toContain(path);
      expect(await rig.driver.apply(overwriting, context())).toMatchObject({ drift: [], version: "2" });
      expect(await version("d5")).toBe("2");
    });

    test("D6: an update that does not get ready leaves the former cell running, says why, and says it again", async () => {
      const good = rig.spec("d6");
      await applyNow(good);
      const plan = await rig.driver.plan(rig.broken(rig.spec("d6", { version: "2" })), signal);
      const again = context({ opKey: "d6" });
      await expect(rig.driver.apply(plan, again)).rejects.toMatchObject({ code: "update_reverted" });
      expect(await version("d6")).toBe("1");
      await expect(rig.driver.apply(plan, again)).rejects.toMatchObject({ code: "update_reverted" });
      expect(await rig.driver.observe("d6", signal)).toMatchObject({ drift: [], version: "1" });
      expect((await rig.driver.plan(good, signal)).changes).toEqual([]);
    });

    test("D6: a new cell that does not get ready fails, and can be corrected or taken away", async () => {
      await expect(applyNow(rig.broken(rig.spec("d6b")))).rejects.toMatchObject({ code: "cell_not_healthy" });
      await applyNow(rig.spec("d6b"));
      expect(await version("d6b")).toBe("1");
    });

    test("D7: destroy keeps the data and the name unless told to purge, and is harmless the second time", async () => {
      await applyNow(rig.spec("d7"));
      for (let i = 0; i < 2; i++) await rig.driver.destroy("d7", context(), { purge: false });
      expect(await rig.driver.observe("d7", signal)).toMatchObject({ exists: false });
      expect(await rig.serves("d7")).toBeNull();
      await expect(applyNow(rig.spec("d7"))).rejects.toMatchObject({ code: "cell_name_kept" });
      for (let i = 0; i < 2; i++) await rig.driver.destroy("d7", context(), { purge: true });
      expect(await rig.leftovers("d7")).toEqual([]);
      await applyNow(rig.spec("d7"));
      expect(await version("d7")).toBe("1");
      await rig.driver.destroy("never-there", context(), { purge: true });
    });

    test("D8: an aborted apply ends soon and goes on when it is called again", async () => {
      const plan = await rig.driver.plan(rig.spec("d8"), signal);
      await expect(rig.driver.apply(plan, context({ signal: AbortSignal.abort(new Error("given up")) }))).rejects.toThrow("given up");
      const abort = new AbortController();
      const applying = rig.driver.apply(plan, context({ opKey: "d8", signal: abort.signal, log: () => abort.abort(new Error("too late")) }));
      await expect(applying).rejects.toThrow("too late");
      await rig.driver.apply(plan, context({ opKey: "d8" }));
      expect(await version("d8")).toBe("1");
    });

    test("D2: killed at each point of an apply, the same call again goes on", async () => {
      for (const point of rig.applyPoints) {
        const cell = `k-${point.replaceAll(".", "-")}`;
        const plan = await rig.driver.plan(rig.spec(cell), signal);
        const key = { opKey: cell, epoch: 1 };
        await rig.killedAt(point, { apply: plan }, key);
        expect(await rig.driver.apply(plan, context(key)), point).toMatchObject({ exists: true, drift: [], version: "1" });
        // Killed in an update, the former version or the next is served, and then surely the next.
        const update = await rig.driver.plan(rig.spec(cell, { version: "2", config: { next: true } }), signal);
        const updateKey = { opKey: `${cell}-update`, epoch: 2 };
        await rig.killedAt(point, { apply: update }, updateKey);
        expect((await rig.driver.observe(cell, signal)).drift, point).toEqual([]);
        expect(await rig.driver.apply(update, context(updateKey)), point).toMatchObject({ drift: [], version: "2" });
        expect(await rig.serves(cell), point).toMatchObject({ version: "2", config: { next: true } });
        await rig.driver.destroy(cell, context({ epoch: 3 }), { purge: true });
      }
    }, 300_000);

    test("D2: killed in an apply and given up, another operation takes the cell over", async () => {
      const middle = rig.applyPoints[Math.floor(rig.applyPoints.length / 2)] ?? "";
      await applyNow(rig.spec("d9"));
      await rig.killedAt(middle, { apply: await rig.driver.plan(rig.spec("d9", { version: "2" }), signal) }, { opKey: "d9", epoch: 2 });
      await applyNow(rig.spec("d9", { version: "3" }), { epoch: 3 });
      expect(await version("d9")).toBe("3");
      expect((await rig.driver.observe("d9", signal)).drift).toEqual([]);
    });

    test("D7: killed at each point of a destroy, it ends when called again", async () => {
      for (const point of rig.destroyPoints) {
        const cell = `k-${point.replaceAll(".", "-")}`;
        await applyNow(rig.spec(cell));
        await rig.killedAt(point, { destroy: cell, purge: true }, { opKey: cell, epoch: 2 });
        await rig.driver.destroy(cell, context({ opKey: cell, epoch: 2 }), { purge: true });
        expect(await rig.leftovers(cell), point).toEqual([]);
      }
    }, 120_000);

    test("D9: many cells are made at once, each with an endpoint of its own", async () => {
      const cells = Array.from({ length: rig.parallel }, (_, i) => `p-${i}`);
      await Promise.all(cells.map((cell) => applyNow(rig.spec(cell))));
      const endpoints = await Promise.all(cells.map((cell) => rig.driver.endpoints(cell)));
      expect(new Set(endpoints.map((endpoint) => endpoint?.http)).size).toBe(cells.length);
      for (const cell of cells) expect(await version(cell)).toBe("1");
      await sleep(0);
    }, 120_000);
  });
}
