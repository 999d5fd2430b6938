import { AsyncLocalStorage } from "node:async_hooks";
import type { Stamp } from "./stamp.ts";

/** Whose request is being handled, by the router's verified stamp. */
export type TenantContext = Readonly<Stamp>;

const storage = new AsyncLocalStorage<TenantContext | undefined>();

/** The tenant of the request being handled; undefined outside of one, and where an unstamped request was let through. */
export const currentTenant = (): TenantContext | undefined => storage.getStore();

/** Runs `work`, and all that it awaits, as the tenant's. */
export const asTenant = <T>(tenant: TenantContext | undefined, work: () => T): T => storage.run(tenant, work);
