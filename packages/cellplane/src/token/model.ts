import { z } from "zod";
import { Name } from "../base/names.ts";

export const tokenRoles = ["viewer", "operator", "admin", "router"] as const;

/** A token as people see it: never its secret, of which only a hash is kept. */
export const Token = z.object({
  /** Stands in the audit log; never given to another token. */
  name: Name,
  role: z.enum(tokenRoles),
  createdAt: z.iso.datetime(),
  createdBy: z.string(),
  /** null: does not expire */
  expiresAt: z.iso.datetime().nullable(),
  /** null: valid */
  revokedAt: z.iso.datetime().nullable(),
}).meta({ id: "Token" });
export type Token = z.infer<typeof Token>;

export const NewToken = z.strictObject({
  name: Name,
  role: z.enum(tokenRoles),
  /** From now; null: does not expire. */
  expiresInMs: z.int().min(1000).nullable().default(null),
});
export type NewToken = z.infer<typeof NewToken>;
