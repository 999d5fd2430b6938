import { type Cli } from "../cli/command.ts";
import { newTenantFlags, newTenantOf } from "../tenant/cli.ts";
import type { PlacementExplanation } from "../tenant/model.ts";
import { explainPlacement } from "./api.ts";

function show({ outcome, cell, because, rejected }: PlacementExplanation): string {
  const first = { placed: `goes to ${cell}`, waits: `waits for ${cell}, which is made for it`, refused: "is refused" }[outcome];
  const width = Math.max(0, ...rejected.map((other) => other.cell.length));
  return [first, ...because.map((reason) => `  because ${reason}`), ...(rejected.length > 0 ? ["not"] : []), ...rejected.map((other) => `  ${other.cell.padEnd(width)}  ${other.reason}`)].join("\n");
}

export function registerPlacement(cli: Cli): void {
  cli.verb(cli.noun("placement"), "explain", {
    summary: "Show where a tenant would go now, why, and what speaks against every other cell",
    help: "cellplane placement explain acme --region eu --connections 5",
    args: { tenant: "Its name" },
    flags: newTenantFlags,
    run: ({ args, flags, call }) => call(explainPlacement, { body: newTenantOf(args.tenant, flags) }),
    text: show,
  });
}
