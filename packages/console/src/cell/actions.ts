import type { Caller } from "../../../cellplane/src/http/contract.ts";
import type { Cell, CellDetail, CellVerb } from "../../../cellplane/src/cell/model.ts";

export interface CellAction {
  verb: CellVerb;
  /** What it does to the cell's tenants, in a sentence. */
  effect: string;
  /** What does the same on the command line. */
  command: string;
  /** Why it can't be done now; null when it can. */
  refusal: string | null;
  /** Whether the console does it itself; the rest is left to the command line, which asks for the name first. */
  here: boolean;
}

const effects: Record<CellVerb, string> = {
  cordon: "No new tenants; those it has are served on.",
  uncordon: "New tenants may come again.",
  drain: "No new tenants, then waits for the last to leave.",
  update: "Another version or config; back if not ready.",
  retire: "Takes an empty cell out of service for good.",
  destroy: "Removes the cell and, with --purge, its data.",
};

/** Why nothing can be done at all: the one reason that all actions share; null when they differ or there is none. */
export const sharedRefusal = (actions: readonly CellAction[]): string | null => (actions.every(({ refusal }) => refusal === actions[0]?.refusal) ? (actions[0]?.refusal ?? null) : null);

/** Verbs in the order of a cell's life, with those that would lead nowhere from here told apart by their refusal. */
export function actionsOf(cell: Cell, { detail, caller, isLive }: { detail: CellDetail | null; caller: Caller | null; isLive: boolean }): CellAction[] {
  const refusalOf = (verb: CellVerb): string | null => {
    if (!isLive) return "The connection to the control plane is lost.";
    if (caller?.role === "viewer") return `${caller.name} may only look: this needs the role ${verb === "destroy" ? "admin" : "operator"}.`;
    return detail === null ? "Reading what may be done…" : (detail.refused[verb] ?? null);
  };
  const verbs: readonly CellVerb[] = [cell.state === "active" ? "cordon" : "uncordon", "drain", "update", "retire", "destroy"];
  return verbs.map((verb) => ({
    verb,
    effect: effects[verb],
    command: `cellplane cell ${verb} ${cell.name}${verb === "update" ? " --set version=NEXT" : ""}`,
    refusal: refusalOf(verb),
    here: verb === "cordon" || verb === "uncordon",
  }));
}
