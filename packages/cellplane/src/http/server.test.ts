import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { errorKinds } from "../base/errors.ts";
import { type Call, handler, isMutation, mayCall, roles } from "./contract.ts";
import { createApp } from "./server.ts";
import { type TestApi, testApi } from "./testing/api.ts";
import { declaredEndpoints } from "./testing/declared.ts";
import { createNote } from "./testing/notes.ts";

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

let serial = 0;
const fresh = (): string => `n${serial++}`;
const notes = async (): Promise<number> => (await api.store.query<{ n: number }>("select count(*) as n from note"))[0]?.n ?? -1;

describe("H1: every endpoint asks for its role, and answers those without it with a problem", () => {
  test("for each endpoint that any noun declares, and each role", async () => {
    const endpoints = await declaredEndpoints();
    const handlers = endpoints.map((endpoint) => ({ endpoint, handle: () => Promise.reject(new Error("not to be reached")) }));
    const app = createApp({ store: api.store, tokens: api.tokens, handlers, log: pino({ level: "silent" }) });
    for (const endpoint of endpoints) {
      const path = endpoint.path.replaceAll(/\{\w+\}/g, "nobody");
      for (const role of [null, "viewer", "operator", "admin", "router"] as const) {
        // Those who may are refused for a parameter that is none, and before anything is done.
        const response = await app.request(`${path}?nonsense=1`, {
          method: endpoint.method, headers: { ...(role ? { authorization: `Bearer ${api.secrets[role]}` } : {}), "content-type": "application/json" }, ...(isMutation(endpoint) ? { body: "{}" } : {}),
        });
        const { status, body } = { status: response.status, body: (await response.json()) as { code: string } };
        const may = mayCall(role ?? "public", endpoint.role);
        expect(`${role} ${endpoint.id} ${status === 401 || status === 403 ? body.code : "let in"}`).toBe(`${role} ${endpoint.id} ${may ? "let in" : role === null ? "unauthenticated" : "forbidden"}`);
      }
    }
  });

  test("the ladder of roles, and the router beside it", () => {
    const table = roles.map((held) => roles.map((needed) => (mayCall(held, needed) ? "x" : "-")).join("")).join(" ");
    //          public  viewer  operator admin router
    expect(table).toBe("x---- xx--- xxx-- xxxxx x---x");
  });

  test.each([
    ["no token", {}],
    ["a wrong token", { authorization: "Bearer cpt_wrong" }],
    ["another scheme", { authorization: "Basic YTpi" }],
    ["two tokens in one", { authorization: "Bearer a b" }],
    ["an empty token", { authorization: "Bearer " }],
  ])("%s is 401 and says how to get one", async (_, headers) => {
    const { status, body, headers: answered } = await api.send(null, "GET", "/v1/notes", undefined, headers as Record<string, string>);
    expect([status, body.code, answered.get("www-authenticate")]).toEqual([401, "unauthenticated", 'Bearer realm="cellplane"']);
    expect(body.fix).toContain("CELLPLANE_TOKEN");
  });
});

