import { z } from "zod";
import { Name } from "../base/names.ts";
import { type KeyKind, keySpaces, TenantKey } from "../tenant/model.ts";

/**
 * How a request finds its cell, as pure functions over a table:
 *
 *   head ──identify (rules, keys)──► tenant ──routeOf (entry, cell)──► route | refuse
 *
 * The embedded router runs these functions themselves; every other engine is compared with them (SPEC R1).
 */

/** What a router does with a tenant's requests. hold: keep them waiting for a moment · quarantined, suspended: refuse at once. */
export const routeStates = ["active", "hold", "quarantined", "suspended"] as const;
export type RouteState = (typeof routeStates)[number];

/** What a router does with a cell: open takes requests, closed answers 503 at once. */
export const cellRouteStates = ["open", "closed"] as const;
type CellRouteState = (typeof cellRouteStates)[number];

/** How a request names its tenant, tried in the order given; the first rule that finds a tenant decides. */
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

/** Where a key is looked up. `name` is the space of the tenants' own names. */
export type KeySpace = (typeof keySpaces)[KeyKind];
export const lookupSpaces = ["name", "host", "header", "path", "apikey"] as const satisfies readonly ("name" | KeySpace)[];
export type LookupSpace = (typeof lookupSpaces)[number];

export interface CellRoute {
  /** 1…65535 */
  index: number;
  cell: string;
  /** host:port; null while it has none. */
  endpoint: string | null;
  state: CellRouteState;
}

/**
 * A tenant's route as one number below 2^50: cell index (16 bits), state (2), epoch (32). One store of 64 bits changes it,
 * so no reader sees a new cell with an old epoch. 0 is "no route".
 */
export const packEntry = (cellIndex: number, state: RouteState, epoch: number): number => cellIndex * 2 ** 34 + routeStates.indexOf(state) * 2 ** 32 + epoch;
export const cellIndexOf = (entry: number): number => Math.floor(entry / 2 ** 34);
export const stateOf = (entry: number): RouteState => routeStates[Math.floor(entry / 2 ** 32) % 4] ?? "quarantined";
export const epochOf = (entry: number): number => entry % 2 ** 32;
export const cellIndexMax = 0xffff;
export const epochMax = 0xffff_ffff;

/** A rule with its texts as bytes, ready to be compared with a request's. */
export interface ReadyRule {
  rule: IdentifyRule;
  /** host: the suffix with its leading dot · path: the prefix with its trailing slash · else empty. */
  text: Uint8Array;
  /** header, apikey: the header's name in lower case; else "". */
  header: string;
}

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

export const readyRules = (rules: readonly IdentifyRule[]): ReadyRule[] =>
  rules.map((rule) => ({ rule, text: ascii(textOfRule(rule)), header: "header" in rule ? rule.header.toLowerCase() : "" }));

function textOfRule(rule: IdentifyRule): string {
  if (rule.by === "host" && rule.suffix) return `.${rule.suffix.toLowerCase().replace(/^\./, "")}`;
  return rule.by === "path" ? rule.prefix.replace(/\/?$/, "/") : "";
}

/** What is asked of a table. Bytes and not strings, so that a router looks up straight in the buffer it has read into. */
export interface RouteLookup {
  readonly rules: readonly ReadyRule[];
  /** The number of the tenant that these bytes name in that space; −1 when they name none. */
  find(space: LookupSpace, bytes: Uint8Array, start: number, end: number): number;
  /** The same for the SHA-256 of these bytes in the space `apikey`. */
  findSecret(bytes: Uint8Array, start: number, end: number): number;
  /** The tenant's packed route; 0 when it has none. */
  entryOf(tenant: number): number;
  nameOf(tenant: number): string;
  cellOf(index: number): CellRoute | undefined;
}

/** A request's head as far as identification reads it. */
export interface RequestHead {
  /** The host in lower case without the port, `hostLength` bytes long; 0 when the request has none. */
  readonly host: Uint8Array;
  readonly hostLength: number;
  readonly bytes: Uint8Array;
  /** The path without query and fragment, in `bytes`. */
  readonly pathStart: number;
  readonly pathEnd: number;
  /** How often the header of this lower-case name stands in the head; the first one's value is then in `bytes` from `valueStart` to `valueEnd`. */
  count(name: string): number;
  readonly valueStart: number;
  readonly valueEnd: number;
}

