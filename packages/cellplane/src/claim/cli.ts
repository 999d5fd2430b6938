import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { z } from "zod";
import { fail } from "../base/errors.ts";
import { Name } from "../base/names.ts";
import { type Cli, flag, type Shown } from "../cli/command.ts";
import { confirmClaims, findClaim, listClaims, reconcileClaims, releaseClaims, reserveClaims } from "./api.ts";
import { type Claim, claimStates, type ClaimValue, ClaimValue as ClaimValueSchema, type Reconciliation } from "./model.ts";

const columns = {
  KIND: (claim: Claim): Shown => claim.kind,
  VALUE: (claim: Claim): Shown => claim.value,
  TENANT: (claim: Claim): Shown => claim.tenant,
  STATE: (claim: Claim): Shown => claim.state,
  EXPIRES: (claim: Claim): Shown => claim.expiresAt,
};
const wide = { OWNER: (claim: Claim): Shown => claim.owner, SINCE: (claim: Claim): Shown => claim.since };
const nameOf = (claim: Claim): string => `${claim.kind}=${claim.value}`;

const args = { tenant: "Whose", "claims...": "What, as in login=ann or email=ann@acme.example" };
const owner = flag.required(flag.text("Names the operation that reserves: only it confirms", { placeholder: "<id>" }));

function claimsOf(texts: string[]): ClaimValue[] {
  return texts.map((text) => {
    const at = text.indexOf("=");
    if (at < 1) throw fail("bad_usage", { command: "claim", why: `${text} is not kind=value` });
    return { kind: text.slice(0, at), value: text.slice(at + 1) };
  });
}

export function registerClaim(cli: Cli): void {
  const claim = cli.noun("claim");

  cli.verb(claim, "list", {
    summary: "List claims; e-mails as digests",
    flags: { kind: flag.text("Only those of this kind"), tenant: flag.text("Only those of this tenant"), state: flag.choice(claimStates, "Only those in this state") },
    run: ({ flags, pages }) => pages(listClaims, { query: flags }),
    columns, wide, nameOf,
  });

  cli.verb(claim, "find", {
    summary: "Show which tenant holds a value",
    args: { claim: "What, as in login=ann" },
    run: async ({ args, call }) => {
      const found = await call(findClaim, { body: claimsOf([args.claim])[0] ?? { kind: "", value: "" } });
      if (!found.claim) throw fail("not_found", { what: "claim", name: args.claim });
      return found.claim;
    },
    columns, wide, nameOf,
  });

  cli.verb(claim, "reserve", {
    summary: "Hold values for a tenant for a while: all of them or none",
    args,
    flags: { owner, ttl: flag.durationMs("For how long (default: 10m)") },
    mutates: true,
    run: async ({ args, flags, call }) => (await call(reserveClaims, { body: { tenant: args.tenant, owner: flags.owner, claims: claimsOf(args.claims), ttlMs: flags.ttl } })).claims,
    columns, wide, nameOf,
  });

  cli.verb(claim, "confirm", {
    summary: "Make reservations lasting",
    args,
    flags: { owner },
    mutates: true,
    run: async ({ args, flags, call }) => (await call(confirmClaims, { body: { tenant: args.tenant, owner: flags.owner, claims: claimsOf(args.claims) } })).claims,
    columns, wide, nameOf,
  });

  cli.verb(claim, "release", {
    summary: "Free what a tenant holds of the values",
    args,
    mutates: true,
    run: async ({ args, call }) => (await call(releaseClaims, { body: { tenant: args.tenant, claims: claimsOf(args.claims) } })).released,
    columns: { RELEASED: (value) => value },
    nameOf: (value) => value,
  });

  cli.verb(claim, "reconcile", {
    summary: "Make the table agree with what a cell says its tenants hold",
    help: `The file has one JSON object on each line: {"tenant": "acme", "kind": "login", "value": "ann"}; a tenant's list of a kind is whole.
A tenant and kind without any is a line without a value. What another tenant holds is shown and left alone.`,
    flags: {
      file: flag.required(flag.text("File to read", { short: "f", placeholder: "<file>" })),
      takenAt: flag.required(flag.text("When the list was taken from the cell: what was confirmed later is left alone", { placeholder: "<time, as in 2031-05-04T10:00:00Z>" })),
    },
    mutates: true,
    run: async ({ flags, call, terminal, exitWith }) => {
      const lists = await readLists(flags.file);
      const progress = terminal.progress("reconciling");
      const results: ({ tenant: string; kind: string } & Reconciliation)[] = [];
      for (const { tenant, kind, values } of lists) {
        results.push({ tenant, kind, ...(await call(reconcileClaims, { body: { tenant, kind, values, takenAt: flags.takenAt } })) });
        progress.update(results.length / lists.length, `${results.length} of ${lists.length}`);
      }
      progress.done();
      if (results.some((result) => result.conflicts.length > 0)) exitWith(1);
      return results;
    },
    columns: {
      TENANT: (result) => result.tenant,
      KIND: (result) => result.kind,
      AGREED: (result) => result.agreed,
      ADOPTED: (result) => result.adopted,
      RELEASED: (result) => result.released,
      CONFLICTS: (result) => result.conflicts.map(({ value, tenant }) => `${value} (${tenant})`),
    },
    nameOf: (result) => `${result.tenant}/${result.kind}`,
  });
}

const Line = z.strictObject({ tenant: Name, kind: ClaimValueSchema.shape.kind, value: ClaimValueSchema.shape.value.optional() });

async function readLists(file: string): Promise<{ tenant: string; kind: string; values: string[] }[]> {
  const lists = new Map<string, { tenant: string; kind: string; values: string[] }>();
  let at = 0;
  const bad = (why: string): Error => fail("bad_usage", { command: "claim reconcile", why });
  try {
    for await (const text of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
      at++;
      if (text.trim() === "") continue;
      const line = Line.safeParse(parsed(text));
      if (!line.success) throw bad(`${file}:${at}: ${line.error.issues.map((issue) => [...issue.path, issue.message].join(": ")).join("; ")}`);
      const { tenant, kind, value } = line.data;
      const list = lists.get(`${tenant}/${kind}`) ?? { tenant, kind, values: [] };
      if (value !== undefined) list.values.push(value);
      lists.set(`${tenant}/${kind}`, list);
    }
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === "ENOENT" ? bad((error as Error).message) : error;
  }
  return [...lists.values()];
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
