/** What the API says when it refuses (RFC 9457), or what we say when there is no answer. */
export interface Problem {
  /** 0 when there was no answer. */
  status: number;
  /** The public code, as in "wrong_state". */
  code: string;
  /** What happened. */
  message: string;
  /** What to do. */
  fix: string;
  trace: string | null;
}

export class Refused extends Error {
  override name = "Refused";
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.message);
    this.problem = problem;
  }
}

export type Query = Record<string, string | number | undefined>;

/** The API as the console calls it. Each method throws `Refused`. */
export interface Client {
  get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T>;
  post<T>(path: string, body: unknown, reason: string): Promise<T>;
  /** An event stream; resumes after `cursor` when there is one. */
  stream(path: string, cursor: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>>;
}

/**
 * @param base URL of the API's root, ending in a slash
 * @param token sent as the bearer
 */
export function client(base: string, token: string): Client {
  const call = async (path: string, query: Query, init: RequestInit & { headers?: Record<string, string> }): Promise<Response> => {
    const url = new URL(path, base);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value));
    const response = await fetch(url, { ...init, cache: "no-store", headers: { authorization: `Bearer ${token}`, ...init.headers } }).catch((error: unknown) => {
      if (init.signal?.aborted) throw error;
      throw new Refused({ status: 0, code: "server_unreachable", message: "The control plane does not answer.", fix: "Check that it runs; cells go on serving without it.", trace: null });
    });
    if (response.ok) return response;
    throw new Refused(problemOf(response.status, await response.json().catch(() => null)));
  };
  return {
    get: async <T>(path: string, query: Query = {}, signal?: AbortSignal) => (await (await call(path, query, { signal: signal ?? null })).json()) as T,
    post: async <T>(path: string, body: unknown, reason: string) => {
      const headers: Record<string, string> = { "content-type": "application/json", "idempotency-key": freshKey() };
      if (reason) headers["cellplane-reason"] = encodeURIComponent(reason);
      const response = await call(path, {}, { method: "POST", headers, body: JSON.stringify(body) });
      return (response.status === 204 ? null : await response.json()) as T;
    },
    stream: async (path, cursor, signal) => {
      const headers: Record<string, string> = { accept: "text/event-stream" };
      if (cursor) headers["last-event-id"] = cursor;
      const { body } = await call(path, {}, { headers, signal });
      if (!body) throw new Refused(problemOf(0, null));
      return body;
    },
  };
}

const text = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);

/** Reads problem+json, and makes the best of anything else (a proxy's HTML page, an empty body). */
export function problemOf(status: number, body: unknown): Problem {
  const given = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  return {
    status,
    code: text(given["code"]) ?? `http_${status}`,
    message: text(given["detail"]) ?? text(given["title"]) ?? `The control plane answered ${status}.`,
    fix: text(given["fix"]) ?? "Try again; if it stays, look into the control plane's log.",
    // As in "urn:cellplane:trace:4bf9…".
    trace: text(given["instance"])?.split(":").at(-1) ?? null,
  };
}

export const asProblem = (error: unknown): Problem =>
  error instanceof Refused ? error.problem : { status: 0, code: "internal", message: String(error), fix: "Reload the page.", trace: null };

/** Not crypto.randomUUID, which exists on secure origins only, and a laptop's address in the office is none. */
function freshKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
