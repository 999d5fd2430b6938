import { describe, expect, test } from "vitest";
import { prng } from "../base/prng.ts";
import { readSnapshot, sealSnapshot } from "./snapshot.ts";
import { cellIndexOf, epochOf, packEntry, routeStates, stateOf } from "./model.ts";
import { RouteTable } from "./table.ts";
import { tableLines } from "./lines.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
const bytes = (text: string): Buffer => Buffer.from(text, "latin1");

/** The table driven by strings, beside the maps it must equal. */
function driven(expected = 0) {
  const table = new RouteTable(expected);
  const tenants = new Map<string, number>();
  const keys = new Map<string, string>();
  return {
    table, tenants, keys,
    tenant(name: string, entry: number) {
      table.setTenant(bytes(`..${name}..`), 2, 2 + name.length, entry);
      if (entry === 0) tenants.delete(name);
      else tenants.set(name, entry);
    },
    key(value: string, tenant: string) {
      table.setKey("host", bytes(value), 0, value.length, bytes(tenant), 0, tenant.length);
      keys.set(value, tenant);
    },
    keyGone(value: string) {
      table.removeKey("host", bytes(value), 0, value.length);
      keys.delete(value);
    },
    entry(space: "name" | "host", value: string) {
      const id = table.find(space, bytes(value), 0, value.length);
      return id < 0 ? null : { name: table.nameOf(id), entry: table.entryOf(id) };
    },
    expected(space: "name" | "host", value: string) {
      const name = space === "name" ? value : keys.get(value);
      const entry = name === undefined ? undefined : tenants.get(name);
      return entry === undefined ? null : { name, entry };
    },
  };
}

describe("R3: the table is exact", () => {
  test(`through growth, deletion and reuse it equals a map (SEED=${seed})`, () => {
    const random = prng(seed);
    const d = driven();
    const name = (): string => `tenant-${Math.floor(random() * 3000)}${"x".repeat(Math.floor(random() * 20))}`;
    const host = (): string => `${name()}.example.com`;
    for (let i = 0; i < 120_000; i++) {
      const what = random();
      // Waves of growth and of shrinking.
      const shrinking = Math.floor(i / 20_000) % 2 === 1;
      if (what < 0.35) d.tenant(name(), shrinking ? 0 : packEntry(1 + Math.floor(random() * 65535), routeStates[Math.floor(random() * 4)] ?? "active", 1 + Math.floor(random() * (2 ** 32 - 1))));
      else if (what < 0.7 && !shrinking) d.key(host(), name());
      else if (what < 0.95) d.keyGone(host());
      else {
        const [n, h] = [name(), host()];
        expect(d.entry("name", n)).toEqual(d.expected("name", n));
        expect(d.entry("host", h)).toEqual(d.expected("host", h));
      }
    }
    for (const name of d.tenants.keys()) expect(d.entry("name", name)).toEqual(d.expected("name", name));
    for (const host of d.keys.keys()) expect(d.entry("host", host)).toEqual(d.expected("host", host));
    expect(d.table.tenants).toBe(d.tenants.size);
    expect(d.table.keys).toBe(d.keys.size);
    expect([...d.table.tenantIds()].map((id) => d.table.nameOf(id)).sort()).toEqual([...d.tenants.keys()].sort());
    expect([...d.table.keyList()].map((key) => `${key.value} ${key.tenant}`).sort()).toEqual([...d.keys].map((pair) => pair.join(" ")).sort());
  });

  test("a key left behind never names whoever gets its tenant's place", () => {
    const d = driven();
    d.tenant("acme", packEntry(1, "active", 1));
    d.key("acme.com", "acme");
    d.tenant("acme", 0);
    for (let i = 0; i < 100; i++) d.tenant(`other-${i}`, packEntry(2, "active", 1));
    expect(d.entry("host", "acme.com")).toBeNull();
    d.tenant("acme", packEntry(3, "active", 2));
    expect(d.entry("host", "acme.com")).toEqual({ name: "acme", entry: packEntry(3, "active", 2) });
  });

  test("a key may come before its tenant", () => {
    const d = driven();
    d.key("acme.com", "acme");
    expect(d.entry("host", "acme.com")).toBeNull();
    expect(d.entry("name", "acme")).toBeNull();
    d.tenant("acme", packEntry(1, "active", 1));
    expect(d.entry("host", "acme.com")?.name).toBe("acme");
  });

  test("a name is not a key and a key is not a name", () => {
    const d = driven();
    d.tenant("acme", packEntry(1, "active", 1));
    d.key("bolt", "acme");
    expect(d.entry("host", "acme")).toBeNull();
    expect(d.entry("name", "bolt")).toBeNull();
  });

  test("an entry keeps cell, state and epoch to the last bit", () => {
    for (const cell of [1, 2, 65535]) for (const state of routeStates) for (const epoch of [1, 2 ** 31, 2 ** 32 - 1]) {
      const entry = packEntry(cell, state, epoch);
      expect([cellIndexOf(entry), stateOf(entry), epochOf(entry)]).toEqual([cell, state, epoch]);
    }
  });

  test("100,000 tenants take at most 50 bytes each", () => {
    const d = driven(100_000);
    for (let i = 0; i < 100_000; i++) d.tenant(`tenant-${1_000_000 + i}`, packEntry(1, "active", 1));
    expect(d.table.byteLength() / 100_000).toBeLessThan(50);
  });
});

