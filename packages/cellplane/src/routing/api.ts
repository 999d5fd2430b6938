import { z } from "zod";
import { fail } from "../base/errors.ts";
import { Name } from "../base/names.ts";
import { endpoint, handler, type Handler, page, PageQuery, type RawHandler } from "../http/contract.ts";
import type { RouteFeed } from "./feed.ts";
import { Explanation, Router } from "./model.ts";

const text = z.string().max(8192);

export const explainRoute = endpoint({
  id: "explainRoute", method: "GET", path: "/v1/routes/explain", role: "viewer", summary: "Shows where a request would go, and why",
  query: z.object({ host: text.optional(), path: text.startsWith("/").optional(), header: z.union([text, z.array(text).max(100)]).optional() }), returns: Explanation,
});
export const listRouters = endpoint({ id: "listRouters", method: "GET", path: "/v1/routers", role: "viewer", summary: "Lists the routers heard of within the last hour", query: PageQuery, returns: page(Router) });

/** What a router says after each batch it has applied, and when a tenant on hold has fewer requests under way. */
const Ack = z.strictObject({ router: z.string().regex(/^[\w.:-]{1,100}$/), version: z.int().min(0), inFlight: z.record(Name, z.int().min(0)).default({}) });

export const routingHandlers = ({ feed }: { feed: RouteFeed }): Handler[] => [
  handler(explainRoute, ({ query }) => feed.explain({ host: query.host, path: query.path, headers: query.header === undefined ? [] : [query.header].flat() })),
  handler(listRouters, async ({ query }) => {
    const rest = (await feed.routers()).filter((router) => router.name > (query.cursor ?? ""));
    const items = rest.slice(0, query.limit);
    return { items, nextCursor: rest.length > items.length ? (items.at(-1)?.name ?? null) : null };
  }),
];

/** What routers speak with the control plane: no JSON calls, and nothing for the audit log. */
export const feedRoutes = (feed: RouteFeed): RawHandler[] => [
  { method: "GET", path: "/v1/routes/snapshot", role: "router", handle: (request) => feed.snapshotStream(request) },
  { method: "GET", path: "/v1/routes/stream", role: "router", handle: (request) => feed.changeStream(request) },
  {
    method: "POST", path: "/v1/routes/acks", role: "router",
    handle: async (request) => {
      const ack = Ack.safeParse(await request.json().catch(() => null));
      if (!ack.success) throw fail("invalid_input", { issues: ack.error.issues.map((issue) => ({ path: issue.path.join("."), message: issue.message })) });
      feed.ack(ack.data);
      return new Response(null, { status: 204 });
    },
  },
];
