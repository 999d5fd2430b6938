import { z } from "zod";

/** Who asked for what, when, why, and what came of it. One per mutation; only those that were committed. */
export const AuditEntry = z.object({
  /** 1, 2, 3 … without a gap. */
  seq: z.int().min(1),
  at: z.iso.datetime(),
  /** Name of the caller's token. */
  actor: z.string(),
  role: z.string(),
  /** The endpoint's id, as in `createCell`. */
  action: z.string(),
  /** What it was done to, as in "cell/eu-1". */
  subject: z.string(),
  reason: z.string().nullable(),
  /** Trace id of the request. */
  trace: z.string(),
  /** What was asked, with secrets blacked out. */
  request: z.json().nullable(),
  /** The answer, with secrets blacked out; null when there was none. */
  result: z.json().nullable(),
  /** This entry's link of the chain, in hex. */
  hash: z.string(),
}).meta({ id: "AuditEntry" });
export type AuditEntry = z.infer<typeof AuditEntry>;

/** An entry before it has its place in the chain. */
export type NewAuditEntry = Omit<AuditEntry, "seq" | "hash">;

export const AuditVerdict = z.object({
  ok: z.boolean(),
  /** Entries that were checked and found right, counted from the start. */
  verified: z.int().min(0),
  /** The end of the chain: note it elsewhere, and a log that was rewritten as a whole is found out too. */
  head: z.object({ seq: z.int().min(0), hash: z.string() }),
  firstBad: z.object({ seq: z.int().min(1), why: z.string() }).nullable(),
});
export type AuditVerdict = z.infer<typeof AuditVerdict>;

const blackout = "•••";
const secretName = /pass(word|wd|phrase)?$|secret|token$|credential|authorization|cookie|private_?key|api_?key|access_?key/i;
/** Bounded, since it is run over whatever callers send. */
const userInfo = /(\/\/[^\s:/@]{0,128}:)[^\s/@]{1,256}@/g;

/** The log cannot be cut, so what would have to be erased with a person stays out of it. */
const emailAddress = /[^\s@/:"',;<>]{1,64}@((?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,63})/gi;

/** Blacks out what looks like a secret by its name (`DB_PASSWORD`) or its form (`postgres://user:…@host`), and people in e-mail addresses. */
export function withoutSecrets(value: unknown): unknown {
  if (typeof value === "string") return value.replaceAll(userInfo, `$1${blackout}@`).replaceAll(emailAddress, `${blackout}@$1`);
  if (Array.isArray(value)) return value.map(withoutSecrets);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, secretName.test(name) && typeof field === "string" && field !== "" ? blackout : withoutSecrets(field)]));
}

/** Larger values are kept as their size and beginning: the log says what was done, the resources say what there is. */
const auditValueCharactersMax = 16_384;

export function forAudit(value: unknown): AuditEntry["request"] {
  if (value === undefined || value === null) return null;
  const clean = withoutSecrets(value);
  const text = JSON.stringify(clean);
  if (text.length <= auditValueCharactersMax) return clean as AuditEntry["request"];
  return { truncated: true, characters: text.length, beginning: text.slice(0, 1024) };
}
