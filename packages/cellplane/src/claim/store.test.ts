import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CellplaneError } from "../base/errors.ts";
import { type TestFleet, testFleet } from "../placement/testing/fleet.ts";
import type { Claim, ClaimValue } from "./model.ts";

let fleet: TestFleet;
beforeEach(async () => {
  fleet = await testFleet([{ name: "eu-1" }]);
  for (const name of ["a", "b"]) await fleet.create({ name });
});
afterEach(() => fleet.close());

const login = (value: string): ClaimValue => ({ kind: "login", value });
const email = (value: string): ClaimValue => ({ kind: "email", value });
const codeOf = (error: unknown): string => (error instanceof CellplaneError ? error.code : String(error));
const ttlMs = 60_000;
const reserve = (tenant: string, owner: string, claims: ClaimValue[], plane = fleet) => plane.store.transaction((tx) => plane.claims.reserve(tx, { tenant, owner, ttlMs, claims }));
const confirm = (tenant: string, owner: string, claims: ClaimValue[], plane = fleet) => plane.store.transaction((tx) => plane.claims.confirm(tx, { tenant, owner, claims }));
const release = (tenant: string, claims: ClaimValue[]) => fleet.store.transaction((tx) => fleet.claims.release(tx, { tenant, claims }));
const table = async (): Promise<string[]> => (await fleet.claims.list(fleet.store, { limit: 100 })).map((claim) => `${claim.kind}:${claim.value} ${claim.tenant} ${claim.state}`);
const runOut = () => fleet.store.query("update claim set expires_at = now() where state = 'reserved'");

