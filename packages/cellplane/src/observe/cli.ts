import { type Cli, flag } from "../cli/command.ts";
import { listEvents } from "./api.ts";
import type { EventItem } from "./model.ts";

const columns = { AT: (e: EventItem) => e.at, KIND: (e: EventItem) => e.kind, SUBJECT: (e: EventItem) => e.subject, DATA: (e: EventItem) => JSON.stringify(e.data) };
const wide = { CURSOR: (e: EventItem) => e.cursor };
const filter = { kinds: flag.many("Only kinds that begin so, as in cell."), subject: flag.text("Only about this, as in cell/eu-1; cell/ for all cells") };

export function registerEvent(cli: Cli): void {
  const event = cli.noun("event");

  cli.verb(event, "list", {
    summary: "List what happened, newest first",
    flags: { ...filter, limit: flag.number("How many at the most; default 100") },
    run: async ({ flags, call }) => {
      const query = { ...(flags.kinds.length > 0 ? { kinds: flags.kinds.join(",") } : {}), subject: flags.subject, limit: Math.min(flags.limit ?? 100, 1000) };
      return (await call(listEvents, { query })).items;
    },
    columns,
    wide,
    nameOf: (e) => e.cursor,
  });

  cli.verb(event, "watch", {
    summary: "Show what happens, as it happens, until Ctrl-C",
    help: "Everything since a moment noted before:  cellplane event watch --after <cursor> -o ndjson",
    flags: { ...filter, after: flag.text("Go on behind this event", { placeholder: "<cursor>" }) },
    run: ({ flags, events }) => events({ kinds: flags.kinds, ...(flags.subject ? { subject: flags.subject } : {}), after: flags.after ?? null }),
    columns,
    wide,
    nameOf: (e) => e.cursor,
  });
}
