import { z } from "zod";
import { fail } from "../base/errors.ts";
import { endpoint, type Handler, handler, page, PageQuery } from "../http/contract.ts";
import { AuditEntry, AuditVerdict } from "./model.ts";
import type { AuditStore } from "./store.ts";

export const listAudit = endpoint({
  id: "listAudit", method: "GET", path: "/v1/audit", role: "viewer", summary: "Who asked for what, newest first",
  query: PageQuery.extend({
    /** As in "cell/eu-1"; also what is below it. */
    subject: z.string().max(500).optional(),
    actor: z.string().max(100).optional(),
    action: z.string().max(100).optional(),
  }),
  returns: page(AuditEntry),
});

export const verifyAudit = endpoint({
  id: "verifyAudit", method: "GET", path: "/v1/audit:verify", role: "viewer", summary: "Check that no entry of the audit log was changed, removed or inserted",
  query: z.object({ anchor: z.string().regex(/^\d+:[0-9a-f]{64}$/, "an anchor is the seq and hash of a head noted before, as in 17:9f…").optional() }),
  returns: AuditVerdict,
});

export const auditHandlers = ({ audit }: { audit: AuditStore }): Handler[] => [
  handler(listAudit, async ({ query }) => {
    const before = query.cursor === undefined ? null : Number(query.cursor);
    if (before !== null && !Number.isSafeInteger(before)) throw fail("invalid_input", { issues: [{ path: "query.cursor", message: "not a cursor of this list" }] });
    const items = await audit.list(query, before, query.limit + 1);
    const more = items.length > query.limit;
    if (more) items.pop();
    return { items, nextCursor: more ? String(items.at(-1)?.seq) : null };
  }),
  handler(verifyAudit, async ({ query, signal }) => {
    const [seq, hash] = query.anchor?.split(":") ?? [];
    return audit.verify(seq && hash ? { seq: Number(seq), hash } : null, signal);
  }),
];
