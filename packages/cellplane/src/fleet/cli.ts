import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fail } from "../base/errors.ts";
import { type Cli, flag, type Terminal } from "../cli/command.ts";
import { applyFleetFile, getFleet, type HashedPlan, planFleetFile } from "./api.ts";
import type { FieldChange } from "../cell/model.ts";
import type { CellAction, FleetPlan } from "./model.ts";
import { changesNothing } from "./plan.ts";

const fileFlags = {
  file: flag.text("The fleet file (default: cellplane.yaml)", { short: "f", placeholder: "<file>" }),
  prune: flag.toggle("Also destroy cells without tenants that are no longer in the file"),
  overwriteDrift: flag.toggle("Also undo what someone else changed in cells"),
};
const detailedExitcode = flag.toggle("Exit with 2 when there are changes");

interface FileFlags {
  file: string | undefined;
  prune: boolean;
  overwriteDrift: boolean;
}

/** Reads the file here and judges it here, so that a slip is told even when no control plane answers. @throws CellplaneError fleet_file_unreadable, fleet_invalid */
async function readFleetFile({ file = "cellplane.yaml", prune, overwriteDrift }: FileFlags) {
  const path = resolve(file);
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw fail("fleet_file_unreadable", { file, why: error.code === "ENOENT" ? "there is no such file" : error.message }, { cause: error });
  });
  const { parseFleet } = await import("./parse.ts");
  parseFleet(text, file);
  return { text, file, baseDirectory: dirname(path), prune, overwriteDrift };
}

const showPlan = (detailed: boolean) => (plan: HashedPlan, terminal: Terminal): string => planText(plan, { colour: terminal.colour, detailed });

export function registerFleet(cli: Cli): void {
  cli.verb(cli.program, "plan", {
    summary: "Show what applying the fleet file would do",
    flags: { ...fileFlags, detailedExitcode },
    run: async ({ flags, call, exitWith }) => {
      const plan = await call(planFleetFile, { body: await readFleetFile(flags) });
      if (flags.detailedExitcode && !changesNothing(plan)) exitWith(2);
      return plan;
    },
    text: showPlan(false),
  });

  cli.verb(cli.program, "diff", {
    summary: "Show every field in which the fleet differs from the fleet file",
    flags: { ...fileFlags, detailedExitcode },
    run: async ({ flags, call, exitWith }) => {
      const plan = await call(planFleetFile, { body: await readFleetFile(flags) });
      if (flags.detailedExitcode && !changesNothing(plan)) exitWith(2);
      return plan;
    },
    text: showPlan(true),
  });

  cli.verb(cli.program, "apply", {
    summary: "Bring the fleet to what the fleet file says",
    help: "Cells that are no longer in the file are kept unless --prune is given.\nWith --dry-run nothing is done: it is `cellplane plan`.",
    flags: { ...fileFlags, detailedExitcode },
    mutates: true,
    run: async ({ flags, call, exitWith, terminal }) => {
      const body = await readFleetFile(flags);
      const plan = await call(planFleetFile, { body });
      terminal.note(planText(plan, { colour: terminal.colour, detailed: false }));
      // Applied by its hash: what was shown is what is done, or nothing is.
      const answer = await call(applyFleetFile, { body: { ...body, hash: plan.hash } });
      if (flags.detailedExitcode && !changesNothing(plan)) exitWith(2);
      return { ...answer, applied: answer.operation === null };
    },
    operation: (answer) => answer.operation,
    after: async (_, answer) => ({ ...answer, applied: true }),
    text: ({ plan, operation, applied }) => (applied ? `Fleet ${plan.fleet} is as the file says.` : `Fleet ${plan.fleet} is being applied: cellplane operation watch ${operation}`),
  });

  const fleet = cli.noun("fleet");
  cli.verb(fleet, "describe", {
    summary: "Show the fleet file applied last",
    run: ({ call }) => call(getFleet, {}),
    columns: { FLEET: (stored) => stored.fleet.fleet, GENERATION: (stored) => stored.generation, CELLS: (stored) => Object.keys(stored.fleet.cells).length, REGIONS: (stored) => Object.keys(stored.fleet.regions), FILE: (stored) => stored.file, APPLIED: (stored) => stored.appliedAt },
  });
}

// ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const signs = { create: "+", update: "~", destroy: "-", none: " " } as const;
const colours = { create: 32, update: 33, destroy: 31, none: 0 } as const;
const done = { create: "to create", update: "to update", destroy: "to destroy", none: "unchanged" } as const;

/** A plan as people read it. @param detailed shows every field of new cells too, and the cells that stay as they are */
export function planText(plan: FleetPlan, { colour, detailed }: { colour: boolean; detailed: boolean }): string {
  const paint = (action: CellAction["action"], text: string): string => (colour && action !== "none" ? `\u001b[${colours[action]}m${text}\u001b[0m` : text);
  const lines = [`Fleet ${plan.fleet}, generation ${plan.generation}`, ""];
  for (const change of plan.settings) {
    const kind = change.from === undefined ? "create" : change.to === undefined ? "destroy" : "update";
    lines.push(paint(kind, `  ${signs[kind]} ${change.path}${kind === "update" || detailed ? `  ${difference(change)}` : ""}`));
  }
  for (const action of plan.cells) {
    if (action.action === "none" && action.note === "" && !detailed) continue;
    const said = [action.action === "none" ? "" : action.action, `in ${action.region}`, action.restarts ? "restarts" : "", action.note].filter(Boolean).join(", ");
    lines.push(paint(action.action, `  ${signs[action.action]} cell ${action.cell}  ${said}`));
    if (action.action !== "create" || detailed) lines.push(...action.changes.map((change) => `      ${change.path}  ${difference(change)}`));
    lines.push(...action.drift.map((path) => `      ! ${path} was changed by someone else`));
  }
  const count = (action: CellAction["action"]): number => plan.cells.filter((cell) => cell.action === action).length;
  const differing = plan.cells.filter(({ action, changes, drift }) => action === "none" && changes.length + drift.length > 0).length;
  const sums = (["create", "update", "destroy", "none"] as const).map((action) => `${count(action)} ${done[action]}`).join(", ");
  if (lines.length > 2) lines.push("");
  if (!changesNothing(plan)) lines.push(plan.settings.length + plan.cells.length - count("none") === 0 ? "Only the file itself is another." : `Cells: ${sums}.`);
  else lines.push(differing === 0 ? `Nothing to do: ${count("none")} cells are as the file says.` : `Nothing to do now: ${differing} of ${count("none")} cells are not as the file says.`);
  return lines.join("\n");
}

const lengthMax = 60;
function short(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length <= lengthMax ? text : `${text.slice(0, lengthMax - 1)}…`;
}

function difference({ from, to }: FieldChange): string {
  if (from === undefined) return short(to);
  return to === undefined ? `${short(from)} → removed` : `${short(from)} → ${short(to)}`;
}
