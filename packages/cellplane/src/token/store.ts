import { timingSafeEqual } from "node:crypto";
import { fail } from "../base/errors.ts";
import type { Queryable, Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import type { NewToken, Token } from "./model.ts";
import { hashOf, newSecret } from "./secret.ts";

interface TokenRow {
  name: string;
  role: Token["role"];
  created_at: Date;
  created_by: string;
  expires_at: Date | null;
  revoked_at: Date | null;
}

const columns = "name, role, created_at, created_by, expires_at, revoked_at";

const asToken = (row: TokenRow): Token => ({
  name: row.name, role: row.role, createdAt: row.created_at.toISOString(), createdBy: row.created_by,
  expiresAt: row.expires_at?.toISOString() ?? null, revokedAt: row.revoked_at?.toISOString() ?? null,
});

/** Told when a token is revoked, so that no instance goes on believing in it. */
const channel = "cellplane_token";
/** How long a token is believed in without asking again, should the notification be lost. */
const believedMs = 10_000;
const believedMax = 1000;

export type Known = Pick<Token, "name" | "role"> & { expiresAtMs: number; refusal: string | null };

export function openTokenStore(db: Store) {
  const believed = new Map<string, { known: Known; hash: Buffer; untilMs: number }>();
  const stopListening = db.listen(channel, () => believed.clear());

  return {
    /** Whose secret this is; null when nobody's. `refusal` says why a known token is not good any more. */
    async find(secret: string, nowMs: number): Promise<Known | null> {
      const hash = hashOf(secret);
      const key = hash.toString("base64");
      const cached = believed.get(key);
      if (cached && cached.untilMs > nowMs && timingSafeEqual(cached.hash, hash)) return expire(cached.known, nowMs);
      const [row] = await db.query<TokenRow & { hash: Buffer }>(`select ${columns}, hash from token where hash = $1`, [hash]);
      if (!row || !timingSafeEqual(row.hash, hash)) return null;
      const known: Known = { name: row.name, role: row.role, expiresAtMs: row.expires_at?.getTime() ?? Infinity, refusal: row.revoked_at ? `the token ${row.name} was revoked` : null };
      if (believed.size >= believedMax) believed.clear();
      believed.set(key, { known, hash, untilMs: nowMs + believedMs });
      return expire(known, nowMs);
    },

    /** @throws CellplaneError already_exists, also when a revoked token had the name */
    async create(tx: Tx, { name, role, expiresInMs }: NewToken, createdBy: string): Promise<{ token: Token; secret: string }> {
      const secret = newSecret();
      const [row] = await tx.query<TokenRow>(
        `insert into token (name, role, hash, created_by, expires_at) values ($1, $2, $3, $4, now() + $5::float8 * interval '1 ms')
         on conflict (name) do nothing returning ${columns}`,
        [name, role, hashOf(secret), createdBy, expiresInMs],
      );
      if (!row) throw fail("already_exists", { what: "token", name });
      return { token: asToken(row), secret };
    },

    /** Revoking what is revoked changes nothing. @throws CellplaneError not_found */
    async revoke(tx: Tx, name: string): Promise<Token> {
      const [row] = await tx.query<TokenRow>(`update token set revoked_at = coalesce(revoked_at, now()) where name = $1 returning ${columns}, pg_notify('${channel}', '')`, [name]);
      if (!row) throw fail("not_found", { what: "token", name });
      return asToken(row);
    },

    /** In the order of their names. @param after only names behind this one; "" for all */
    async list(after: string, limit: number): Promise<Token[]> {
      return (await db.query<TokenRow>(`select ${columns} from token where name > $1 order by name limit $2`, [after, limit])).map(asToken);
    },

    close: () => stopListening(),
  };
}
export type TokenStore = ReturnType<typeof openTokenStore>;

const expire = (known: Known, nowMs: number): Known => (known.expiresAtMs <= nowMs ? { ...known, refusal: `the token ${known.name} has expired` } : known);

/**
 * Makes these secrets valid. With `replace`, a name that has another secret gets this one; without, it is left as it is.
 * @returns the names whose secret is now the one given
 */
export async function admitSecrets(db: Queryable, secrets: Partial<Record<Token["role"], string>>, { replace }: { replace: boolean }): Promise<string[]> {
  const names = Object.keys(secrets);
  const hashes = Object.values(secrets).map(hashOf);
  const rows = await db.query<{ name: string }>(
    `with given as (select * from unnest($1::text[], $2::bytea[]) as g (name, hash)),
          admitted as (
            insert into token (name, role, hash, created_by) select name, name, hash, 'first start' from given
            on conflict (name) do update set hash = excluded.hash, revoked_at = null where $3 returning name),
          told as (select pg_notify('${channel}', '') where $3)
     select name from admitted union select token.name from token join given using (name, hash) left join told on true where revoked_at is null`,
    [names, hashes, replace],
  );
  return rows.map((row) => row.name);
}
