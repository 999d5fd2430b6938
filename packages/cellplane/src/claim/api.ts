import { z } from "zod";
import { fail } from "../base/errors.ts";
import { Name } from "../base/names.ts";
import { endpoint, handler, type Handler, page, PageQuery } from "../http/contract.ts";
import type { Store } from "../store/store.ts";
import { Claim, ClaimKind, claimStates, ClaimValue, Reconciliation } from "./model.ts";
import type { ClaimStore } from "./store.ts";

const Claims = z.array(ClaimValue).min(1).max(100);
const Owned = z.strictObject({
  tenant: Name,
  /** Names the attempt, so that two at once do not take each other's reservations for their own. */
  owner: z.string().min(1).max(100),
  claims: Claims,
});
const Held = z.object({ claims: z.array(Claim) });

export const listClaims = endpoint({
  id: "listClaims", method: "GET", path: "/v1/claims", role: "viewer", summary: "Lists claims in the order of kind and value; e-mails as digests",
  query: PageQuery.extend({ cursor: z.string().max(600).optional(), kind: ClaimKind.optional(), tenant: Name.optional(), state: z.enum(claimStates).optional() }), returns: page(Claim),
});
// A POST, so that the address stands in no log of URLs; and not for viewers, who could try out addresses.
export const findClaim = endpoint({ id: "findClaim", method: "POST", path: "/v1/claims:find", role: "operator", summary: "Says which tenant holds a value", body: ClaimValue, returns: z.object({ claim: Claim.nullable() }) });
export const reserveClaims = endpoint({
  id: "reserveClaims", method: "POST", path: "/v1/claims:reserve", role: "operator", summary: "Holds values for a tenant for a while: all of them or none; repeating it gives more time",
  body: Owned.extend({ ttlMs: z.int().min(1000).max(7 * 86_400_000).default(600_000) }), returns: Held,
});
export const confirmClaims = endpoint({ id: "confirmClaims", method: "POST", path: "/v1/claims:confirm", role: "operator", summary: "Makes reservations lasting", body: Owned, returns: Held });
export const releaseClaims = endpoint({
  id: "releaseClaims", method: "POST", path: "/v1/claims:release", role: "operator", summary: "Frees what the tenant holds of the values", body: z.strictObject({ tenant: Name, claims: Claims }), returns: z.object({ released: z.array(z.string()) }),
});
export const reconcileClaims = endpoint({
  id: "reconcileClaims", method: "POST", path: "/v1/claims:reconcile", role: "operator", summary: "Makes the table agree with what a cell says a tenant holds; shows what another tenant holds",
  body: z.strictObject({
    tenant: Name,
    kind: ClaimKind,
    /** All that the tenant holds of this kind. */
    values: z.array(ClaimValue.shape.value).max(10_000),
    /** When the list was taken from the cell: what was confirmed later is left alone. */
    takenAt: z.iso.datetime(),
  }),
  returns: Reconciliation,
});

export function claimHandlers({ store, claims }: { store: Store; claims: ClaimStore }): Handler[] {
  return [
    handler(listClaims, async ({ query: { limit, cursor, ...only } }) => {
      const items = await claims.list(store, { ...only, after: cursor === undefined ? undefined : readCursor(cursor), limit: limit + 1 });
      const more = items.length > limit;
      if (more) items.pop();
      const last = items.at(-1);
      return { items, nextCursor: more && last ? Buffer.from(JSON.stringify([last.kind, last.value])).toString("base64url") : null };
    }),
    handler(findClaim, async ({ body }) => ({ claim: await claims.find(store, body) })),
    handler(reserveClaims, ({ body, mutate }) => mutate(async (tx) => ({ claims: await claims.reserve(tx, body) }))),
    handler(confirmClaims, ({ body, mutate }) => mutate(async (tx) => ({ claims: await claims.confirm(tx, body) }))),
    handler(releaseClaims, ({ body, mutate }) => mutate(async (tx) => ({ released: await claims.release(tx, body) }))),
    handler(reconcileClaims, ({ body, mutate }) => mutate((tx) => claims.reconcile(tx, body))),
  ];
}

const Cursor = z.tuple([z.string(), z.string()]);

function readCursor(cursor: string): { kind: string; value: string } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(cursor, "base64url").toString("utf8"));
  } catch {
    parsed = null;
  }
  const result = Cursor.safeParse(parsed);
  if (!result.success) throw fail("invalid_input", { issues: [{ path: "query.cursor", message: "not a cursor of this list" }] });
  return { kind: result.data[0], value: result.data[1] };
}
