// What the app in a cell may use; everything else is this package's own affair.
export { type Admission, type Gate, type GuardOptions } from "./admission.ts";
export { cellConfig, type ConfigOptions } from "./config.ts";
export { type CellEnvironment, cellEnvironment, configFromEnvironment, guardFromEnvironment } from "./environment.ts";
export { createGuard, type Guard } from "./guard.ts";
export type { Refusal, RefusalCode } from "./refusal.ts";
export { signStamp, type Stamp, stampHeaders } from "./stamp.ts";
export { asTenant, currentTenant, type TenantContext } from "./tenant.ts";
