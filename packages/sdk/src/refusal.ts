import type { Stamp, StampFault } from "./stamp.ts";

export type RefusalCode = StampFault | "misdirected" | "route_stale";

/**
 * An answer given instead of the app's: nothing of the request was applied. 421 tells the router to look the tenant up
 * again and to send the request once more (RFC 9110 §15.5.20).
 */
export interface Refusal {
  code: RefusalCode;
  status: 400 | 403 | 421;
  headers: Record<string, string>;
  /** A problem document (RFC 9457), of the same shape as the control plane's. */
  body: string;
  /** What the request claimed; null when it carried no readable stamp. A forged one is not shown here. */
  stamp: Stamp | null;
}

const kinds: Record<RefusalCode, { status: Refusal["status"]; title: string; fix: string }> = {
  unstamped: { status: 400, title: "The request did not come through a router", fix: "Send it to the fleet's router, which adds the x-cellplane headers." },
  stamp_malformed: { status: 400, title: "The request's stamp cannot be read", fix: "Send it to the fleet's router, which adds all four x-cellplane headers." },
  stamp_forged: { status: 403, title: "The request's stamp is not signed by this fleet", fix: "Check that router and cell have the same stamp secret." },
  misdirected: { status: 421, title: "The request is for another cell", fix: "Send the request through the router again; it will have the newer route." },
  route_stale: { status: 421, title: "The tenant has moved", fix: "Send the request through the router again; it will have the newer route." },
};

/** @param detail what happened, as a sentence for the operator; never a secret */
export function refuse(code: RefusalCode, detail: string, stamp: Stamp | null, more: Record<string, unknown> = {}): Refusal {
  const { status, title, fix } = kinds[code];
  return {
    code,
    status,
    stamp,
    headers: { "content-type": "application/problem+json", "cache-control": "no-store" },
    body: JSON.stringify({ type: `urn:cellplane:error:${code}`, title, status, detail, code, fix, retry: status === 421 ? "same" : "never", data: { ...stamp, ...more } }),
  };
}
