import { afterEach, describe, expect, test, vi } from "vitest";
import { client, problemOf, Refused } from "./client.ts";

describe("C10: problems", () => {
  test("are told in the words of the API", () => {
    expect(problemOf(409, { code: "wrong_state", title: "Wrong state", detail: "cell eu-1 is retired", fix: "Choose another verb.", instance: "urn:cellplane:trace:4bf9" })).toEqual({
      status: 409, code: "wrong_state", message: "cell eu-1 is retired", fix: "Choose another verb.", trace: "4bf9",
    });
  });
  test.each([null, "<html>", { detail: 5 }, []])("are told all the same when a proxy answered with %j", (body) => {
    expect(problemOf(502, body)).toMatchObject({ status: 502, code: "http_502", message: "The control plane answered 502.", trace: null });
  });
});

describe("C8: calls", () => {
  afterEach(() => void vi.unstubAllGlobals());
  const answering = (answer: () => Promise<Response>) => {
    const fetch = vi.fn<typeof globalThis.fetch>(answer);
    vi.stubGlobal("fetch", fetch);
    return { api: client("http://plane/", "secret"), sent: () => new Request(fetch.mock.calls[0]?.[0] ?? "", fetch.mock.calls[0]?.[1]) };
  };

  test("carry the token, and an action its reason in any script and a key of its own", async () => {
    const { api, sent } = answering(async () => Response.json({ ok: true }));
    await api.post("v1/cells/eu-1/cordon", {}, "Änderung 変更");
    expect(sent().url).toBe("http://plane/v1/cells/eu-1/cordon");
    expect(sent().headers.get("authorization")).toBe("Bearer secret");
    expect(decodeURIComponent(sent().headers.get("cellplane-reason") ?? "")).toBe("Änderung 変更");
    expect(sent().headers.get("idempotency-key")).toMatch(/^[0-9a-f]{32}$/);
  });
  test("leave out what is not asked for", async () => {
    const { api, sent } = answering(async () => Response.json({}));
    await api.get("v1/tenants", { cell: "eu-1", limit: 10, cursor: undefined });
    expect(sent().url).toBe("http://plane/v1/tenants?cell=eu-1&limit=10");
  });
  test("that nobody answers are refused like others", async () => {
    const { api } = answering(() => Promise.reject(new TypeError("Failed to fetch")));
    await expect(api.get("v1/cells")).rejects.toSatisfy((error: Refused) => error.problem.code === "server_unreachable");
  });
});