describe("H2: a failure is a problem document with a code, a fix and a trace id", () => {
  test("of the documented shape", async () => {
    const { status, body, headers } = await api.send("viewer", "GET", "/v1/notes/nothing");
    expect(headers.get("content-type")).toBe("application/problem+json");
    expect({ ...body, instance: "" }).toEqual({
      type: "urn:cellplane:error:not_found", title: "Not found", status: 404, code: "not_found", retry: "never", instance: "",
      detail: "there is no note nothing", fix: errorKinds.not_found.fix, data: { what: "note", name: "nothing" },
    });
    expect(status).toBe(404);
    expect(body.instance).toBe(`urn:cellplane:trace:${headers.get("x-trace-id")}`);
  });

  test("the caller's trace goes on", async () => {
    const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    const { headers } = await api.send("viewer", "GET", "/v1/notes", undefined, { traceparent: `00-${trace}-00f067aa0ba902b7-01` });
    expect(headers.get("x-trace-id")).toBe(trace);
  });

  test("every issue of the input is listed, each with its path", async () => {
    const { status, body } = await api.send("operator", "POST", "/v1/notes?dryRun=true", { name: "Not A Name", lines: [{ at: 1 }, { at: "x" }], txet: "typo" });
    const issues = (body.data as { issues: { path: string }[] }).issues;
    expect(status).toBe(400);
    expect(issues.map((issue) => issue.path).sort()).toEqual(["lines.1.at", "name", "txet"]);
  });

  test.each([
    ["an unknown query parameter", "GET", "/v1/notes?limt=3", undefined, {}, 400, "invalid_input"],
    ["a limit out of range", "GET", "/v1/notes?limit=0", undefined, {}, 400, "invalid_input"],
    ["a name that is no DNS label", "GET", "/v1/notes/..%2fetc", undefined, {}, 400, "invalid_input"],
    ["broken percent-encoding", "GET", "/v1/notes/%zz", undefined, {}, 400, "invalid_input"],
    ["an unknown path", "GET", "/v1/nots", undefined, {}, 404, "not_found"],
    ["a method the path does not take", "PUT", "/v1/notes", {}, {}, 405, "method_not_allowed"],
    ["a dryRun that is neither", "POST", "/v1/notes?dryRun=perhaps", { name: "a" }, {}, 400, "invalid_input"],
    ["an If-Match that is no ETag", "PATCH", "/v1/notes/a", { text: "" }, { "if-match": "seven" }, 400, "invalid_input"],
    ["a key that is too long", "POST", "/v1/notes", { name: "a" }, { "idempotency-key": "k".repeat(129) }, 400, "invalid_input"],
    ["a body that is no JSON by its type", "POST", "/v1/notes", { name: "a" }, { "content-type": "text/plain" }, 415, "wrong_media_type"],
    ["a body where none is taken", "DELETE", "/v1/notes/a", { name: "a" }, {}, 400, "invalid_input"],
  ] as const)("%s", async (_, method, path, body, headers, status, code) => {
    const answer = await api.send("admin", method, path, body, headers);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
    expect(answer.body.fix).not.toBe("");
    expect(answer.headers.get("allow")).toBe(status === 405 ? "GET, POST" : null);
  });

  test("a defect of ours is 500 with the trace and nothing of its insides", async () => {
    await api.store.query("alter table note rename to note_away");
    const { status, body, text } = await api.send("viewer", "GET", "/v1/notes");
    await api.store.query("alter table note_away rename to note");
    expect([status, body.code]).toEqual([500, "internal"]);
    expect(text).not.toMatch(/relation|select/);
  });
});

describe("H3: no body is too strange to be refused quickly", () => {
  const post = async (body: string | Uint8Array<ArrayBuffer>) => {
    const response = await api.app.request("/v1/notes", {
      method: "POST", body, headers: { authorization: `Bearer ${api.secrets.operator}`, "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) },
    });
    return { status: response.status, body: (await response.json()) as { code: string; detail: string } };
  };

  test.each([
    ["no JSON", "{", 400],
    ["not UTF-8", new Uint8Array([0x22, 0xff, 0x22]), 400],
    ["a __proto__ key", '{"name":"a","__proto__":{"admin":true}}', 400],
    ["a __proto__ key deep inside", '{"name":"a","lines":[{"__proto__":1}]}', 400],
    ["a NUL", '{"name":"a","text":"\\u0000"}', 400],
    ["half a surrogate pair", '{"name":"a","text":"\\ud800"}', 400],
    ["a bomb of arrays", "[".repeat(400_000) + "]".repeat(400_000), 400],
    ["a bomb of objects", '{"a":'.repeat(100_000) + "1" + "}".repeat(100_000), 400],
    ["10 MB", `"${"x".repeat(10_000_000)}"`, 413],
    ["not an object", "[1,2]", 400],
    ["null", "null", 400],
  ])("%s", async (_, body, status) => {
    const before = process.cpuUsage();
    const answer = await post(body);
    expect(answer.status).toBe(status);
    expect(process.cpuUsage(before).user / 1000).toBeLessThan(1000);
    expect(({} as { admin?: boolean }).admin).toBeUndefined();
  });

  test("10 MB without a declared length are not read to their end", async () => {
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        if (sent >= 10_000_000) return controller.close();
        sent += 100_000;
        controller.enqueue(new Uint8Array(100_000).fill(0x20));
      },
    });
    const response = await api.app.request("/v1/notes", {
      method: "POST", body, duplex: "half", headers: { authorization: `Bearer ${api.secrets.operator}`, "content-type": "application/json", "transfer-encoding": "chunked" },
    } as RequestInit);
    expect(response.status).toBe(413);
    expect(sent).toBeLessThan(2_000_000);
  });
});

