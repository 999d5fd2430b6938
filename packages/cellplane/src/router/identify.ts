import { createHmac, createSecretKey, type KeyObject } from "node:crypto";
import type { RouteDecision } from "../routing/model.ts";
import type { RouteTable } from "../routing/table.ts";

/** What a cell is told with each request of a route, ready to be written. */
export interface Stamp {
  tenant: string;
  /** The tenant's number in the table it was made from. */
  number: number;
  /** What it was made from; another entry means another stamp. */
  entry: number;
  /** The `x-cellplane-…` fields, each with its line end. */
  text: string;
}

/** A power of two; so many stamps stay in memory, some 300 bytes each: 40 MB when so many tenants are active. */
const stampsMax = 1 << 17;

/**
 * Signs routes, as the guard checks it (packages/sdk/src/stamp.ts). A tenant's stamp is the same on each request until it
 * moves, so it is kept by the tenant's number.
 *
 * @param secret the fleet's stamp secret
 */
export function stamper(secret: string): (table: RouteTable, route: RouteDecision) => Stamp {
  const key = createSecretKey(secret, "utf8");
  let kept: (Stamp | undefined)[] = [];
  let of: RouteTable | null = null;

  return (table, route) => {
    if (of !== table) {
      // Another table numbers its tenants anew.
      of = table;
      kept = Array.from<Stamp | undefined>({ length: stampsMax }).fill(undefined);
      // A number that is given to someone else must not carry the former tenant's name.
      table.onForget = (number) => {
        if (of === table) kept[number & (stampsMax - 1)] = undefined;
      };
    }
    const place = route.tenant & (stampsMax - 1);
    const known = kept[place];
    if (known !== undefined && known.number === route.tenant && known.entry === route.entry) return known;
    const stamp = sign(key, table.nameOf(route.tenant), route);
    kept[place] = stamp;
    return stamp;
  };
}

function sign(key: KeyObject, tenant: string, { tenant: number, entry, cell: { cell }, epoch }: RouteDecision): Stamp {
  const signature = createHmac("sha256", key).update(`${tenant}\n${cell}\n${epoch}`).digest("hex");
  return { tenant, number, entry, text: `x-cellplane-tenant: ${tenant}\r\nx-cellplane-cell: ${cell}\r\nx-cellplane-epoch: ${epoch}\r\nx-cellplane-signature: ${signature}\r\n` };
}
