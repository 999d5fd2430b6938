import pg from "pg";
import { type Applied, type Audit, type Item, type NewOrder, type Order, ShopError, totalOf } from "./model.ts";

/** All of the shop's SQL. Every function takes the tenant first and touches no row of another. */
export interface Shop {
  /** @throws pg.DatabaseError, or a connection's error, when the database cannot be used now */
  ping(): Promise<void>;
  openAccount(tenant: string, operationId: string, name: string): Promise<Applied>;
  placeOrder(tenant: string, operationId: string, order: NewOrder): Promise<Applied>;
  amendOrder(tenant: string, operationId: string, id: number, items: Item[]): Promise<Applied>;
  payOrder(tenant: string, operationId: string, id: number): Promise<Applied>;
  cancelOrder(tenant: string, operationId: string, id: number): Promise<Applied>;
  /** The newest first. */
  orders(tenant: string, limit: number): Promise<Order[]>;
  accounts(tenant: string): Promise<{ name: string; kind: string; balanceCents: number }[]>;
  events(tenant: string, after: number, limit: number): Promise<{ id: number; operationId: string; kind: string; data: unknown; at: string }[]>;
  /** In the order of their ids. `events` is how often the operation was applied, `deliveries` how often its request arrived. */
  operations(tenant: string, after: string, limit: number): Promise<{ operationId: string; events: number; deliveries: number }[]>;
  /** Adds everything up, in one snapshot. */
  audit(tenant: string): Promise<Audit>;
  close(): Promise<void>;
}

/** The connection broke while the transaction was being committed: nobody can know whether it was. */
export class OutcomeUnknown extends Error {
  override name = "OutcomeUnknown";
}

export interface ShopOptions {
  databaseUrl: string;
  isolation: "read committed" | "serializable";
  connectionsMax: number;
}

/** Serialization failure and deadlock: the transaction is undone, and trying again is what PostgreSQL asks for. */
const retriedStates = new Set(["40001", "40P01"]);
const attemptsMax = 10;
/** Requests that may wait for a connection; what comes beyond is told at once to come back later, and costs no memory. */
const waitingMax = 100;
const stateOf = (error: unknown): string => (error as { code?: string }).code ?? "";

