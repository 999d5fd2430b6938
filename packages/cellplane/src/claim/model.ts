import { z } from "zod";
import { Name } from "../base/names.ts";

/**
 * A value that only one tenant of the whole fleet may hold, such as a login name or an e-mail:
 *
 *   (free) ─► reserved ─► confirmed ─► (free)        (SPEC C1–C6)
 *                │  expires
 *                └──────────────────► (free)
 *
 * reserved: held for one operation while the cell does its part; comes free by itself. confirmed: held until released.
 */
export const claimStates = ["reserved", "confirmed"] as const;
export type ClaimState = (typeof claimStates)[number];

/** What kind of value it is; values of two kinds never clash. "email" is normalised as an address and stored only as a digest. */
export const ClaimKind = Name;

/** Controls, and what is invisible or turns the direction of text, and spaces but for single inner ones: two values must differ to the eye, too. */
const unseen = /^ | $| {2}|(?! )\p{Z}|\p{Cc}|\p{Cf}|\p{Cs}|\p{Co}|\p{Default_Ignorable_Code_Point}/u;

/** A value to claim, as its owner writes it. */
export const ClaimValue = z.strictObject({
  kind: ClaimKind,
  value: z.string().min(1).max(320).refine((value) => !unseen.test(value), "a claim has no outer or double spaces, control characters or invisible characters"),
}).refine((claim) => claim.kind !== "email" || /^[^@ ]{1,64}@[a-z0-9-]+(\.[a-z0-9-]+)+$/i.test(claim.value), { path: ["value"], message: "an e-mail is local@domain.example" });
export type ClaimValue = z.infer<typeof ClaimValue>;

/** Two spellings that people take for one are one claim: NFKC, then lower case, then NFKC again, since either may undo the other. */
export const normalised = (value: string): string => value.normalize("NFKC").toLowerCase().normalize("NFKC");

/** Kinds whose clear text is never stored: their claims are shown as a digest that only the control plane can compute. */
export const isHashed = (kind: string): boolean => kind === "email";

export const Claim = z.object({
  kind: ClaimKind,
  /** Normalised; for a hashed kind "hmac:" and the hex of its first 16 bytes. */
  value: z.string(),
  tenant: Name,
  state: z.enum(claimStates),
  /** The operation that holds it while it is reserved; null when confirmed. */
  owner: z.string().nullable(),
  /** When a reservation comes free by itself; null when confirmed. */
  expiresAt: z.iso.datetime().nullable(),
  since: z.iso.datetime(),
}).meta({ id: "Claim" });
export type Claim = z.infer<typeof Claim>;

/** What a cell says a tenant holds, beside what the table says. */
export const Reconciliation = z.object({
  /** Held in both. */
  agreed: z.int().min(0),
  /** Held in the cell only: claimed and confirmed now. */
  adopted: z.array(z.string()),
  /** Held in the table only, and from before the list was taken: released now. */
  released: z.array(z.string()),
  /** Held in the cell by this tenant and in the table by another: a person must decide. */
  conflicts: z.array(z.object({ value: z.string(), tenant: Name })),
});
export type Reconciliation = z.infer<typeof Reconciliation>;
