import { z } from "zod";
import { Labels, Name } from "../base/names.ts";
import { Capacity } from "../cell/model.ts";

/**
 * A tenant's life:
 *
 *   pending ─► active ◄─► suspended ─► deleting ─► (gone; its name stays in the audit log)
 *
 * pending: accepted, waits for its cell (a dedicated one is being made). suspended: routers refuse its requests with 403.
 */
export const tenantStates = ["pending", "active", "suspended", "deleting"] as const;
export type TenantState = (typeof tenantStates)[number];

export const keyKinds = ["host", "alias", "header", "path", "apikey"] as const;
export type KeyKind = (typeof keyKinds)[number];

/**
 * One way in which a request names its tenant. `value` is a host name (host, alias), the value of the tenant header
 * (header), the first path segment (path) or the hex SHA-256 of an API key (apikey; the clear text is never stored).
 */
export const TenantKey = z.strictObject({ kind: z.enum(keyKinds), value: z.string().min(1).max(253) });
export type TenantKey = z.infer<typeof TenantKey>;

export const Tier = Name;

/** What a caller says of a new tenant; everything but the name has a default. */
export const NewTenant = z.strictObject({
  name: Name,
  tier: Tier.default("standard"),
  /** Its data never leave this region; null: placement chooses. */
  region: Name.nullable().default(null),
  /** A cell of its own. */
  dedicated: z.boolean().default(false),
  /** A cell wished for by name; refused when it does not fit. Null: placement chooses. */
  cell: Name.nullable().default(null),
  labels: Labels.default({}),
  keys: z.array(TenantKey).max(50).default([]),
  /** Expected load; `tenants` is always 1. */
  load: Capacity.omit({ tenants: true }).default({}),
});
export type NewTenant = z.infer<typeof NewTenant>;

export const Tenant = z.object({
  ...NewTenant.shape,
  state: z.enum(tenantStates),
  /** Where it lives; null while pending. */
  cell: Name.nullable(),
  /** +1 with every change of home; 0 while pending. */
  epoch: z.int().min(0),
  /** +1 with every change. */
  generation: z.int().min(1),
  createdAt: z.iso.datetime(),
});
export type Tenant = z.infer<typeof Tenant>;