export const refusals = {
  unknown_tenant: { status: 404, title: "No tenant of this name" },
  ambiguous_tenant: { status: 400, title: "The request names its tenant twice" },
  suspended: { status: 403, title: "The tenant is suspended" },
  quarantined: { status: 503, title: "The tenant is quarantined" },
  cell_closed: { status: 503, title: "The tenant's cell takes no requests" },
  cell_unknown: { status: 503, title: "The tenant's cell is not known here" },
} as const;
type RefusalReason = keyof typeof refusals;

export interface RouteDecision {
  kind: "route";
  /** Its number in the table asked. */
  tenant: number;
  /** What the decision was made by. */
  entry: number;
  cell: CellRoute;
  epoch: number;
  state: "active" | "hold";
}
interface RefuseDecision {
  kind: "refuse";
  status: number;
  reason: RefusalReason;
}
export type Decision = RouteDecision | RefuseDecision;

/** One look into the table, for people who ask why. */
export interface Look {
  rule: IdentifyRule;
  space: LookupSpace;
  /** What was looked up; of an API key nothing is shown. */
  value: string;
  tenant: string | null;
}

export interface Identified {
  /** The tenant's number, or which refusal it is when negative. */
  tenant: number;
  /** Where the path to send on begins: after what a path rule strips. */
  pathStart: number;
}

const unknown = -1;
const ambiguous = -2;
const slash = 0x2f;
const dot = 0x2e;

/**
 * Who a request is for.
 * @param looks is given each look into the table, in order
 */
export function identify(table: RouteLookup, head: RequestHead, looks?: Look[]): Identified {
  for (const ready of table.rules) {
    const { rule } = ready;
    let tenant = unknown;
    let pathStart = head.pathStart;
    switch (rule.by) {
      case "host": {
        if (head.hostLength === 0) break;
        tenant = look(table, "host", head.host, 0, head.hostLength, rule, looks);
        const labelEnd = head.hostLength - ready.text.length;
        if (tenant === unknown && ready.text.length > 0 && labelEnd > 0 && isAt(head.host, labelEnd, ready.text) && firstOf(dot, head.host, 0, labelEnd) === labelEnd)
          tenant = look(table, "name", head.host, 0, labelEnd, rule, looks);
        break;
      }
      case "header": {
        const count = head.count(ready.header);
        // Two values are no choice for us to make: the app may read the other one.
        if (count > 1) return { tenant: ambiguous, pathStart };
        if (count === 1) tenant = lookBoth(table, "header", head.bytes, head.valueStart, head.valueEnd, rule, looks);
        break;
      }
      case "path": {
        const start = head.pathStart + ready.text.length;
        if (start >= head.pathEnd || !isAt(head.bytes, head.pathStart, ready.text)) break;
        const end = firstOf(slash, head.bytes, start, head.pathEnd);
        tenant = lookBoth(table, "path", head.bytes, start, end, rule, looks);
        if (rule.strip) pathStart = end;
        break;
      }
      case "apikey": {
        const count = head.count(ready.header);
        if (count > 1) return { tenant: ambiguous, pathStart };
        if (count === 0) break;
        const start = head.valueStart + (isBearer(head.bytes, head.valueStart, head.valueEnd) ? 7 : 0);
        tenant = table.findSecret(head.bytes, start, head.valueEnd);
        looks?.push({ rule, space: "apikey", value: "(the key's SHA-256)", tenant: tenant < 0 ? null : table.nameOf(tenant) });
        break;
      }
    }
    if (tenant >= 0) return { tenant, pathStart };
  }
  return { tenant: unknown, pathStart: head.pathStart };
}

/** Where a tenant's requests go now. Negative numbers are those of {@link identify}. */
export function routeOf(table: RouteLookup, tenant: number): Decision {
  if (tenant < 0) return refuse(tenant === ambiguous ? "ambiguous_tenant" : "unknown_tenant");
  const entry = table.entryOf(tenant);
  if (entry === 0) return refuse("unknown_tenant");
  const state = stateOf(entry);
  if (state === "suspended" || state === "quarantined") return refuse(state);
  const cell = table.cellOf(cellIndexOf(entry));
  if (cell === undefined) return refuse("cell_unknown");
  // A tenant on hold waits wherever its cell stands: it may be on its way out of a closed one.
  if (state === "active" && (cell.state === "closed" || cell.endpoint === null)) return refuse("cell_closed");
  return { kind: "route", tenant, entry, cell, epoch: epochOf(entry), state };
}

