import { z } from "zod";
import { Labels, Name } from "../base/names.ts";
import { Capacity } from "../cell/model.ts";
import { Claim, ClaimValue } from "../claim/model.ts";

/**
 * A tenant's life:
 *
 *   pending ─► active ◄─► suspended ─► deleting ─► (gone; its name stays in the audit log)
 *      └──────────┴───────────────────────▲
 *
 * pending: accepted, waits for its cell (a dedicated one is being made). suspended: routers refuse its requests with 403.
 */
export const tenantStates = ["pending", "active", "suspended", "deleting"] as const;
export type TenantState = (typeof tenantStates)[number];

export const keyKinds = ["host", "alias", "header", "path", "apikey"] as const;
export type KeyKind = (typeof keyKinds)[number];

/** Two keys clash when they share space and value: a host and an alias are looked up in the same place. */
export const keySpaces: Record<KeyKind, "host" | "header" | "path" | "apikey"> = { host: "host", alias: "host", header: "header", path: "path", apikey: "apikey" };

// Matched byte for byte and never normalised, so one spelling only: a name in capitals is refused, an international one
// is written in its ASCII form. A last label of digits would be an address (RFC 3696 §2).
const hostPattern = /^(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*(?!\d+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
// What needs no escape in a header or a path (RFC 3986 §2.3), but for "." and ".." which a path would swallow.
const wordPattern = /^(?!\.{1,2}$)[A-Za-z0-9._~-]{1,128}$/;
const word = { pattern: wordPattern, rule: "at most 128 of A–Z a–z 0–9 . _ ~ -" };
const host = { pattern: hostPattern, rule: "a host name in lower-case ASCII, without port or final dot" };
const keyRules: Record<KeyKind, { pattern: RegExp; rule: string }> = {
  host, alias: host, header: word, path: word,
  apikey: { pattern: /^[0-9a-f]{64}$/, rule: "the SHA-256 of the API key in lower-case hex, never the key itself" },
};

/**
 * One way in which a request names its tenant. `value` is a host name (host, alias), the value of the tenant header
 * (header), the first path segment (path) or the hex SHA-256 of an API key (apikey; the clear text is never stored).
 */
export const TenantKey = z.strictObject({ kind: z.enum(keyKinds), value: z.string().min(1).max(253) }).superRefine((key, context) => {
  const { pattern, rule } = keyRules[key.kind];
  if (!pattern.test(key.value)) context.addIssue({ code: "custom", path: ["value"], message: `a key of kind ${key.kind} is ${rule}` });
});
export type TenantKey = z.infer<typeof TenantKey>;

/** `host:acme.example`: names a key in messages and maps; what clashes has the same place. */
export const keyPlace = (key: TenantKey): string => `${keySpaces[key.kind]}:${key.value}`;

export const keysMax = 50;

const TenantKeys = z.array(TenantKey).max(keysMax, `a tenant has at most ${keysMax} keys`).superRefine((keys, context) => {
  const seen = new Set<string>();
  keys.forEach((key, i) => {
    const place = keyPlace(key);
    if (seen.has(place)) context.addIssue({ code: "custom", path: [i, "value"], message: `the key ${place} stands twice` });
    seen.add(place);
  });
});

export const Tier = Name;

/** Expected load of one tenant; what is not named is not counted. */
export const Load = Capacity.omit({ tenants: true }).strict();
export type Load = z.infer<typeof Load>;

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
  keys: TenantKeys.default([]),
  /** Names and addresses that no other tenant of the fleet may hold, confirmed together with the tenant. */
  claims: z.array(ClaimValue).max(50).default([]),
  /** Expected load; `tenants` is always 1. */
  load: Load.default({}),
}).meta({ id: "NewTenant" });
export type NewTenant = z.infer<typeof NewTenant>;

export const Tenant = z.object({
  ...NewTenant.omit({ claims: true }).shape,
  state: z.enum(tenantStates),
  /** Where it lives; null while pending. */
  cell: Name.nullable(),
  /** +1 with every change of home; 0 while pending. A name that is used again goes on counting, so a fence set for its former bearer stays behind. */
  epoch: z.int().min(0),
  /** +1 with every change. */
  generation: z.int().min(1),
  /** Id of the operation that creates or deletes it; null when none does. */
  operation: z.string().nullable(),
  createdAt: z.iso.datetime(),
}).meta({ id: "Tenant" });
export type Tenant = z.infer<typeof Tenant>;

/** What may be changed in place; what is left out stays. Home and keys have verbs of their own. */
export const TenantPatch = z.strictObject({
  tier: Tier.optional(),
  /** A pin must name the region it lives in; null lifts it. */
  region: Name.nullable().optional(),
  /** Merged; null takes a label away. */
  labels: z.record(Labels.keyType, z.string().max(255).nullable()).optional(),
  load: Load.optional(),
});
export type TenantPatch = z.infer<typeof TenantPatch>;

const placementRoles = ["home", "standby", "arriving", "leaving"] as const;

/** A stay of a tenant in a cell. */
export const Placement = z.object({
  cell: Name,
  role: z.enum(placementRoles),
  epoch: z.int().min(1),
  since: z.iso.datetime(),
  /** Null: still there. */
  until: z.iso.datetime().nullable(),
  /** Why this cell. */
  because: z.array(z.string()),
});
export type Placement = z.infer<typeof Placement>;

export const TenantDetail = z.object({ ...Tenant.shape, placements: z.array(Placement), claims: z.array(Claim) });
export type TenantDetail = z.infer<typeof TenantDetail>;

/** Why a tenant goes where it goes: what spoke for the cell, and what against each of the others. */
export const PlacementExplanation = z.object({
  /** waits: for a cell that is made for it. */
  outcome: z.enum(["placed", "waits", "refused"]),
  /** Null when refused. */
  cell: Name.nullable(),
  because: z.array(z.string()),
  rejected: z.array(z.object({ cell: Name, reason: z.string() })),
});
export type PlacementExplanation = z.infer<typeof PlacementExplanation>;

/** What a creation answers: the tenant, and why it went there. */
export const CreatedTenant = z.object({
  ...Tenant.shape,
  /** False: it was there already, and the same. */
  created: z.boolean(),
  because: PlacementExplanation.shape.because,
  /** Filled on a dry run only, since it names every other cell. */
  rejected: PlacementExplanation.shape.rejected,
});
export type CreatedTenant = z.infer<typeof CreatedTenant>;

/** One requirement of a label selector. */
export type LabelRequirement = { key: string; op: "=" | "!="; value: string } | { key: string; op: "present" | "absent" };

/** `tier=free,plan!=x,vip,!trial` → requirements, all of which must hold; null when the text is no selector. */
export function parseSelector(text: string): LabelRequirement[] | null {
  const requirements: LabelRequirement[] = [];
  for (const part of text.split(",")) {
    const match = /^\s*(?:(?<absent>!)?(?<flag>[a-z0-9][a-z0-9._/-]*)|(?<key>[a-z0-9][a-z0-9._/-]*)\s*(?<op>!?=)=?\s*(?<value>[^=,]*?))\s*$/.exec(part)?.groups;
    if (!match) return null;
    if (match["flag"] !== undefined) requirements.push({ key: match["flag"], op: match["absent"] ? "absent" : "present" });
    else requirements.push({ key: match["key"] ?? "", op: match["op"] === "!=" ? "!=" : "=", value: match["value"] ?? "" });
  }
  return requirements;
}
