import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
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
  /** Passed by an update that does not get ready, once it goes back. */
  revertPoints: string[];
  destroyPoints: string[];
  /** Lets another process do it, which is killed at the point. @returns whether it was */
  killedAt: (point: string, work: { apply: CellPlan } | { destroy: string; purge: boolean }, context: Pick<DriverContext, "opKey" | "epoch">) => Promise<boolean>;
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
    let turn = 0;
    const signal = new AbortController().signal;
    /** As the control plane gives them: each operation has a key of its own and a higher epoch than the ones before. */
    const context = (more: Partial<DriverContext> = {}): DriverContext => ({ opKey: `op-${++turn}`, epoch: turn, signal, log: () => undefined, ...more });
    const applyNow = async (spec: CellSpec, more: Partial<DriverContext> = {}) => rig.driver.apply(await rig.driver.plan(spec, signal), context(more));
    const version = async (cell: string): Promise<string | undefined> => (await rig.serves(cell))?.version;
    /** One cell serves the tests that need not make one, since making real ones takes its time. */
    const one = (change?: Partial<CellSpec>): CellSpec => rig.spec("one", change);

    const kill: (...how: Parameters<Rig["killedAt"]>) => Promise<void> = async (point, work, given) => {
      expect({ point, killed: await rig.killedAt(point, work, given) }).toEqual({ point, killed: true });
    };

    beforeAll(async () => {
      rig = await build();
      await applyNow(one());
    }, 120_000);
    beforeEach(async () => {
      await rig.driver.apply(await rig.driver.plan(one(), signal, { overwriteDrift: true }), context());
    });
    afterAll(() => rig?.close(), 120_000);

    test("D1: plan reads only, says what would change by path, and is the same for the same cell and spec", async () => {
      const spec = rig.spec("d1");
      const first = await rig.driver.plan(spec, signal);
      expect(await rig.driver.plan(spec, signal)).toEqual(first);
      expect(first).toMatchObject({ baseObserved: null, restarts: false, spec });
      expect(await rig.driver.observe("d1", signal)).toMatchObject({ exists: false, observedHash: null });
      expect(await rig.driver.endpoints("d1")).toBeNull();
      expect((await rig.driver.plan(one(), signal)).changes).toEqual([]);
      const next = await rig.driver.plan(one({ version: "2" }), signal);
      expect(next).toMatchObject({ changes: [{ path: "version", from: "1", to: "2" }], restarts: true });
      expect(next.hash).not.toBe((await rig.driver.plan(one(), signal)).hash);
    });

    test("D2: applied twice is applied once, by the same key or another", async () => {
      const plan = await rig.driver.plan(one({ version: "2" }), signal);
      const key = context();
      const observed = await rig.driver.apply(plan, key);
      expect(observed).toMatchObject({ exists: true, version: "2", drift: [] });
      const answer = await rig.serves("one");
      expect(answer).toMatchObject({ version: "2" });
      // The plan is stale by now, but the key says that it was this one.
      expect(await rig.driver.apply(plan, key)).toEqual(observed);
      expect(await applyNow(one({ version: "2" }))).toEqual(observed);
      expect(await rig.serves("one")).toEqual(answer);
      expect((await rig.driver.health("one", signal)).filter((check) => !check.ok)).toEqual([]);
    });

    test("D2: an update changes what is served and keeps the endpoint", async () => {
      const endpoint = (await rig.driver.endpoints("one"))?.http;
      await applyNow(one({ version: "2", config: { greeting: "hello" } }));
      expect(await rig.serves("one")).toMatchObject({ version: "2", config: { greeting: "hello" } });
      expect((await rig.driver.endpoints("one"))?.http).toBe(endpoint);
    });

    test("D2: killed at each point of an apply, the same call again goes on", async () => {
      const plan = await rig.driver.plan(rig.spec("d2"), signal);
      const key = context();
      for (const point of rig.applyPoints) await kill(point, { apply: plan }, key);
      expect(await rig.driver.apply(plan, key)).toMatchObject({ exists: true, drift: [], version: "1" });
      const update = await rig.driver.plan(rig.spec("d2", { version: "2", config: { next: true } }), signal);
      const updateKey = context();
      for (const point of rig.applyPoints) {
        await kill(point, { apply: update }, updateKey);
        // Half done is not drift: each thing is rightly the former or the next one.
        expect({ point, drift: (await rig.driver.observe("d2", signal)).drift }).toEqual({ point, drift: [] });
      }
      expect(await rig.driver.apply(update, updateKey)).toMatchObject({ drift: [], version: "2" });
      expect(await rig.serves("d2")).toMatchObject({ version: "2", config: { next: true } });
    }, 120_000);

    test("D2: killed in an apply that is given up, another operation takes the cell over from any point", async () => {
      for (const [i, point] of rig.applyPoints.entries()) {
        await kill(point, { apply: await rig.driver.plan(one({ version: `given up ${i}`, config: { i } }), signal) }, context());
        await applyNow(one({ version: `taken over ${i}` }));
        expect({ point, version: await version("one") }).toEqual({ point, version: `taken over ${i}` });
        expect({ point, drift: (await rig.driver.observe("one", signal)).drift }).toEqual({ point, drift: [] });
      }
    }, 120_000);

    test("D3: a stale plan is refused", async () => {
      const stale = await rig.driver.plan(one({ version: "2" }), signal);
      await applyNow(one({ version: "3" }));
      await expect(rig.driver.apply(stale, context())).rejects.toMatchObject({ code: "plan_stale" });
      expect(await version("one")).toBe("3");
    });

    test("D4: a lower epoch is refused, for apply and destroy", async () => {
      const { epoch } = context();
      await applyNow(one());
      await expect(applyNow(one({ version: "2" }), { epoch })).rejects.toMatchObject({ code: "fenced", data: { cell: "one", epoch, seen: epoch + 1 } });
      await expect(rig.driver.destroy("one", context({ epoch }), { purge: true })).rejects.toMatchObject({ code: "fenced" });
      expect(await version("one")).toBe("1");
    });

    test("D5: a foreign change is found, shown and kept; overwritten only when told to", async () => {
      const path = await rig.edit("one");
      const { drift } = await rig.driver.observe("one", signal);
      expect(drift.map((field) => field.path)).toContain(path);
      const next = one({ version: "2" });
      await expect(applyNow(next)).rejects.toMatchObject({ code: "cell_drifted", data: { paths: drift.map((field) => field.path) } });
      expect((await rig.driver.observe("one", signal)).drift).toEqual(drift);
      expect(await version("one")).toBe("1");
      const overwriting = await rig.driver.plan(next, signal, { overwriteDrift: true });
      expect(overwriting.changes.map((change) => change.path)).toContain(path);
      expect(await rig.driver.apply(overwriting, context())).toMatchObject({ drift: [], version: "2" });
      expect(await version("one")).toBe("2");
    });

    test("D6: an update that does not get ready leaves the former cell running, says why, and says it again", async () => {
      const plan = await rig.driver.plan(rig.broken(one({ version: "2" })), signal);
      const again = context();
      await expect(rig.driver.apply(plan, again)).rejects.toMatchObject({ code: "update_reverted" });
      expect(await version("one")).toBe("1");
      await expect(rig.driver.apply(plan, again)).rejects.toMatchObject({ code: "update_reverted" });
      expect(await rig.driver.observe("one", signal)).toMatchObject({ drift: [], version: "1" });
      expect((await rig.driver.plan(one(), signal)).changes).toEqual([]);
    });

    test("D6: killed at each point on the way back, the same call again arrives there", async () => {
      const plan = await rig.driver.plan(rig.broken(one({ version: "2" })), signal);
      const again = context();
      for (const point of rig.revertPoints) {
        await kill(point, { apply: plan }, again);
        expect({ point, drift: (await rig.driver.observe("one", signal)).drift }).toEqual({ point, drift: [] });
      }
      await expect(rig.driver.apply(plan, again)).rejects.toMatchObject({ code: "update_reverted" });
      expect(await version("one")).toBe("1");
    }, 120_000);

    test("D6: a new cell that does not get ready fails, and can be corrected", async () => {
      await expect(applyNow(rig.broken(rig.spec("d6")))).rejects.toMatchObject({ code: "cell_not_healthy" });
      await applyNow(rig.spec("d6"));
      expect(await version("d6")).toBe("1");
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

    test("D7: killed at each point of a destroy, it ends when called again", async () => {
      await applyNow(rig.spec("d7b"));
      const key = context();
      for (const point of rig.destroyPoints) await kill(point, { destroy: "d7b", purge: true }, key);
      await rig.driver.destroy("d7b", key, { purge: true });
      expect(await rig.leftovers("d7b")).toEqual([]);
    }, 120_000);

    test("D8: an aborted apply ends soon and goes on when it is called again", async () => {
      const plan = await rig.driver.plan(rig.spec("d8"), signal);
      const key = context();
      await expect(rig.driver.apply(plan, { ...key, signal: AbortSignal.abort(new Error("given up")) })).rejects.toThrow("given up");
      const abort = new AbortController();
      await expect(rig.driver.apply(plan, { ...key, signal: abort.signal, log: () => abort.abort(new Error("too late")) })).rejects.toThrow("too late");
      await rig.driver.apply(plan, key);
      expect(await version("d8")).toBe("1");
    });

    test("D9: many cells are made at once, each with an endpoint of its own", async () => {
      const cells = Array.from({ length: rig.parallel }, (_, i) => `d9-${i}`);
      await Promise.all(cells.map((cell) => applyNow(rig.spec(cell))));
      const endpoints = await Promise.all(cells.map((cell) => rig.driver.endpoints(cell)));
      expect(new Set(endpoints.map((endpoint) => endpoint?.http)).size).toBe(cells.length);
      for (const cell of cells) expect(await version(cell)).toBe("1");
    }, 120_000);
  });
}
