import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { portBook } from "./ports.ts";

let state: string;
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), "ports-"));
});
afterEach(() => rm(state, { recursive: true, force: true }));

test("L8: an owner keeps its port, two never have one, also when all ask at once", async () => {
  const owners = Array.from({ length: 20 }, (_, i) => `cell-${i}/app/http`);
  const ports = await Promise.all(owners.map((owner) => portBook(state).reserve(owner)));
  expect(new Set(ports).size).toBe(owners.length);
  expect(await Promise.all(owners.map((owner) => portBook(state).reserve(owner)))).toEqual(ports);
  expect(await portBook(state).all()).toEqual(Object.fromEntries(owners.map((owner, i) => [owner, ports[i]])));
});

test("L8: a port that someone listens on is passed over; a released one is free again, its neighbours' are not", async () => {
  const book = portBook(state);
  const first = await book.reserve("a/app/http");
  await book.release("a/");
  const holder = createServer().listen(first, "127.0.0.1");
  await once(holder, "listening");
  expect(await book.reserve("b/app/http")).not.toBe(first);
  holder.close();
  await once(holder, "close");
  expect(await book.reserve("a/app/http")).toBe(first);
  const other = await book.reserve("ab/app/http");
  await book.release("a/");
  expect(Object.values(await book.all())).toContain(other);
});