export const decide = (table: RouteLookup, head: RequestHead, looks?: Look[]): Decision => routeOf(table, identify(table, head, looks).tenant);

const refuse = (reason: RefusalReason): RefuseDecision => ({ kind: "refuse", status: refusals[reason].status, reason });

function look(table: RouteLookup, space: LookupSpace, bytes: Uint8Array, start: number, end: number, rule: IdentifyRule, looks: Look[] | undefined): number {
  const tenant = table.find(space, bytes, start, end);
  looks?.push({ rule, space, value: textOf(bytes, start, end), tenant: tenant < 0 ? null : table.nameOf(tenant) });
  return tenant;
}

function lookBoth(table: RouteLookup, space: LookupSpace, bytes: Uint8Array, start: number, end: number, rule: IdentifyRule, looks: Look[] | undefined): number {
  if (end <= start) return unknown;
  const tenant = look(table, space, bytes, start, end, rule, looks);
  return tenant >= 0 ? tenant : look(table, "name", bytes, start, end, rule, looks);
}

function isAt(bytes: Uint8Array, at: number, text: Uint8Array): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text[i]) return false;
  return true;
}

function firstOf(byte: number, bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && bytes[at] !== byte) at++;
  return at;
}

const bearer = ascii("bearer ");
function isBearer(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start <= bearer.length) return false;
  for (let i = 0; i < bearer.length; i++) if (((bytes[start + i] ?? 0) | 0x20) !== bearer[i]) return false;
  return true;
}

const textOf = (bytes: Uint8Array, start: number, end: number): string => String.fromCharCode(...bytes.subarray(start, end));

/** Why a request goes where it goes: what `route explain` shows. */
export const Explanation = z.object({
  looks: z.array(z.object({ rule: IdentifyRule, space: z.enum(lookupSpaces), value: z.string(), tenant: z.string().nullable() })),
  outcome: z.enum(["forward", "hold", "refuse"]),
  tenant: z.string().nullable(),
  cell: z.string().nullable(),
  endpoint: z.string().nullable(),
  state: z.enum(routeStates).nullable(),
  /** Null when no tenant was found. */
  epoch: z.int().nullable(),
  /** HTTP status of the refusal; null when it is forwarded or held. */
  status: z.int().nullable(),
  reason: z.string().nullable(),
  /** One sentence. */
  why: z.string(),
});
export type Explanation = z.infer<typeof Explanation>;

export function explain(table: RouteLookup, head: RequestHead): Explanation {
  const looks: Look[] = [];
  const { tenant } = identify(table, head, looks);
  const decision = routeOf(table, tenant);
  const entry = tenant < 0 ? 0 : table.entryOf(tenant);
  const cell = table.cellOf(cellIndexOf(entry));
  const name = entry === 0 ? null : table.nameOf(tenant);
  const found = looks.findLast((each) => each.tenant !== null);
  const by = found ? `${found.space} ${found.value} names ${found.tenant}` : `none of ${looks.length} looks found a tenant`;
  return {
    looks, tenant: name, cell: cell?.cell ?? null, endpoint: cell?.endpoint ?? null,
    state: entry === 0 ? null : stateOf(entry), epoch: entry === 0 ? null : epochOf(entry),
    outcome: decision.kind === "refuse" ? "refuse" : decision.state === "hold" ? "hold" : "forward",
    status: decision.kind === "refuse" ? decision.status : null,
    reason: decision.kind === "refuse" ? decision.reason : null,
    why: decision.kind === "refuse" ? `${by}: ${refusals[decision.reason].title}` : `${by}, which ${decision.state === "hold" ? "is on hold in" : "lives in"} ${decision.cell.cell} at epoch ${decision.epoch}`,
  };
}

/** A router as the control plane knows it. */
export const Router = z.object({
  name: z.string(),
  /** Of the route log: what it has applied. */
  version: z.int(),
  /** Versions it lacks. */
  behind: z.int().min(0),
  /** Since it last said so. A router speaks at least every few seconds. */
  ageMs: z.int(),
  /** Requests under way for tenants on hold: name → count. */
  inFlight: z.record(z.string(), z.int()),
});
export type Router = z.infer<typeof Router>;
