import { z } from "zod";
import { Name } from "../base/names.ts";
import { TenantKey } from "../tenant/model.ts";

/** What a router does with a tenant's requests. hold: keep them waiting for a moment · quarantined, suspended: refuse at once. */
export const routeStates = ["active", "hold", "quarantined", "suspended"] as const;
export type RouteState = (typeof routeStates)[number];

/** What a router does with a cell: open takes requests, closed answers 503 at once. */
export const cellRouteStates = ["open", "closed"] as const;

/** How a request names its tenant, tried in the order given; the first rule that finds something decides. */
export const IdentifyRule = z.discriminatedUnion("by", [
  /** The Host header equals a key of kind host or alias, or its first label is the tenant's name when the rest is `suffix`. */
  z.strictObject({ by: z.literal("host"), suffix: z.string().optional() }),
  /** The header's value is a key of kind header, or a tenant's name. */
  z.strictObject({ by: z.literal("header"), header: z.string() }),
  /** The path segment after `prefix` is a key of kind path, or a tenant's name. `strip` removes both from the path sent on. */
  z.strictObject({ by: z.literal("path"), prefix: z.string().startsWith("/").default("/"), strip: z.boolean().default(false) }),
  /** SHA-256 of the header's value (after "Bearer ") is a key of kind apikey. */
  z.strictObject({ by: z.literal("apikey"), header: z.string().default("authorization") }),
]);
export type IdentifyRule = z.infer<typeof IdentifyRule>;

/** One change of the table. Setting what is already so is harmless. */
export const RouteChange = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("cell"), cell: Name, index: z.int(), endpoint: z.string().nullable(), state: z.enum(cellRouteStates) }),
  z.object({ kind: z.literal("cellGone"), cell: Name, index: z.int() }),
  z.object({ kind: z.literal("tenant"), tenant: Name, cellIndex: z.int(), state: z.enum(routeStates), epoch: z.int().min(1) }),
  z.object({ kind: z.literal("tenantGone"), tenant: Name }),
  z.object({ kind: z.literal("key"), key: TenantKey, tenant: Name }),
  z.object({ kind: z.literal("keyGone"), key: TenantKey }),
  z.object({ kind: z.literal("rules"), rules: z.array(IdentifyRule) }),
]);
export type RouteChange = z.infer<typeof RouteChange>;
