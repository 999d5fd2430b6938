import { z } from "zod";

/**
 * The name of a cell, tenant, region, blueprint or fleet: one lower-case DNS label (RFC 1123 §2.1), so it can stand in a
 * host name, a header, a path and a file name unescaped. ASCII only, and never normalised first: two different inputs
 * must never become the same name. `xn--` is left to the registries of international domain names.
 */
export const Name = z
  .string()
  .max(63, "a name has at most 63 characters")
  .regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/, "a name is a DNS label: lower-case letters, digits and inner hyphens")
  .refine((name) => !name.startsWith("xn--"), "a name may not start with xn--");

export const Labels = z.record(z.string().regex(/^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$/, "a label's key is lower-case letters, digits and . _ / -"), z.string().max(255));
export type Labels = z.infer<typeof Labels>;
