import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testDatabase } from "../../../../tests/database.ts";
import type { Tx } from "./model.ts";
import { openStore, type Store } from "./store.ts";

let db: Awaited<ReturnType<typeof testDatabase>>;
let store: Store;
beforeAll(async () => {
  db = await testDatabase();
  store = openStore(db.url, { connectionsMax: 4 });
  await store.query("create schema cellplane");
  await store.query("create table cellplane.note (id int primary key, text text)");
});
afterAll(async () => {
  await store.close();
  await db.drop();
});

const count = async () => (await store.query<{ n: number }>("select count(*) as n from note"))[0]?.n;

describe("transactions", () => {
  test("a dry run does everything and leaves nothing", async () => {
    const before = await count();
    const seen = await store.transaction(
      async (tx) => {
        await tx.query("insert into note values (1, 'dry')");
        return (await tx.query<{ text: string }>("select text from note where id = 1"))[0]?.text;
      },
      { dryRun: true },
    );
    expect(seen).toBe("dry");
    expect(await count()).toBe(before);
  });

  test("what is written at the commit comes in rank order, items together, in the same transaction", async () => {
    const order: string[] = [];
    const flush = (name: string) => async (tx: Tx, items: string[]) => {
      order.push(`${name}:${items.join("+")}`);
      await tx.query("insert into note select 100 + $1::int, $2", [order.length, name]);
    };
    await store.transaction(async (tx) => {
      tx.atCommit("audit", "a1", flush("audit"));
      tx.atCommit("routes", "r1", flush("routes"));
      tx.atCommit("audit", "a2", flush("audit"));
      tx.atCommit("events", "e1", flush("events"));
    });
    expect(order).toEqual(["routes:r1", "events:e1", "audit:a1+a2"]);

    const before = await count();
    const failing = store.transaction(async (tx) => {
      await tx.query("insert into note values (200, 'x')");
      tx.atCommit("events", "e", () => Promise.reject(new Error("no")));
    });
    await expect(failing).rejects.toThrow("no");
    expect(await count()).toBe(before);
  });

  test("a connection killed in the middle is database_unavailable, and the next transaction works", async () => {
    const killed = store.transaction(async (tx) => {
      const pid = (await tx.query<{ pid: number }>("select pg_backend_pid() as pid"))[0]?.pid;
      await store.query("select pg_terminate_backend($1)", [pid]);
      await tx.query("select 1");
    });
    await expect(killed).rejects.toMatchObject({ code: "database_unavailable" });
    expect(await store.transaction(async (tx) => (await tx.query<{ one: number }>("select 1 as one"))[0]?.one)).toBe(1);
  });
});

describe("notifications", () => {
  test("arrive, and a broken listener comes back and says that it may have missed some", async () => {
    const heard: string[] = [];
    let wake = () => {};
    const heardMore = () => new Promise<void>((resolve) => (wake = resolve));
    const until = async (what: string) => {
      while (!heard.includes(what)) await heardMore();
    };
    const stop = store.listen("note", (payload) => {
      heard.push(payload);
      wake();
    });
    await until("");
    await store.query("select pg_notify('note', 'one')");
    await until("one");
    heard.length = 0;
    await store.query("select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen%' and datname = current_database()");
    await until("");
    await store.query("select pg_notify('note', 'two')");
    await until("two");
    stop();
  });
});
