import { createHmac } from "node:crypto";
import { fail } from "../base/errors.ts";
import type { EventSink } from "../drivers/driver.ts";
import type { Queryable, Row, Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import { type Claim, type ClaimState, type ClaimValue, isHashed, normalised, type Reconciliation } from "./model.ts";

/** A claim as its row names it. */
export interface ClaimId {
  kind: string;
  value: string;
}

export interface ClaimFilter {
  kind?: string | undefined;
  tenant?: string | undefined;
  state?: ClaimState | undefined;
  /** Claims after this one. */
  after?: ClaimId | undefined;
  limit: number;
}

const columns = "kind, value, tenant, state, owner, expires_at, since";
const claimOf = (row: Row): Claim => ({
  ...(row as unknown as Pick<Claim, "kind" | "value" | "tenant" | "state" | "owner">),
  expiresAt: (row["expires_at"] as Date | null)?.toISOString() ?? null,
  since: (row["since"] as Date).toISOString(),
});

/** Nobody holds it any more, though its row may still be there. */
const isFree = "(claim.state = 'reserved' and claim.expires_at <= now())";
const batch = "unnest($1::text[], $2::text[])";
// Rows are locked in one order everywhere, so that two callers who want the same claims wait for each other only one way.
const inOrder = (ids: ClaimId[]): ClaimId[] => [...ids].sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
const placeOf = ({ kind, value }: ClaimId): string => `${kind}\n${value}`;

export async function claimsOf(at: Queryable, tenant: string): Promise<Claim[]> {
  return (await at.query(`select ${columns} from claim where tenant = $1 order by kind, value`, [tenant])).map(claimOf);
}

export type ClaimStore = ReturnType<typeof createClaimStore>;

export function createClaimStore(events: EventSink) {
  let pepper: Buffer | null = null;

  /** What stands in the row: the normalised value, or for a hashed kind a digest that needs the pepper. */
  async function identify(at: Queryable, claims: readonly ClaimValue[]): Promise<ClaimId[]> {
    pepper ??= (await at.query<{ pepper: Buffer }>("select pepper from claim_pepper"))[0]?.pepper ?? null;
    const key = pepper ?? "";
    return claims.map(({ kind, value }) => {
      const plain = normalised(value);
      return { kind, value: isHashed(kind) ? `hmac:${createHmac("sha256", key).update(`${kind}\n${plain}`).digest("hex").slice(0, 32)}` : plain };
    });
  }

  /** Takes each claim that is free, or locks the row of whoever has it. @returns what there is now, by place */
  async function take(tx: Tx, ids: ClaimId[], holder: { tenants: string[]; owner: string | null; ttlMs: number | null }): Promise<Map<string, Claim & { fresh: boolean }>> {
    const wanted = inOrder(ids.map((id, i) => ({ ...id, tenant: holder.tenants[i] ?? "" }))) as (ClaimId & { tenant: string })[];
    const rows = await tx.query<Row & { fresh: boolean }>(
      `insert into claim (kind, value, tenant, state, owner, expires_at)
       select kind, value, tenant, case when $4::text is null then 'confirmed' else 'reserved' end, $4, now() + $5::float8 * interval '1 ms'
         from unnest($1::text[], $2::text[], $3::text[]) with ordinality as w (kind, value, tenant, place) order by place
       on conflict (kind, value) do update set
         tenant = case when ${isFree} then excluded.tenant else claim.tenant end,
         state = case when ${isFree} then excluded.state else claim.state end,
         owner = case when ${isFree} then excluded.owner else claim.owner end,
         expires_at = case when ${isFree} then excluded.expires_at else claim.expires_at end,
         since = case when ${isFree} then excluded.since else claim.since end
       returning ${columns}, since = now() as fresh`,
      [wanted.map((w) => w.kind), wanted.map((w) => w.value), wanted.map((w) => w.tenant), holder.owner, holder.ttlMs],
    );
    return new Map(rows.map((row) => [placeOf(claimOf(row)), { ...claimOf(row), fresh: row.fresh }]));
  }

  const show = (ids: ClaimId[]): string[] => ids.map(({ kind, value }) => `${kind}:${value}`);
  const tell = (tx: Tx, kind: string, tenant: string, ids: ClaimId[]): void => {
    if (ids.length > 0) events.emit(tx, kind, `tenant/${tenant}`, { claims: show(ids) });
  };
  const drop = async (tx: Tx, ids: ClaimId[], tenant: string): Promise<ClaimId[]> =>
    tx.query<Row & ClaimId>(`delete from claim where (kind, value) in (select * from ${batch}) and tenant = $3 returning kind, value`, [ids.map((id) => id.kind), ids.map((id) => id.value), tenant]);

  return {
    identify,

    /** In the order of kind and value. */
    async list(at: Queryable, { kind, tenant, state, after, limit }: ClaimFilter): Promise<Claim[]> {
      const rows = await at.query(
        `select ${columns} from claim
          where (kind, value) > ($1, $2) and ($3::text is null or kind = $3) and ($4::text is null or tenant = $4) and ($5::text is null or state = $5)
          order by kind, value limit $6`,
        [after?.kind ?? "", after?.value ?? "", kind ?? null, tenant ?? null, state ?? null, limit],
      );
      return rows.map(claimOf);
    },

    /** Who holds it; null when nobody does. */
    async find(at: Queryable, claim: ClaimValue): Promise<Claim | null> {
      const [id] = await identify(at, [claim]);
      const [row] = await at.query(`select ${columns} from claim where kind = $1 and value = $2 and not ${isFree}`, [id?.kind, id?.value]);
      return row ? claimOf(row) : null;
    },

    /**
     * Holds all of them for one operation, or none. The same operation may ask again and gets more time; what the tenant
     * has confirmed stays confirmed.
     * @throws CellplaneError claim_taken
     */
    async reserve(tx: Tx, { tenant, owner, ttlMs, claims }: { tenant: string; owner: string; ttlMs: number; claims: ClaimValue[] }): Promise<Claim[]> {
      const ids = unique(await identify(tx, claims));
      const held = await take(tx, ids, { tenants: ids.map(() => tenant), owner, ttlMs });
      for (const claim of held.values()) if (claim.tenant !== tenant || (claim.state === "reserved" && claim.owner !== owner)) throw fail("claim_taken", { kind: claim.kind, value: claim.value });
      const rows = await tx.query(
        `update claim set expires_at = greatest(expires_at, now() + $4::float8 * interval '1 ms')
          where (kind, value) in (select * from ${batch}) and owner = $3 returning ${columns}`,
        [ids.map((id) => id.kind), ids.map((id) => id.value), owner, ttlMs],
      );
      tell(tx, "claim.reserved", tenant, ids);
      return [...rows.map(claimOf), ...[...held.values()].filter((claim) => claim.state === "confirmed")];
    },

    /**
     * Makes the operation's reservations lasting. One that has run out is still good as long as nobody else took it.
     * @throws CellplaneError claim_taken when one is not this operation's any more · not_found for the tenant
     */
    async confirm(tx: Tx, { tenant, owner, claims }: { tenant: string; owner: string; claims: ClaimValue[] }): Promise<Claim[]> {
      // Held against a deletion that would release the tenant's claims at this moment.
      const [known] = await tx.query("select name from tenant where name = $1 and state <> 'deleting' for key share", [tenant]);
      if (!known) throw fail("not_found", { what: "tenant", name: tenant });
      const ids = inOrder(unique(await identify(tx, claims)));
      const rows = await tx.query(
        `with mine as (select kind, value from claim where (kind, value) in (select * from ${batch}) and tenant = $3 and (owner = $4 or state = 'confirmed') order by kind, value for update)
         update claim set state = 'confirmed', owner = null, expires_at = null from mine where claim.kind = mine.kind and claim.value = mine.value
         returning claim.kind, claim.value, tenant, state, owner, expires_at, since`,
        [ids.map((id) => id.kind), ids.map((id) => id.value), tenant, owner],
      );
      const confirmed = rows.map(claimOf);
      const lost = ids.find((id) => !confirmed.some((claim) => placeOf(claim) === placeOf(id)));
      if (lost) throw fail("claim_taken", lost);
      tell(tx, "claim.confirmed", tenant, ids);
      return confirmed;
    },

    /** Frees what the tenant holds of them; what it does not hold stays as it is. @returns what came free */
    async release(tx: Tx, { tenant, claims }: { tenant: string; claims: ClaimValue[] }): Promise<string[]> {
      const gone = await drop(tx, unique(await identify(tx, claims)), tenant);
      tell(tx, "claim.released", tenant, gone);
      return show(gone);
    },

    async releaseAll(tx: Tx, tenant: string): Promise<void> {
      tell(tx, "claim.released", tenant, await tx.query<Row & ClaimId>("delete from claim where tenant = $1 returning kind, value", [tenant]));
    },

    /**
     * Claims of tenants that are created in this transaction: confirmed at once, each tenant's all or none.
     * @returns by tenant the claim that another has, for those that get none
     */
    async confirmAll(tx: Tx, tenants: { name: string; claims: ClaimValue[] }[]): Promise<Map<string, ClaimId>> {
      const lost = new Map<string, ClaimId>();
      const wanted = new Map<string, ClaimId & { tenant: string }>();
      for (const { name, claims } of tenants) {
        for (const id of unique(await identify(tx, claims))) {
          const rival = wanted.get(placeOf(id));
          if (rival && rival.tenant !== name) lost.set(name, id);
          else wanted.set(placeOf(id), { ...id, tenant: name });
        }
      }
      const asked = [...wanted.values()].filter(({ tenant }) => !lost.has(tenant));
      if (asked.length === 0) return lost;
      const held = await take(tx, asked, { tenants: asked.map(({ tenant }) => tenant), owner: null, ttlMs: null });
      for (const want of asked) {
        const claim = held.get(placeOf(want));
        if (claim?.tenant !== want.tenant) lost.set(want.tenant, { kind: want.kind, value: want.value });
      }
      const won = asked.filter(({ tenant }) => !lost.has(tenant));
      // Reservations the tenant had made before are kept, or given up where it gets nothing now.
      await tx.query(`update claim set state = 'confirmed', owner = null, expires_at = null where (kind, value) in (select * from ${batch})`, [won.map((w) => w.kind), won.map((w) => w.value)]);
      for (const { tenant, ...id } of asked) if (lost.has(tenant) && held.get(placeOf(id))?.fresh) await drop(tx, [id], tenant);
      return lost;
    },

    /**
     * Compares what a cell says a tenant holds of one kind with the table, and makes the table agree where nobody else is
     * concerned. Reservations, and what was confirmed after the list was taken, are left alone.
     * @throws CellplaneError not_found for the tenant
     */
    async reconcile(tx: Tx, { tenant, kind, values, takenAt }: { tenant: string; kind: string; values: string[]; takenAt: string }): Promise<Reconciliation> {
      const [known] = await tx.query("select name from tenant where name = $1 and state <> 'deleting' for key share", [tenant]);
      if (!known) throw fail("not_found", { what: "tenant", name: tenant });
      const ids = unique(await identify(tx, values.map((value) => ({ kind, value }))));
      const held = ids.length === 0 ? new Map<string, Claim & { fresh: boolean }>() : await take(tx, ids, { tenants: ids.map(() => tenant), owner: null, ttlMs: null });
      const conflicts = [...held.values()].filter((claim) => claim.tenant !== tenant);
      const adopted = [...held.values()].filter((claim) => claim.tenant === tenant && claim.fresh);
      const stale = await tx.query<Row & ClaimId>(
        `delete from claim where tenant = $1 and kind = $2 and state = 'confirmed' and since <= $3 and not value = any ($4) returning kind, value`,
        [tenant, kind, takenAt, ids.map((id) => id.value)],
      );
      tell(tx, "claim.confirmed", tenant, adopted);
      tell(tx, "claim.released", tenant, stale);
      return {
        agreed: held.size - conflicts.length - adopted.length,
        adopted: adopted.map(({ value }) => value),
        released: stale.map(({ value }) => value),
        conflicts: conflicts.map(({ value, tenant }) => ({ value, tenant })),
      };
    },

    /** Removes a batch of reservations that have run out. @returns how many; call again while it is `batch` */
    async sweep(store: Pick<Store, "transaction">, batch = 1000): Promise<number> {
      return store.transaction(async (tx) => {
        const gone = await tx.query<Row & ClaimId & { tenant: string }>(
          `with old as (select kind, value from claim where ${isFree} order by expires_at limit $1 for update skip locked)
           delete from claim using old where claim.kind = old.kind and claim.value = old.value returning claim.kind, claim.value, tenant`,
          [batch],
        );
        for (const claim of gone) tell(tx, "claim.expired", claim.tenant, [claim]);
        return gone.length;
      });
    },
  };
}

const unique = (ids: ClaimId[]): ClaimId[] => [...new Map(ids.map((id) => [placeOf(id), id])).values()];