describe("claims", () => {
  test("C1: of a hundred that reserve the same values at once on three control planes, one gets each, and nobody waits for ever", async () => {
    const planes = [fleet, fleet.addPlane() as unknown as TestFleet, fleet.addPlane() as unknown as TestFleet];
    const values = ["x", "y", "z"].map(login);
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, (_, i) => {
        // Each in an order of its own: whoever took them in that order would deadlock.
        const wanted = [0, 1, 2].map((j) => values[(i + j * (i % 2 ? 1 : 2)) % 3] ?? login("x"));
        return reserve(`t-${i}`, `op-${i}`, wanted, planes[i % 3]).then(() => `t-${i}`, codeOf);
      }),
    );
    const winners = outcomes.filter((outcome) => outcome !== "claim_taken");
    expect(winners.length).toBe(1);
    expect(await table()).toEqual(["x", "y", "z"].map((value) => `login:${value} ${winners[0]} reserved`));
  });

  test("C2: all or none, and repeating it gives more time", async () => {
    await reserve("a", "op-1", [login("ann")]);
    expect(await reserve("b", "op-2", [login("bob"), login("ann")]).catch(codeOf)).toBe("claim_taken");
    expect(await table()).toEqual(["login:ann a reserved"]);
    expect(await reserve("a", "op-other", [login("ann")]).catch(codeOf)).toBe("claim_taken");
    const before = (await fleet.claims.find(fleet.store, login("ann")))?.expiresAt ?? "";
    const [again] = await reserve("a", "op-1", [login("ann")]);
    expect((again?.expiresAt ?? "") > before).toBe(true);
    await confirm("a", "op-1", [login("ann")]);
    expect(await reserve("a", "op-3", [login("ann"), login("al")])).toMatchObject([{ value: "al", state: "reserved" }, { value: "ann", state: "confirmed" }]);
  });

  test("C3: a reservation that has run out is free for others, and is swept away; until then it can be confirmed", async () => {
    await reserve("a", "op-1", ["w", "x", "y", "z"].map(login));
    await runOut();
    expect(await fleet.claims.find(fleet.store, login("x"))).toBeNull();
    await reserve("b", "op-2", [login("x")]);
    expect(await confirm("a", "op-1", [login("x")]).catch(codeOf)).toBe("claim_taken");
    expect(await confirm("a", "op-1", [login("y")])).toMatchObject([{ value: "y", state: "confirmed", owner: null, expiresAt: null }]);
    expect(await fleet.claims.sweep(fleet.store, 1)).toBe(1);
    expect(await fleet.claims.sweep(fleet.store)).toBe(1);
    expect(await fleet.claims.sweep(fleet.store)).toBe(0);
    expect(await table()).toEqual(["login:x b reserved", "login:y a confirmed"]);
  });

  test("C4: only the operation that reserved confirms, all of them or none, for a tenant that is there", async () => {
    await reserve("a", "op-1", [login("ann"), login("al")]);
    expect(await confirm("a", "op-2", [login("ann")]).catch(codeOf)).toBe("claim_taken");
    expect(await confirm("b", "op-1", [login("ann")]).catch(codeOf)).toBe("claim_taken");
    expect(await confirm("a", "op-1", [login("ann"), login("nobody")]).catch(codeOf)).toBe("claim_taken");
    expect(await table()).toEqual(["login:al a reserved", "login:ann a reserved"]);
    await confirm("a", "op-1", [login("ann"), login("al")]);
    await confirm("a", "op-1", [login("ann"), login("al")]);
    expect(await table()).toEqual(["login:al a confirmed", "login:ann a confirmed"]);
    await reserve("ghost", "op-9", [login("boo")]);
    expect(await confirm("ghost", "op-9", [login("boo")]).catch(codeOf)).toBe("not_found");
    expect(await release("b", [login("ann")])).toEqual([]);
    expect(await release("a", [login("ann"), login("nobody")])).toEqual(["login:ann"]);
    expect(await table()).toEqual(["login:al a confirmed", "login:boo ghost reserved"]);
  });

  test("C5: an address is stored only as a digest; who may only look can not try addresses out", async () => {
    await reserve("a", "op-1", [email("Ann.Example@Mail.example")]);
    expect(await reserve("b", "op-2", [email("ann.example@mail.EXAMPLE")]).catch(codeOf)).toBe("claim_taken");
    const [row] = await fleet.store.query<{ all: string }>("select string_agg(c::text, '') || (select string_agg(e::text, '') from event e) as all from claim c");
    expect(row?.all.toLowerCase()).not.toContain("ann.example");
    const listed = await fleet.send<{ items: Claim[] }>("viewer", "GET", "/v1/claims?kind=email");
    expect(listed.body.items).toMatchObject([{ kind: "email", value: expect.stringMatching(/^hmac:[0-9a-f]{32}$/), tenant: "a" }]);
    expect((await fleet.send("viewer", "POST", "/v1/claims:find", email("ann.example@mail.example"))).status).toBe(403);
    expect((await fleet.send("operator", "POST", "/v1/claims:find", email("ANN.example@mail.example"))).body).toMatchObject({ claim: { tenant: "a" } });
    expect((await fleet.send("operator", "POST", "/v1/claims:find", login("nobody"))).body).toEqual({ claim: null });
  });

  test("C6: reconciling makes the table agree with the cell, and leaves to a person what another tenant holds", async () => {
    await reserve("a", "op-1", ["kept", "stale"].map(login));
    await confirm("a", "op-1", ["kept", "stale"].map(login));
    await reserve("b", "op-2", [login("theirs")]);
    await reserve("a", "op-3", [login("coming")]);
    const takenAt = new Date().toISOString();
    await reserve("a", "op-4", [login("late")]);
    await confirm("a", "op-4", [login("late")]);
    const body = { tenant: "a", kind: "login", values: ["Kept", "new", "theirs"], takenAt };
    const expected = { agreed: 1, adopted: ["new"], released: ["stale"], conflicts: [{ value: "theirs", tenant: "b" }] };
    const dry = await fleet.send("operator", "POST", "/v1/claims:reconcile?dryRun=true", body);
    expect(dry.body).toEqual(expected);
    expect((await fleet.send("operator", "POST", "/v1/claims:reconcile", body)).body).toEqual(expected);
    expect((await fleet.send("operator", "POST", "/v1/claims:reconcile", body)).body).toEqual({ agreed: 2, adopted: [], released: [], conflicts: expected.conflicts });
    expect(await table()).toEqual(["login:coming a reserved", "login:kept a confirmed", "login:late a confirmed", "login:new a confirmed", "login:theirs b reserved"]);
  });

  test("C7: a tenant that is created takes over what it had reserved, and a free claim only once", async () => {
    await reserve("c", "signup-7", [login("cat")]);
    const outcomes = await Promise.all(["c", "d", "e"].map((name) => fleet.create({ name, claims: [login("cat"), login("Cat")] }).then(() => "created", codeOf)));
    expect(outcomes).toEqual(["created", "claim_taken", "claim_taken"]);
    await reserve("f", "signup-8", [login("fox")]);
    await runOut();
    expect((await fleet.create({ name: "g", claims: [login("fox")] })).created).toBe(true);
    expect(await table()).toEqual(["login:cat c confirmed", "login:fox g confirmed"]);
  });

  test("lists go on where the last page ended", async () => {
    await reserve("a", "op-1", ["x", "y\"z", "ü"].map(login));
    await reserve("a", "op-1", [email("z@z.example")]);
    const seen: string[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const { body }: { body: { items: Claim[]; nextCursor: string | null } } = await fleet.send("viewer", "GET", `/v1/claims?limit=1${cursor && `&cursor=${cursor}`}`);
      seen.push(...body.items.map((claim) => claim.value));
      cursor = body.nextCursor;
    }
    expect(seen).toEqual([expect.stringContaining("hmac:"), "x", "y\"z", "ü"]);
    expect((await fleet.send("viewer", "GET", "/v1/claims?cursor=nonsense")).body).toMatchObject({ code: "invalid_input" });
  });
});
