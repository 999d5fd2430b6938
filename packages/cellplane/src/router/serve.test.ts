import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type TestFleet, testCell, testFleet } from "./testing/fleet.ts";

let fleet: TestFleet;
beforeAll(async () => {
  fleet = await testFleet({ cells: [await testCell("eu-1", 1), await testCell("eu-2", 2)] });
});
afterAll(() => fleet.close());

test("a request goes to its tenant's cell and the answer comes back", async () => {
  const answer = await fleet.raw("GET /orders?x=1 HTTP/1.1\r\nHost: acme.test\r\nConnection: close\r\n\r\n");
  expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  expect(answer).toContain("eu-1:GET:/orders?x=1:0");
});