describe("R4: a snapshot is the table or nothing", () => {
  const position = { version: 12, digest: "ab".repeat(32) };
  const built = (() => {
    const d = driven();
    for (let i = 0; i < 500; i++) {
      d.tenant(`tenant-${i}`, packEntry(1 + (i % 3), "active", 1 + i));
      d.key(`www.tenant-${i}.com`, `tenant-${i}`);
    }
    d.table.setRules([{ by: "host", suffix: "example.com" }]);
    d.table.setCell({ index: 1, cell: "eu-1", endpoint: "127.0.0.1:80", state: "open" });
    return d.table;
  })();
  const sealed = async (key: string | null): Promise<Buffer> => {
    const parts: Buffer[] = [];
    for await (const part of sealSnapshot(position, 1000, tableLines(built), { key })) parts.push(part);
    return Buffer.concat(parts);
  };
  const sorted = (table: RouteTable): string[] => [...tableLines(table)].join("").split("\n").sort();
  async function* pieces(whole: Buffer, size: number): AsyncGenerator<Buffer> {
    for (let at = 0; at < whole.length; at += size) yield whole.subarray(at, at + size);
  }

  test.each([1, 7, 1000, 1e9])("reads back what was written, in pieces of %d bytes", async (size) => {
    const loaded = await readSnapshot(pieces(await sealed(null), size));
    expect(loaded).toMatchObject({ ...position, completeFrom: 12 });
    expect(sorted(loaded.table)).toEqual(sorted(built));
  });

  test(`a flipped, cut or added byte is noticed (SEED=${seed})`, async () => {
    const whole = await sealed("secret");
    await expect(readSnapshot(pieces(whole, 4096), "secret")).resolves.toMatchObject(position);
    await expect(readSnapshot(pieces(whole, 4096), "another secret")).rejects.toThrow("checksum");
    const random = prng(seed);
    for (let i = 0; i < 400; i++) {
      const at = Math.floor(random() * whole.length);
      const bad = Buffer.from(whole);
      bad[at] = (bad[at] ?? 0) ^ (1 << Math.floor(random() * 8));
      const cases = [bad, whole.subarray(0, at), Buffer.concat([whole.subarray(0, at), Buffer.from([Math.floor(random() * 256)]), whole.subarray(at)])];
      for (const each of cases) await expect(readSnapshot(pieces(each, 100_000), "secret")).rejects.toThrow();
    }
  });
});
