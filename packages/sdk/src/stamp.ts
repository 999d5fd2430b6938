import { createHmac, timingSafeEqual } from "node:crypto";

/** What the router says of a request: whose it is, the cell it chose, and the tenant's epoch it chose by. */
export interface Stamp {
  /** The tenant's name: a DNS label. */
  tenant: string;
  /** The cell's name. */
  cell: string;
  /** +1 with every change of the tenant's home; at least 1. */
  epoch: number;
}

/** The request headers that carry the stamp. Routers strip whatever a client sends under these names. */
export const stampHeaders = {
  tenant: "x-cellplane-tenant",
  cell: "x-cellplane-cell",
  epoch: "x-cellplane-epoch",
  /** Hex HMAC-SHA256 by the fleet's stamp secret over tenant, cell and epoch, one a line. */
  signature: "x-cellplane-signature",
} as const;

const payloadOf = (tenant: string, cell: string, epoch: string): string => `${tenant}\n${cell}\n${epoch}`;
const digest = (secret: string, payload: string): Buffer => createHmac("sha256", secret).update(payload).digest();

/** The signature a router writes, for tests and for routers of your own. */
export const signStamp = (secret: string, stamp: Stamp): string => digest(secret, payloadOf(stamp.tenant, stamp.cell, String(stamp.epoch))).toString("hex");

/** Reads one request header by its lower-case name. */
export type ReadHeader = (name: string) => string | undefined;

export type StampFault = "unstamped" | "stamp_malformed" | "stamp_forged";

const epochForm = /^[1-9][0-9]{0,14}$/;
const signatureForm = /^[0-9a-f]{64}$/;

/**
 * Reads and verifies stamps. A verified payload is remembered with its signature, because a tenant's stamp is the same on
 * every request until it moves; unverified ones are not, so a forger can fill nothing.
 *
 * @param secrets the fleet's stamp secrets; several while one replaces another
 * @param rememberedMax how many verified stamps are kept; the oldest goes first
 */
export function stampReader(secrets: readonly string[], rememberedMax: number): (read: ReadHeader) => Stamp | StampFault {
  const remembered = new Map<string, Buffer>();

  function verified(payload: string, signature: Buffer): boolean {
    const known = remembered.get(payload);
    if (known && timingSafeEqual(known, signature)) return true;
    for (const secret of secrets) {
      const expected = digest(secret, payload);
      if (!timingSafeEqual(expected, signature)) continue;
      const oldest = remembered.size >= rememberedMax ? remembered.keys().next().value : undefined;
      if (oldest !== undefined) remembered.delete(oldest);
      remembered.set(payload, expected);
      return true;
    }
    return false;
  }

  return (read) => {
    const tenant = read(stampHeaders.tenant);
    const cell = read(stampHeaders.cell);
    const epoch = read(stampHeaders.epoch);
    const signature = read(stampHeaders.signature);
    if (tenant === undefined && cell === undefined && epoch === undefined && signature === undefined) return "unstamped";
    if (!tenant || !cell || !epoch || !signature || !epochForm.test(epoch) || !signatureForm.test(signature)) return "stamp_malformed";
    return verified(payloadOf(tenant, cell, epoch), Buffer.from(signature, "hex")) ? { tenant, cell, epoch: Number(epoch) } : "stamp_forged";
  };
}
