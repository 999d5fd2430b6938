import { CellplaneError, type ErrorCode, errorKinds, fail } from "../base/errors.ts";

/** RFC 9457, with what our clients need to say the same in their own words. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  /** What to do. */
  fix: string;
  /** "same": the same call may be sent again · "later": after a pause · "never" */
  retry: "same" | "later" | "never";
  /** Names this very occurrence in the control plane's log; equals the trace id. */
  instance: string;
  /** What `detail` was made of. */
  data: unknown;
}

export const problemType = "application/problem+json";

export function problemOf(error: CellplaneError, trace: string): Problem {
  const { http, fix, retry } = error.kind;
  const words = error.code.replaceAll("_", " ");
  return {
    type: `urn:cellplane:error:${error.code}`, title: words.charAt(0).toUpperCase() + words.slice(1), status: http,
    detail: error.message, code: error.code, fix, retry, instance: `urn:cellplane:trace:${trace}`, data: error.data,
  };
}

const isProblem = (body: unknown): body is Problem => typeof body === "object" && body !== null && typeof (body as Problem).code === "string" && typeof (body as Problem).detail === "string";

/** The error a problem was made of. A code that this build does not know keeps its words. */
export function errorOf(body: unknown, status: number, url: string): CellplaneError {
  if (!isProblem(body)) return fail("unexpected_answer", { url, why: `status ${status} without a problem document` });
  const cause = { trace: typeof body.instance === "string" ? body.instance.split(":").at(-1) : undefined };
  if (!Object.hasOwn(errorKinds, body.code)) return fail("unknown_refusal", { code: body.code, detail: body.detail, fix: String(body.fix) }, { cause });
  return new CellplaneError(body.code as ErrorCode, body.data as never, { cause });
}

/** The trace id that came with an error of the API; null when it is from elsewhere. */
export function traceOf(error: unknown): string | null {
  const trace = ((error as Error | null)?.cause as { trace?: unknown } | undefined)?.trace;
  return typeof trace === "string" ? trace : null;
}