export function openShop({ databaseUrl, isolation, connectionsMax }: ShopOptions): Shop {
  const types = { getTypeParser: (oid: number, format?: "text" | "binary") => (oid === pg.types.builtins.INT8 || oid === pg.types.builtins.NUMERIC ? Number : pg.types.getTypeParser(oid, format as "text")) };
  const pool = new pg.Pool({
    connectionString: databaseUrl, types, max: connectionsMax, connectionTimeoutMillis: 3000, idleTimeoutMillis: 30_000,
    statement_timeout: 10_000, idle_in_transaction_session_timeout: 10_000, application_name: "shop",
  });
  // A connection that breaks while idle is replaced at the next use; one that breaks between two statements tells the next one.
  pool.on("error", () => undefined);
  pool.on("connect", (connection) => connection.on("error", () => undefined));

  /** @throws Error when so many already wait for a connection that one more would only wait in vain */
  async function connect(): Promise<pg.PoolClient> {
    if (pool.waitingCount >= waitingMax) throw new Error(`${waitingMax} requests wait for a connection already`);
    return pool.connect();
  }

  async function query<R>(sql: string, params: unknown[]): Promise<R[]> {
    const connection = await connect();
    try {
      return (await connection.query(sql, params)).rows as R[];
    } finally {
      connection.release();
    }
  }

  /** One transaction, tried again as long as PostgreSQL says that it only got in another's way. */
  async function transaction<T>(work: (tx: pg.PoolClient) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const tx = await connect();
      let committing = false;
      let broken: Error | undefined;
      try {
        await tx.query(`begin isolation level ${isolation}`);
        const result = await work(tx);
        committing = true;
        await tx.query("commit");
        return result;
      } catch (error) {
        await tx.query("rollback").catch((failure: Error) => (broken = failure));
        if (retriedStates.has(stateOf(error)) && attempt < attemptsMax) continue;
        // Constraints, conflicts and the fence undo the transaction for certain; anything else at a commit leaves it open.
        if (committing && !/^(23|40|CP)/.test(stateOf(error))) throw new OutcomeUnknown("the connection broke during a commit", { cause: error });
        throw error;
      } finally {
        tx.release(broken);
      }
    }
  }

  /**
   * Applies an operation once. The first statement claims its id, so that of two requests at the same time one waits for
   * the other and then finds it done.
   */
  function applyOnce(tenant: string, operationId: string, kind: string, work: (tx: pg.PoolClient) => Promise<Order | null>): Promise<Applied> {
    return transaction(async (tx) => {
      const claim = await tx.query(
        `insert into operation as o (tenant_id, operation_id, kind) values ($1, $2, $3)
         on conflict (tenant_id, operation_id) do update set deliveries = o.deliveries + 1
         returning kind, deliveries, order_id`,
        [tenant, operationId, kind],
      );
      const claimed = claim.rows[0] as { kind: string; deliveries: number; order_id: number | null };
      if (claimed.kind !== kind) throw new ShopError(409, "operation_mismatch", `operation ${operationId} was used for another request`);
      if (claimed.deliveries > 1) return { operationId, replayed: true, order: claimed.order_id === null ? null : await readOrder(tx, tenant, claimed.order_id) };
      const order = await work(tx);
      await tx.query(
        `with happened as (insert into event (tenant_id, operation_id, kind, data) values ($1, $2, $3, $4))
         update operation set order_id = $5 where tenant_id = $1 and operation_id = $2`,
        [tenant, operationId, kind, JSON.stringify(order ?? {}), order?.id ?? null],
      );
      return { operationId, replayed: false, order };
    });
  }

  const close = () => pool.end();

  return {
    ping: async () => void (await query("select 1", [])),
    close,

    openAccount: (tenant, operationId, name) =>
      applyOnce(tenant, operationId, "account.opened", async (tx) => {
        await tx.query("insert into account (tenant_id, name, kind) values ($1, 'cash', 'cash'), ($1, 'revenue', 'revenue') on conflict do nothing", [tenant]);
        const { rowCount } = await tx.query("insert into account (tenant_id, name, kind) values ($1, $2, 'customer') on conflict do nothing", [tenant, name]);
        if (rowCount === 0) throw new ShopError(409, "already_exists", `there is an account ${name} already`);
        return null;
      }),

    placeOrder: (tenant, operationId, { account, items }) =>
      applyOnce(tenant, operationId, "order.placed", async (tx) => {
        const totalCents = totalOf(items);
        const placed = await tx.query(
          `with placed as (
             insert into orders (tenant_id, account_id, total_cents)
             select $1, id, $3 from account where tenant_id = $1 and name = $2 and kind = 'customer'
             returning id
           ), line as (${insertLinesSql("select id from placed", "$4")})
           select id from placed`,
          [tenant, account, totalCents, JSON.stringify(items)],
        );
        const id = (placed.rows[0] as { id: number } | undefined)?.id;
        if (id === undefined) throw new ShopError(404, "not_found", `there is no account ${account}`);
        await post(tx, tenant, operationId, id, { [account]: totalCents, revenue: -totalCents });
        return { id, account, state: "placed", totalCents, version: 1 };
      }),

    amendOrder: (tenant, operationId, id, items) =>
      applyOnce(tenant, operationId, "order.amended", async (tx) => {
        const order = await lockPlaced(tx, tenant, id);
        const totalCents = totalOf(items);
        await tx.query("delete from order_line where tenant_id = $1 and order_id = $2", [tenant, id]);
        await tx.query(`with line as (${insertLinesSql("select $2::bigint as id", "$3")}) update orders set total_cents = $4, version = version + 1 where tenant_id = $1 and id = $2`, [
          tenant, id, JSON.stringify(items), totalCents,
        ]);
        await post(tx, tenant, operationId, id, { [order.account]: totalCents - order.totalCents, revenue: order.totalCents - totalCents });
        return { ...order, totalCents, version: order.version + 1 };
      }),

    payOrder: (tenant, operationId, id) =>
      applyOnce(tenant, operationId, "order.paid", async (tx) => {
        const order = await lockPlaced(tx, tenant, id);
        await setState(tx, tenant, id, "paid");
        await post(tx, tenant, operationId, id, { cash: order.totalCents, [order.account]: -order.totalCents });
        return { ...order, state: "paid", version: order.version + 1 };
      }),

    cancelOrder: (tenant, operationId, id) =>
      applyOnce(tenant, operationId, "order.cancelled", async (tx) => {
        const order = await lockPlaced(tx, tenant, id);
        await setState(tx, tenant, id, "cancelled");
        await post(tx, tenant, operationId, id, { revenue: order.totalCents, [order.account]: -order.totalCents });
        return { ...order, state: "cancelled", version: order.version + 1 };
      }),

    orders: (tenant, limit) => query(`${orderSql} where o.tenant_id = $1 order by o.id desc limit $2`, [tenant, limit]),
    accounts: (tenant) => query(`select name, kind, balance_cents as "balanceCents" from account where tenant_id = $1 order by id`, [tenant]),
    events: (tenant, after, limit) => query(`select id, operation_id as "operationId", kind, data, at from event where tenant_id = $1 and id > $2 order by id limit $3`, [tenant, after, limit]),
    operations: (tenant, after, limit) =>
      query(
        `select operation_id as "operationId", deliveries, (select count(*) from event e where e.tenant_id = o.tenant_id and e.operation_id = o.operation_id) as events
         from operation o where tenant_id = $1 and operation_id > $2 order by operation_id limit $3`,
        [tenant, after, limit],
      ),
    audit: async (tenant) => (await query<Audit>(auditSql, [tenant]))[0] as Audit,
  };
}

