import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NewTenant, parseSelector, TenantKey } from "./model.ts";

const digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const isKey = (kind: string, value: unknown): boolean => TenantKey.safeParse({ kind, value }).success;

describe("keys", () => {
  test.each([
    ["host", "acme.example"], ["host", "localhost"], ["alias", "a-1.b.co"], ["host", "xn--mnchen-3ya.de"], ["host", `${"a".repeat(63)}.example`],
    ["header", "Acme_1"], ["header", "4711"], ["path", "~acme.v2"], ["apikey", digest],
  ])("T1: %s %s is a key", (kind, value) => expect(isKey(kind, value)).toBe(true));

  test.each([
    ["host", "Acme.example"], ["host", "acme.example."], ["host", "acme.example:80"], ["host", "127.0.0.1"], ["host", "[::1]"], ["host", "a..b"], ["host", "-a.example"], ["host", "a_b.example"],
    ["host", "*.acme.example"], ["host", "acmе.example"], ["host", "ａcme.example"], ["host", "münchen.de"], ["host", "acme.example\n"], ["host", "acme\u0000.example"], ["host", "acme.example/x"],
    ["host", `${"a".repeat(64)}.example`], ["host", `${"a.".repeat(130)}example`], ["host", ""], ["alias", "ACME"],
    ["header", "a b"], ["header", "a\r\nb"], ["header", "ä"], ["header", "a/b"], ["header", "a\u202eb"], ["header", "x".repeat(129)],
    ["path", "."], ["path", ".."], ["path", "a/b"], ["path", "a%2fb"], ["path", ""],
    ["apikey", "my-secret-key"], ["apikey", digest.toUpperCase()], ["apikey", digest.slice(1)], ["cookie", "x"], ["host", 5], ["host", null],
  ])("T1: %s %j is none", (kind, value) => expect(isKey(kind, value)).toBe(false));

  test("T1: whatever passes is ASCII and is matched as it was written", () => {
    fc.assert(
      fc.property(fc.constantFrom("host", "alias", "header", "path", "apikey"), fc.oneof(fc.string({ unit: "binary" }), fc.webPath(), fc.domain(), fc.string({ unit: fc.constantFrom("a", "A", ".", "-", "_", "é", "/", "\u200b") })), (kind, value) => {
        const parsed = TenantKey.safeParse({ kind, value });
        if (!parsed.success) return;
        expect(parsed.data.value).toBe(value);
        expect(value).toMatch(/^[\x21-\x7e]+$/);
      }),
      { numRuns: 500 },
    );
  });

  test("T1: a key stands once, and a host is an alias", () => {
    const twice = NewTenant.safeParse({ name: "a", keys: [{ kind: "host", value: "a.example" }, { kind: "header", value: "a.example" }, { kind: "alias", value: "a.example" }] });
    expect(twice.error?.issues).toMatchObject([{ path: ["keys", 2, "value"], message: "the key host:a.example stands twice" }]);
  });
});

describe("new tenants", () => {
  test.each([
    [{ name: "Acme" }, "name"], [{ name: "a.b" }, "name"], [{ name: "xn--a" }, "name"], [{ name: "ａcme" }, "name"], [{ name: "a".repeat(64) }, "name"], [{ name: "a\n" }, "name"], [{}, "name"],
    [{ name: "a", teir: "gold" }, ""], [{ name: "a", load: { tenants: 2 } }, "load"], [{ name: "a", load: { connections: -1 } }, "load.connections"], [{ name: "a", load: { diskBytes: 1 / 0 } }, "load.diskBytes"],
    [{ name: "a", labels: { "A b": "x" } }, "labels.A b"], [{ name: "a", labels: { x: 5 } }, "labels.x"], [{ name: "a", region: "EU" }, "region"], [{ name: "a", claims: [{ kind: "email", value: "nobody" }] }, "claims.0.value"],
  ])("%j is refused at %s", (input, path) => {
    const result = NewTenant.safeParse(input);
    expect(result.error?.issues.map((issue) => issue.path.join("."))).toContain(path);
  });
});

describe("selectors", () => {
  test("T6: a selector is a list of requirements", () => {
    expect(parseSelector("plan=free, stage!=trial,vip,!internal,a==b,empty=")).toEqual([
      { key: "plan", op: "=", value: "free" }, { key: "stage", op: "!=", value: "trial" }, { key: "vip", op: "present" }, { key: "internal", op: "absent" }, { key: "a", op: "=", value: "b" }, { key: "empty", op: "=", value: "" },
    ]);
  });
  test.each(["", ",", "a=b=c", "=x", "a b", "!", "!a=b", "a=b,,c", "A=b"])("T6: %j is none", (text) => expect(parseSelector(text)).toBeNull());
});
