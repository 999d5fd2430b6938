import { fail } from "../base/errors.ts";
import { type Cli, flag } from "../cli/command.ts";
import { listAudit, verifyAudit } from "./api.ts";

export function registerAudit(cli: Cli): void {
  const audit = cli.noun("audit");

  cli.verb(audit, "list", {
    summary: "List who asked for what, newest first",
    flags: {
      subject: flag.text("Only what was done to this, as in cell/eu-1"),
      actor: flag.text("Only what this token asked for"),
      action: flag.text("Only this call, as in createCell"),
    },
    run: ({ flags, pages }) => pages(listAudit, { query: flags }),
    columns: { SEQ: (e) => e.seq, AT: (e) => e.at, ACTOR: (e) => e.actor, ACTION: (e) => e.action, SUBJECT: (e) => e.subject, REASON: (e) => e.reason },
    wide: { ROLE: (e) => e.role, TRACE: (e) => e.trace, HASH: (e) => e.hash },
    nameOf: (e) => String(e.seq),
  });

  cli.verb(audit, "verify", {
    summary: "Check that no entry was changed, removed, inserted or moved",
    help: "The head it prints, kept elsewhere and given as --anchor later, also finds a log that was rewritten as a whole.",
    flags: { anchor: flag.text("A head noted before", { placeholder: "<seq:hash>" }) },
    run: async ({ flags, call }) => {
      const verdict = await call(verifyAudit, { query: flags });
      if (verdict.firstBad) throw fail("audit_broken", verdict.firstBad);
      return verdict;
    },
    columns: { VERIFIED: (v) => v.verified, HEAD: (v) => `${v.head.seq}:${v.head.hash}` },
    nameOf: (v) => `${v.head.seq}:${v.head.hash}`,
  });
}