/** @param order SQL of one row with the order's `id` @param items the parameter with the items as JSON; $1 is the tenant */
const insertLinesSql = (order: string, items: string): string =>
  `insert into order_line (tenant_id, order_id, sku, quantity, price_cents)
   select $1, o.id, i.sku, i.quantity, i."priceCents" from (${order}) o, jsonb_to_recordset(${items}) as i (sku text, quantity int, "priceCents" bigint)`;

const orderSql = `select o.id, a.name as account, o.state, o.total_cents as "totalCents", o.version from orders o join account a on a.tenant_id = o.tenant_id and a.id = o.account_id`;

async function readOrder(tx: pg.PoolClient, tenant: string, id: number): Promise<Order | null> {
  return ((await tx.query(`${orderSql} where o.tenant_id = $1 and o.id = $2`, [tenant, id])).rows[0] as Order | undefined) ?? null;
}

/** The order, locked until the transaction ends. @throws ShopError not_found, wrong_state */
async function lockPlaced(tx: pg.PoolClient, tenant: string, id: number): Promise<Order> {
  const order = (await tx.query(`${orderSql} where o.tenant_id = $1 and o.id = $2 for update of o`, [tenant, id])).rows[0] as Order | undefined;
  if (!order) throw new ShopError(404, "not_found", `there is no order ${id}`);
  if (order.state !== "placed") throw new ShopError(409, "wrong_state", `order ${id} is ${order.state}`);
  return order;
}

async function setState(tx: pg.PoolClient, tenant: string, id: number, state: Order["state"]): Promise<void> {
  await tx.query("update orders set state = $3, version = version + 1 where tenant_id = $1 and id = $2", [tenant, id, state]);
}

/** @param entries cents by the name of the account; they sum up to zero */
async function post(tx: pg.PoolClient, tenant: string, operationId: string, orderId: number, entries: Record<string, number>): Promise<void> {
  await tx.query(
    // Accounts are locked in one order everywhere, so that no two operations wait for each other.
    `with locked as (select id, name from account where tenant_id = $1 and name = any($4::text[]) order by id for no key update),
     entry as (
       insert into ledger_entry (tenant_id, operation_id, order_id, account_id, amount_cents)
       select $1, $2, $3, a.id, e.cents from locked a join unnest($4::text[], $5::bigint[]) as e (name, cents) using (name) where e.cents <> 0
       returning account_id, amount_cents
     )
     update account a set balance_cents = a.balance_cents + entry.amount_cents from entry where a.tenant_id = $1 and a.id = entry.account_id`,
    [tenant, operationId, orderId, Object.keys(entries), Object.values(entries)],
  );
}

/** Of an order the customer owes the total while it is placed and the shop has earned it until it is cancelled; cash is in when it is paid. */
const auditSql = `
with entry as (select e.operation_id, e.order_id, e.account_id, a.kind, e.amount_cents from ledger_entry e join account a on a.tenant_id = e.tenant_id and a.id = e.account_id where e.tenant_id = $1),
posted as (
  select order_id, sum(amount_cents) filter (where kind = 'customer') as customer, sum(amount_cents) filter (where kind = 'cash') as cash, sum(amount_cents) filter (where kind = 'revenue') as revenue
  from entry group by order_id
),
line as (select order_id, sum(quantity * price_cents) as total from order_line where tenant_id = $1 group by order_id)
select
  (select count(*) from operation where tenant_id = $1) as "operations",
  (select coalesce(sum(amount_cents), 0) from entry) as "entriesCents",
  (select count(*) from (select from entry group by operation_id having sum(amount_cents) <> 0) off) as "operationsOff",
  (select count(*) from account a where a.tenant_id = $1 and balance_cents <> (select coalesce(sum(amount_cents), 0) from entry where account_id = a.id)) as "accountsOff",
  (select count(*) from orders o left join posted p on p.order_id = o.id left join line l on l.order_id = o.id
    where o.tenant_id = $1 and (o.total_cents, o.total_cents, o.total_cents, o.total_cents) is distinct from (
      coalesce(l.total, 0),
      case when o.state = 'placed' then coalesce(p.customer, 0) when coalesce(p.customer, 0) = 0 then o.total_cents end,
      case when o.state = 'paid' then coalesce(p.cash, 0) when coalesce(p.cash, 0) = 0 then o.total_cents end,
      case when o.state <> 'cancelled' then -coalesce(p.revenue, 0) when coalesce(p.revenue, 0) = 0 then o.total_cents end)) as "ordersOff",
  (select count(*) from event e where e.tenant_id = $1 and not exists (select from operation o where o.tenant_id = $1 and o.operation_id = e.operation_id)) as "eventsStray"`;