describe("H4: what was decided from an old state is refused", () => {
  test("an ETag names the generation, If-Match refuses another, If-None-Match saves the answer", async () => {
    const name = fresh();
    const created = await api.send("operator", "POST", "/v1/notes", { name });
    expect([created.status, created.headers.get("etag")]).toEqual([201, '"1"']);
    const first = await api.send("operator", "PATCH", `/v1/notes/${name}`, { text: "one" }, { "if-match": '"1"' });
    expect([first.status, first.headers.get("etag")]).toEqual([200, '"2"']);
    const stale = await api.send("operator", "PATCH", `/v1/notes/${name}`, { text: "two" }, { "if-match": '"1"' });
    expect([stale.status, stale.body.code]).toEqual([412, "generation_stale"]);
    expect((await api.send("viewer", "GET", `/v1/notes/${name}`, undefined, { "if-none-match": '"2"' })).status).toBe(304);
    expect((await api.send("viewer", "GET", `/v1/notes/${name}`)).body).toEqual({ name, text: "one", generation: 2 });
  });

  test("of twenty that name the same generation, one wins", async () => {
    const name = fresh();
    await api.send("operator", "POST", "/v1/notes", { name });
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => api.send("operator", "PATCH", `/v1/notes/${name}`, { text: String(i) }, { "if-match": '"1"' })));
    expect(answers.filter((a) => a.status === 200)).toHaveLength(1);
    expect(answers.filter((a) => a.status === 412)).toHaveLength(19);
  });
});

describe("H5: a dry run shows what would be and leaves nothing", () => {
  test("neither the thing, nor its audit entry, event or key", async () => {
    const counts = async () => api.store.query("select (select count(*) from note) notes, (select count(*) from audit) audit, (select count(*) from event) events, (select count(*) from idempotency) keys");
    const before = await counts();
    const name = fresh();
    const { status, body } = await api.send("operator", "POST", "/v1/notes?dryRun=true", { name, text: "x" }, { "idempotency-key": `dry-${name}` });
    expect([status, body]).toEqual([201, { name, text: "x", generation: 1 }]);
    expect(await counts()).toEqual(before);
    expect((await api.send("operator", "POST", "/v1/notes", { name, text: "x" }, { "idempotency-key": `dry-${name}` })).status).toBe(201);
  });
});

