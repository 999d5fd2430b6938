import { type Cli, flag } from "../cli/command.ts";
import { createToken, listTokens, revokeToken, whoAmI } from "./api.ts";
import { type Token, tokenRoles } from "./model.ts";

const columns = {
  NAME: (t: Token) => t.name,
  ROLE: (t: Token) => t.role,
  STATE: (t: Token) => (t.revokedAt ? "revoked" : t.expiresAt ? `valid until ${t.expiresAt}` : "valid"),
};
const wide = { CREATED: (t: Token) => t.createdAt, BY: (t: Token) => t.createdBy };

export function registerToken(cli: Cli): void {
  const token = cli.noun("token");

  cli.verb(token, "create", {
    summary: "Create a token and print its secret, this once",
    help: "The secret alone, for a variable:  cellplane token create ci --role operator -o json | jq -r .secret",
    args: { name: "Stands in the audit log" },
    flags: { role: flag.required(flag.choice(tokenRoles, "What it may do")), expiresIn: flag.durationMs("How long it is good for; default: for ever") },
    mutates: true,
    run: ({ args, flags, call }) => call(createToken, { body: { name: args.name, role: flags.role, expiresInMs: flags.expiresIn ?? null } }),
    columns: { NAME: (t) => t.token.name, ROLE: (t) => t.token.role, EXPIRES: (t) => t.token.expiresAt ?? "never", SECRET: (t) => t.secret ?? "(was shown to the first call)" },
    nameOf: (t) => t.token.name,
  });

  cli.verb(token, "list", { summary: "List the tokens, without their secrets", run: ({ pages }) => pages(listTokens, {}), columns, wide });

  cli.verb(token, "revoke", {
    summary: "Refuse a token from now on",
    args: { token: "Its name" },
    mutates: true,
    confirm: ({ args }) => args.token,
    run: ({ args, call }) => call(revokeToken, { params: args }),
    columns,
    wide,
  });

  cli.verb(token, "whoami", { summary: "Show whose token this is", run: ({ call }) => call(whoAmI, {}), columns: { NAME: (t) => t.name, ROLE: (t) => t.role } });
}
