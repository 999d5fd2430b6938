import { refusals } from "../routing/model.ts";

/** Why the router answers by itself. What routing decides is in routing/model.ts. */
const refusalKinds = {
  ...refusals,
  bad_request: { status: 400, title: "This is no HTTP/1.1 request" },
  method_refused: { status: 405, title: "The router does not pass on this method" },
  head_timeout: { status: 408, title: "The request's head took too long" },
  body_timeout: { status: 408, title: "The request's body took too long" },
  target_too_long: { status: 414, title: "The request's target is too long" },
  expectation_failed: { status: 417, title: "Only 100-continue can be expected" },
  head_too_large: { status: 431, title: "The request's head is too large" },
  not_implemented: { status: 501, title: "The router knows no transfer coding but chunked" },
  version_unsupported: { status: 505, title: "The router speaks HTTP/1.1" },
  cell_dropped: { status: 502, title: "The cell dropped the connection" },
  cell_answer: { status: 502, title: "The cell's answer was no HTTP/1.1 response" },
  cell_timeout: { status: 504, title: "The cell did not answer in time" },
  cell_down: { status: 503, title: "The cell does not answer" },
  cell_busy: { status: 503, title: "The cell has as many requests as it may have" },
  tenant_busy: { status: 503, title: "The tenant has as many requests under way as it may have" },
  hold_full: { status: 503, title: "Too many requests wait for the tenant" },
  hold_timeout: { status: 503, title: "The tenant was on hold for too long" },
  route_stale: { status: 503, title: "The tenant has moved and its new place is not known here yet" },
  no_table: { status: 503, title: "The router has no routes yet" },
} as const;
export type RefusalKind = keyof typeof refusalKinds;

const byHeadStatus: Record<number, RefusalKind> = {
  400: "bad_request", 405: "method_refused", 414: "target_too_long", 417: "expectation_failed", 431: "head_too_large", 501: "not_implemented", 505: "version_unsupported",
};
export const kindOfHeadStatus = (status: number): RefusalKind => byHeadStatus[status] ?? "bad_request";

const phrases: Record<number, string> = {
  400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 414: "URI Too Long", 417: "Expectation Failed", 431: "Request Header Fields Too Large",
  501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
};

export interface RefusalContext {
  requestId: string;
  /** The client is told that the connection ends. */
  close: boolean;
  /** HEAD: the answer has no body. */
  bodyless: boolean;
}

/** A whole answer: a problem document (RFC 9457), and when to come again where that may help. */
export function refusalText(kind: RefusalKind, { requestId, close, bodyless }: RefusalContext): string {
  const { status, title } = refusalKinds[kind];
  const body = JSON.stringify({ type: "about:blank", title, status, code: kind, ...(requestId ? { requestId } : {}) });
  return (
    `HTTP/1.1 ${status} ${phrases[status] ?? "Error"}\r\ncontent-type: application/problem+json\r\ncontent-length: ${body.length}\r\ncache-control: no-store\r\n` +
    `${status === 503 ? "retry-after: 1\r\n" : ""}${requestId ? `x-request-id: ${requestId}\r\n` : ""}${close ? "connection: close\r\n" : ""}\r\n${bodyless ? "" : body}`
  );
}
