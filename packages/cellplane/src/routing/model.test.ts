import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decide, explain, identify, type IdentifyRule, type RouteChange } from "./model.ts";
import { headOf } from "./request.ts";
import { applied, changes, mapLookup, modelTable } from "./testing/model.ts";

describe("R1: one decision", () => {
  const fleet: RouteChange[] = [
    { kind: "cell", index: 1, cell: "eu-1", endpoint: "127.0.0.1:1", state: "open" },
    { kind: "cell", index: 2, cell: "eu-2", endpoint: "127.0.0.1:2", state: "closed" },
    { kind: "tenant", tenant: "acme", cellIndex: 1, state: "active", epoch: 7 },
    { kind: "tenant", tenant: "bolt", cellIndex: 2, state: "active", epoch: 1 },
    { kind: "tenant", tenant: "cyan", cellIndex: 1, state: "suspended", epoch: 1 },
    { kind: "tenant", tenant: "dune", cellIndex: 2, state: "hold", epoch: 3 },
    { kind: "tenant", tenant: "echo", cellIndex: 9, state: "active", epoch: 1 },
    { kind: "tenant", tenant: "flux", cellIndex: 1, state: "quarantined", epoch: 1 },
    { kind: "key", key: { kind: "host", value: "www.acme.com" }, tenant: "acme" },
    { kind: "key", key: { kind: "alias", value: "acme.org" }, tenant: "acme" },
    { kind: "key", key: { kind: "header", value: "A-1" }, tenant: "acme" },
    { kind: "key", key: { kind: "path", value: "a1" }, tenant: "acme" },
    // SHA-256 of "secret-key"
    { kind: "key", key: { kind: "apikey", value: "85dbe15d75ef9308c7ae0f33c7a324cc6f4bf519a2ed2f3027bd33c140a4f9aa" }, tenant: "acme" },
  ];
  const host: IdentifyRule = { by: "host", suffix: "example.com" };
  const header: IdentifyRule = { by: "header", header: "X-Tenant" };
  const path: IdentifyRule = { by: "path", prefix: "/t/", strip: true };
  const apikey: IdentifyRule = { by: "apikey", header: "authorization" };

  test.each<[string, IdentifyRule[], Parameters<typeof headOf>[0], string]>([
    ["name and suffix", [host], { host: "acme.example.com" }, "eu-1 7 active"],
    ["a deeper name is another name", [host], { host: "x.acme.example.com" }, "404 unknown_tenant"],
    ["the suffix alone", [host], { host: "example.com" }, "404 unknown_tenant"],
    ["a suffix without its dot", [host], { host: "acmeexample.com" }, "404 unknown_tenant"],
    ["host key", [host], { host: "www.acme.com" }, "eu-1 7 active"],
    ["alias", [host], { host: "acme.org" }, "eu-1 7 active"],
    ["no host", [host], {}, "404 unknown_tenant"],
    ["header key", [header], { headers: ["x-tenant: A-1"] }, "eu-1 7 active"],
    ["header with a name", [header], { headers: ["x-tenant: acme"] }, "eu-1 7 active"],
    ["names are not folded", [header], { headers: ["x-tenant: Acme"] }, "404 unknown_tenant"],
    ["two headers", [header], { headers: ["x-tenant: acme", "x-tenant: bolt"] }, "400 ambiguous_tenant"],
    ["path key", [path], { path: "/t/a1/orders" }, "eu-1 7 active"],
    ["path with a name and nothing after", [path], { path: "/t/acme" }, "eu-1 7 active"],
    ["path without a segment", [path], { path: "/t/" }, "404 unknown_tenant"],
    ["an encoded path is another path", [path], { path: "/t/%61cme" }, "404 unknown_tenant"],
    ["API key", [apikey], { headers: ["authorization: Bearer secret-key"] }, "eu-1 7 active"],
    ["API key, other case of the scheme", [apikey], { headers: ["authorization: bEARER secret-key"] }, "eu-1 7 active"],
    ["wrong API key", [apikey], { headers: ["authorization: Bearer secret-keY"] }, "404 unknown_tenant"],
    ["the first rule that finds one decides", [host, header], { host: "acme.example.com", headers: ["x-tenant: cyan"] }, "eu-1 7 active"],
    ["the next rule when the first finds none", [host, header], { host: "nobody.example.com", headers: ["x-tenant: acme"] }, "eu-1 7 active"],
    ["closed cell", [host], { host: "bolt.example.com" }, "503 cell_closed"],
    ["suspended", [host], { host: "cyan.example.com" }, "403 suspended"],
    ["on hold in a closed cell", [host], { host: "dune.example.com" }, "eu-2 3 hold"],
    ["unknown cell", [host], { host: "echo.example.com" }, "503 cell_unknown"],
    ["quarantined", [host], { host: "flux.example.com" }, "503 quarantined"],
    ["no rules", [], { host: "acme.example.com" }, "404 unknown_tenant"],
  ])("%s", (_, rules, head, expected) => {
    const table = applied([...fleet, { kind: "rules", rules }]);
    const decision = decide(table, headOf(head));
    expect(decision.kind === "route" ? `${decision.cell.cell} ${decision.epoch} ${decision.state}` : `${decision.status} ${decision.reason}`).toBe(expected);
  });

  test("a path rule strips prefix and segment, and only where it found a tenant", () => {
    const table = applied([...fleet, { kind: "rules", rules: [path, { by: "header", header: "x-tenant" }] }]);
    expect(identify(table, headOf({ path: "/t/acme/orders/1" })).pathStart).toBe("/t/acme".length);
    expect(identify(table, headOf({ path: "/t/nobody/orders", headers: ["x-tenant: acme"] })).pathStart).toBe(0);
  });

  test("says why", () => {
    const table = applied([...fleet, { kind: "rules", rules: [host, header] }]);
    const why = explain(table, headOf({ host: "nobody.example.com", headers: ["x-tenant: A-1"] }));
    expect(why).toMatchObject({ outcome: "forward", tenant: "acme", cell: "eu-1", epoch: 7, why: "header A-1 names acme, which lives in eu-1 at epoch 7" });
    expect(why.looks.map((look) => `${look.space} ${look.value} ${look.tenant}`)).toEqual(["host nobody.example.com null", "name nobody null", "header A-1 acme"]);
    expect(explain(table, headOf({ host: "cyan.example.com" }))).toMatchObject({ outcome: "refuse", tenant: "cyan", status: 403, reason: "suspended" });
  });

  test("the shared table and a plain map decide alike", () =>
    fc.assert(
      fc.property(
        fc.array(changes, { maxLength: 80 }),
        fc.array(fc.record({ host: fc.constantFrom("t1", "t2", "t3.example.com", "t4.example.com", "k1", ""), tenant: fc.constantFrom("t1", "t5", "k2", ""), path: fc.constantFrom("/", "/t3", "/k3/x", "/t9/") }), { maxLength: 10 }),
        (list, requests) => {
          const rules: IdentifyRule[] = [host, header, { by: "path", prefix: "/", strip: false }];
          const table = applied([...list, { kind: "rules", rules }]);
          const lookup = mapLookup(modelTable([...list, { kind: "rules", rules }]));
          for (const { host, tenant, path } of requests) {
            const head = { host, path, headers: tenant ? [`x-tenant: ${tenant}`] : [] };
            expect(explain(table, headOf(head))).toEqual(explain(lookup, headOf(head)));
          }
        },
      ),
    ));
});
