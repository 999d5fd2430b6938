import type { Cell } from "../../../cellplane/src/cell/model.ts";
import type { EventItem } from "../../../cellplane/src/observe/model.ts";
import type { Operation, RunState } from "../../../cellplane/src/workflow/model.ts";
import { loadOf } from "../cell/load.ts";
import { nearlyFull } from "../draw/level.ts";
import { dimensionWords, formatRatio, plural } from "../draw/number.ts";
import { statusOf, type Sign } from "../draw/status.ts";

/** What a person should look at. */
export interface Concern {
  /** Stable while it is the same concern. */
  id: string;
  kind: "down" | "failed" | "operation" | "full" | "drift" | "unseen";
  /** The shape it is shown with. */
  sign: Sign;
  /** Who it is about: a cell, or several of one region. */
  cells: readonly string[];
  subject: string;
  /** What is the matter, as a sentence. */
  text: string;
  /** Since when, or when last seen; null when unknown. */
  at: string | null;
  /** The filter that shows the cells. */
  filter: string;
}

const order: readonly Concern["kind"][] = ["down", "failed", "operation", "full", "unseen", "drift"];
/** From so many cells of a region with the same concern on, they are one line. */
const groupFrom = 4;
/** A look is noted every ten seconds, and read here every thirty: after this nobody looks any more. */
const unseenAfterMs = 90_000;

const needsPerson: readonly RunState[] = ["failed", "undo_failed", "parked"];

export interface FleetFacts {
  cells: readonly Cell[];
  operations: readonly Operation[];
  /** Newest first: the latest of them tell since when something is so. */
  events: readonly Pick<EventItem, "kind" | "subject" | "at">[];
  nowMs: number;
}

/** Worst first, then by region and name; nothing is left out, only brought together. */
export function concernsOf({ cells, operations, events, nowMs }: FleetFacts): Concern[] {
  const since = new Map<string, string>();
  for (const { kind, subject, at } of events) if (!since.has(`${kind} ${subject}`)) since.set(`${kind} ${subject}`, at);
  const single = [...cells.flatMap((cell) => concernsOfCell(cell, { nowMs, since: (kind) => since.get(`${kind} cell/${cell.name}`) ?? null })), ...operationConcerns(operations)];
  const region = new Map(cells.map((cell) => [cell.name, cell.region]));
  const groups = new Map<string, Concern[]>();
  for (const concern of single) {
    const key = concern.kind === "operation" ? concern.id : `${concern.kind} ${region.get(concern.cells[0] ?? "")}`;
    groups.set(key, [...(groups.get(key) ?? []), concern]);
  }
  return [...groups.values()]
    .flatMap((group) => (group.length < groupFrom ? group : [together(group, region.get(group[0]?.cells[0] ?? "") ?? "")]))
    .sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind) || (a.subject < b.subject ? -1 : 1));
}

function concernsOfCell(cell: Cell, { nowMs, since }: { nowMs: number; since: (kind: string) => string | null }): Concern[] {
  const status = statusOf(cell);
  if (status === "retired") return [];
  const concerns: Concern[] = [];
  const say = (kind: Concern["kind"], concern: Pick<Concern, "sign" | "text" | "at" | "filter">): void => {
    concerns.push({ id: `${kind}/${cell.name}`, kind, cells: [cell.name], subject: cell.name, ...concern });
  };
  const { observedAt } = cell.health;
  const load = loadOf(cell);
  if (status === "down") say("down", { sign: "down", text: `is down: ${brokenChecks(cell)}`, at: since("cell.health"), filter: "status:down" });
  if (status === "failed") say("failed", { sign: "failed", text: "could not be made", at: since("cell.state"), filter: "status:failed" });
  if (load && load.ratio >= nearlyFull) say("full", { sign: "full", text: `is at ${formatRatio(load.ratio)} of its ${dimensionWords[load.dimension]}`, at: null, filter: "load:90-" });
  if (cell.drift.length > 0) say("drift", { sign: "drift", text: `differs from its spec in ${plural(cell.drift.length, "place")}`, at: since("cell.drift"), filter: "drift:yes" });
  if (observedAt !== null && status !== "failed" && nowMs - Date.parse(observedAt) > unseenAfterMs) say("unseen", { sign: "unknown", text: "is no longer looked at", at: observedAt, filter: `name:${cell.name}` });
  return concerns;
}

function brokenChecks(cell: Cell): string {
  const broken = cell.health.checks.filter((check) => !check.ok);
  return broken.map((check) => (check.detail ? `${check.name}, ${check.detail}` : check.name)).join("; ") || "no check passed";
}

/** Only the latest operation of a kind on a thing counts: one that was done again with success concerns nobody. */
function operationConcerns(operations: readonly Operation[]): Concern[] {
  const latest = new Map<string, Operation>();
  for (const operation of operations) {
    const key = `${operation.workflow} ${operation.subject}`;
    const known = latest.get(key);
    if (!known || operation.createdAt > known.createdAt) latest.set(key, operation);
  }
  return [...latest.values()]
    .filter((operation) => operation.parent === null && needsPerson.includes(operation.state))
    .map((operation): Concern => {
      const cell = operation.subject.startsWith("cell/") ? operation.subject.slice("cell/".length) : null;
      const verb = operation.state === "parked" ? "waits for a person" : operation.state === "undo_failed" ? "failed, and could not be undone" : "failed";
      return {
        id: operation.id, kind: "operation", sign: "failed", cells: cell ? [cell] : [], subject: cell ?? operation.subject,
        text: `${operation.workflow} ${verb}: ${operation.error?.message ?? operation.message}`, at: operation.finishedAt ?? operation.createdAt, filter: cell ? `name:${cell}` : "",
      };
    });
}

const togetherText: Record<Concern["kind"], string> = {
  down: "are down", failed: "could not be made", operation: "have failed operations", full: "are nearly full", drift: "differ from their spec", unseen: "are no longer looked at",
};

function together(group: readonly Concern[], region: string): Concern {
  const [first] = group as [Concern, ...Concern[]];
  const cells = group.flatMap((concern) => concern.cells);
  const term = first.kind === "unseen" ? "" : ` ${first.filter}`;
  return {
    ...first, id: `${first.kind}/${region}/all`, cells, subject: `${plural(cells.length, "cell")} in ${region}`, text: togetherText[first.kind],
    at: group.map((concern) => concern.at ?? "").sort().at(-1) || null, filter: `region:${region}${term}`,
  };
}