describe("H6: a call with a key is done once, whatever is repeated when", () => {
  test("a repeat is answered word for word, also when the thing is gone meanwhile", async () => {
    const name = fresh();
    const key = { "idempotency-key": `k-${name}` };
    const first = await api.send("operator", "POST", "/v1/notes", { name, text: "once" }, key);
    await api.send("operator", "PATCH", `/v1/notes/${name}`, { text: "changed" });
    const second = await api.send("operator", "POST", "/v1/notes", { text: "once", name }, key);
    expect([second.status, second.text]).toEqual([first.status, first.text]);
    const gone = { "idempotency-key": `d-${name}` };
    expect((await api.send("admin", "DELETE", `/v1/notes/${name}`, undefined, gone)).status).toBe(204);
    expect((await api.send("admin", "DELETE", `/v1/notes/${name}`, undefined, gone)).status).toBe(204);
    expect((await api.send("admin", "DELETE", `/v1/notes/${name}`)).status).toBe(404);
  });

  test("fifty at once do it once", async () => {
    const name = fresh();
    const answers = await Promise.all(Array.from({ length: 50 }, () => api.send("operator", "POST", "/v1/notes", { name }, { "idempotency-key": `k-${name}` })));
    expect(new Set(answers.map((a) => `${a.status} ${a.text}`)).size).toBe(1);
    expect(answers[0]?.status).toBe(201);
    const [entries] = await api.store.query<{ n: number }>("select count(*) as n from audit where subject = $1", [`note/${name}`]);
    expect(entries?.n).toBe(1);
  });

  test("a key belongs to its caller and to its request", async () => {
    const key = { "idempotency-key": `k-${fresh()}` };
    const name = fresh();
    await api.send("operator", "POST", "/v1/notes", { name }, key);
    const other = await api.send("operator", "POST", "/v1/notes", { name: fresh() }, key);
    expect([other.status, other.body.code]).toEqual([409, "idempotency_mismatch"]);
    expect((await api.send("operator", "PATCH", `/v1/notes/${name}`, { text: "" }, key)).body.code).toBe("idempotency_mismatch");
    expect((await api.send("admin", "POST", "/v1/notes", { name: fresh() }, key)).status).toBe(201);
  });

  test("a call that was refused may be tried again with its key", async () => {
    const name = fresh();
    const key = { "idempotency-key": `k-${name}` };
    await api.send("operator", "POST", "/v1/notes", { name });
    expect((await api.send("operator", "POST", "/v1/notes", { name }, key)).body.code).toBe("already_exists");
    await api.send("admin", "DELETE", `/v1/notes/${name}`);
    expect((await api.send("operator", "POST", "/v1/notes", { name }, key)).status).toBe(201);
  });

  test("calls that are gathered into one transaction have each their entry and their answer", async () => {
    const waiting: { call: Call<unknown, unknown, { name: string }>; done: (note: unknown) => void }[] = [];
    const gathered = handler(createNote, (call) => new Promise((done) => void waiting.push({ call, done: done as (note: unknown) => void })));
    const app = createApp({ store: api.store, tokens: api.tokens, handlers: [gathered], log: pino({ level: "silent" }) });
    const names = [fresh(), fresh(), fresh()];
    const post = (name: string) =>
      app.request("/v1/notes", { method: "POST", body: JSON.stringify({ name }), headers: { authorization: `Bearer ${api.secrets.operator}`, "content-type": "application/json", "content-length": "99", "idempotency-key": `g-${name}` } });
    const asked = [...names, names[0] ?? ""].map(post);
    await expect.poll(() => waiting.length).toBe(4);
    await api.store.transaction(async (tx) => {
      for (const { call, done } of waiting) {
        const note = { name: call.body.name, text: "", generation: 1 };
        await tx.query("insert into note (name, text) values ($1, '') on conflict do nothing", [note.name]);
        call.record(tx, note);
        done(note);
      }
    });
    expect((await Promise.all(asked)).map((response) => response.status)).toEqual([201, 201, 201, 201]);
    const before = await notes();
    expect(await (await post(names[1] ?? "")).json()).toEqual({ name: names[1], text: "", generation: 1 });
    expect([waiting.length, await notes()]).toEqual([4, before]);
    expect((await api.audit.list({}, null, 4)).map((entry) => entry.subject).sort()).toEqual([...names, names[0]].map((name) => `note/${name}`).sort());
  });

  test("a transaction that dies leaves neither the work nor the key", async () => {
    const name = fresh();
    const before = await notes();
    // The audit entry cannot be written: the database fails the call at its very end.
    await api.store.query("alter table audit_head rename to audit_head_away");
    const broken = await api.send("operator", "POST", "/v1/notes", { name }, { "idempotency-key": `k-${name}` });
    await api.store.query("alter table audit_head_away rename to audit_head");
    expect([broken.status, await notes()]).toEqual([500, before]);
    expect((await api.send("operator", "POST", "/v1/notes", { name }, { "idempotency-key": `k-${name}` })).status).toBe(201);
  });
});

describe("lists", () => {
  test("H7: pages hold every item once, whatever the page size", async () => {
    await Promise.all(Array.from({ length: 25 }, () => api.send("operator", "POST", "/v1/notes", { name: `page-${fresh()}` })));
    const seen: string[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const { body }: { body: { items: { name: string }[]; nextCursor: string | null } } = (await api.send("viewer", "GET", `/v1/notes?limit=7${cursor && `&cursor=${cursor}`}`)) as never;
      seen.push(...body.items.map((item) => item.name));
      cursor = body.nextCursor;
    }
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen.length).toBe(await notes());
  });
});

describe("H8: answers cannot be turned against a browser", () => {
  test("headers", async () => {
    const { headers } = await api.send("viewer", "GET", "/v1/notes");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(headers.get("cache-control")).toBe("no-store");
    expect([...headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
  });

  test("a cookie is no token", async () => {
    expect((await api.send(null, "GET", "/v1/notes", undefined, { cookie: `token=${api.secrets.admin}; cellplane=${api.secrets.admin}` })).status).toBe(401);
  });
});

test("health answers without a token", async () => {
  expect((await api.send(null, "GET", "/health")).status).toBe(200);
  expect((await api.send(null, "GET", "/ready")).status).toBe(200);
});

test("metrics count by route and class", async () => {
  await api.send("viewer", "GET", "/v1/notes/never");
  const text = await api.metrics.text();
  expect(text).toMatch(/cellplane_http_requests_total\{method="GET",route="\/v1\/notes\/\{note\}",code_class="4xx"\} \d+/);
});
