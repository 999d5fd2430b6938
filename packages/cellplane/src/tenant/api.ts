import { z } from "zod";
import { CellplaneError, fail, type Issue } from "../base/errors.ts";
import { Name } from "../base/names.ts";
import { endpoint, handler, type Handler, page, PageQuery } from "../http/contract.ts";
import type { Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import type { Json } from "../workflow/model.ts";
import { CreatedTenant, keyKinds, NewTenant, parseSelector, Tenant, TenantDetail, TenantKey, TenantPatch, tenantStates, Tier } from "./model.ts";
import type { Admission, TenantStore } from "./store.ts";
import type { DeleteTenantInput } from "./steps.ts";

const OneTenant = z.object({ tenant: Name });

const TenantQuery = PageQuery.extend({
  cell: Name.optional(),
  /** Where it lives, or must live while it is pending. */
  region: Name.optional(),
  tier: Tier.optional(),
  state: z.enum(tenantStates).optional(),
  /** As in `plan=free,stage!=trial,vip,!internal`: all must hold. */
  labels: z.string().max(1000).optional(),
});

/** Rows of an import are judged one by one, so that one bad row does not stop the others. */
const ImportBody = z.strictObject({ tenants: z.array(z.unknown()).min(1).max(1000) });

const ImportOutcome = z.object({
  /** Null when the row does not even have a good name. */
  name: z.string().nullable(),
  outcome: z.enum(["created", "unchanged", "failed"]),
  cell: Name.nullable(),
  error: z.object({ code: z.string(), message: z.string(), fix: z.string() }).nullable(),
});
type ImportOutcome = z.infer<typeof ImportOutcome>;

export const listTenants = endpoint({ id: "listTenants", method: "GET", path: "/v1/tenants", role: "viewer", summary: "Lists tenants in the order of their names", query: TenantQuery, returns: page(Tenant) });
export const getTenant = endpoint({ id: "getTenant", method: "GET", path: "/v1/tenants/{tenant}", role: "viewer", summary: "Shows a tenant with its keys, its claims and the cells it lived in", params: OneTenant, returns: TenantDetail });
export const createTenant = endpoint({
  id: "createTenant", method: "POST", path: "/v1/tenants", role: "operator", status: 201, summary: "Creates a tenant and gives it its cell",
  description: "Creating the same tenant again answers with it and changes nothing. A dry run says why it would go where. A tenant whose own cell must be made first is answered as pending, with the operation that makes it.",
  body: NewTenant, returns: CreatedTenant,
});
export const importTenants = endpoint({
  id: "importTenants", method: "POST", path: "/v1/tenants:import", role: "operator", summary: "Creates up to a thousand tenants; each has its own outcome, in the order of the rows",
  body: ImportBody, returns: z.object({ outcomes: z.array(ImportOutcome) }),
});
export const updateTenant = endpoint({ id: "updateTenant", method: "PATCH", path: "/v1/tenants/{tenant}", role: "operator", summary: "Changes a tenant's tier, pin, labels or expected load", params: OneTenant, body: TenantPatch, returns: Tenant });
export const suspendTenant = endpoint({ id: "suspendTenant", method: "POST", path: "/v1/tenants/{tenant}/suspend", role: "operator", summary: "Lets routers refuse a tenant's requests", params: OneTenant, returns: Tenant });
export const resumeTenant = endpoint({ id: "resumeTenant", method: "POST", path: "/v1/tenants/{tenant}/resume", role: "operator", summary: "Lets routers send on a suspended tenant's requests", params: OneTenant, returns: Tenant });
export const deleteTenant = endpoint({ id: "deleteTenant", method: "DELETE", path: "/v1/tenants/{tenant}", role: "admin", status: 202, summary: "Closes a tenant's route, erases its rows and frees its names and room", params: OneTenant, returns: Tenant });
export const addTenantKey = endpoint({ id: "addTenantKey", method: "POST", path: "/v1/tenants/{tenant}/keys", role: "operator", summary: "Adds a way in which requests name the tenant", params: OneTenant, body: TenantKey, returns: Tenant });
export const removeTenantKey = endpoint({
  id: "removeTenantKey", method: "DELETE", path: "/v1/tenants/{tenant}/keys/{kind}/{value}", role: "operator", summary: "Removes a key from the tenant",
  params: OneTenant.extend({ kind: z.enum(keyKinds), value: z.string().max(253) }), returns: Tenant,
});

export interface TenantHandlerDeps {
  store: Store;
  tenants: TenantStore;
  admission: Admission;
  /** Starts a run with the transaction. @returns its id */
  start: (tx: Tx, workflow: string, input: Json) => Promise<string>;
}

export function tenantHandlers({ store, tenants, admission, start }: TenantHandlerDeps): Handler[] {
  return [
    handler(listTenants, async ({ query: { limit, cursor, labels, ...only } }) => {
      const selector = labels === undefined ? [] : parseSelector(labels);
      if (!selector) throw fail("invalid_input", { issues: [{ path: "query.labels", message: "a selector is a list like plan=free,stage!=trial,vip,!internal" }] });
      const items = await tenants.list(store, { ...only, labels: selector, after: cursor, limit: limit + 1 });
      const more = items.length > limit;
      if (more) items.pop();
      return { items, nextCursor: more ? (items.at(-1)?.name ?? null) : null };
    }),

    handler(getTenant, ({ params }) => tenants.describe(store, params.tenant)),

    handler(createTenant, ({ body, dryRun, mutate, record }) => {
      if (!dryRun) return admission.create(body, record);
      return mutate(async (tx) => {
        const [outcome] = await admission.createAll(tx, [body], { explained: true });
        if (!outcome || outcome instanceof Error) throw outcome;
        return outcome;
      });
    }),

    handler(importTenants, ({ body, mutate }) =>
      mutate(async (tx) => {
        const rows = body.tenants.map((row) => ({ row, parsed: NewTenant.safeParse(row) }));
        const created = await admission.createAll(tx, rows.flatMap(({ parsed }) => (parsed.success ? [parsed.data] : [])));
        const outcomes = rows.map(({ row, parsed }): ImportOutcome => {
          if (!parsed.success) return failed(nameOf(row), fail("invalid_input", { issues: parsed.error.issues.map((issue): Issue => ({ path: issue.path.join("."), message: issue.message })) }));
          const outcome = created.shift();
          if (!outcome || outcome instanceof Error) return failed(parsed.data.name, outcome);
          return { name: outcome.name, outcome: outcome.created ? "created" : "unchanged", cell: outcome.cell, error: null };
        });
        return { outcomes };
      }),
    ),

    handler(updateTenant, ({ params, body, ifMatch, mutate }) => mutate(async (tx) => await tenants.update(tx, await tenants.hold(tx, params.tenant, ifMatch), body))),
    handler(suspendTenant, ({ params, ifMatch, mutate }) => mutate(async (tx) => await tenants.move(tx, await tenants.hold(tx, params.tenant, ifMatch), "suspend"))),
    handler(resumeTenant, ({ params, ifMatch, mutate }) => mutate(async (tx) => await tenants.move(tx, await tenants.hold(tx, params.tenant, ifMatch), "resume"))),

    handler(deleteTenant, ({ params, ifMatch, mutate }) =>
      mutate(async (tx) => {
        const tenant = await tenants.hold(tx, params.tenant, ifMatch);
        // Asking again starts another run, which finds what the first has left to do.
        const input: DeleteTenantInput = { tenant: tenant.name };
        const operation = await start(tx, "tenant.delete", input);
        const deleting = await tenants.move(tx, tenant, "delete", operation);
        if (tenant.state === "deleting") await tenants.engage(tx, tenant.name, operation);
        return { ...deleting, operation };
      }),
    ),

    handler(addTenantKey, ({ params, body, ifMatch, mutate }) => mutate(async (tx) => await tenants.addKey(tx, params.tenant, body, ifMatch))),
    handler(removeTenantKey, ({ params: { tenant, ...key }, ifMatch, mutate }) => mutate(async (tx) => await tenants.removeKey(tx, await tenants.hold(tx, tenant, ifMatch), key))),
  ];
}

function nameOf(row: unknown): string | null {
  const { name } = (row ?? {}) as { name?: unknown };
  return typeof name === "string" ? name.slice(0, 100) : null;
}

/** Only what has a public code is a row's own failure; anything else is ours and fails the call. */
function failed(name: string | null, error: unknown): ImportOutcome {
  if (!(error instanceof CellplaneError)) throw error;
  return { name, outcome: "failed", cell: null, error: { code: error.code, message: error.message, fix: error.kind.fix } };
}
