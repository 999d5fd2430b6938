import type { Cell } from "../../../cellplane/src/cell/model.ts";
import { loadOf } from "../cell/load.ts";
import { statuses, statusOf, type Status } from "../draw/status.ts";

export const colourings = ["status", "load", "version", "class"] as const;
export type Colouring = (typeof colourings)[number];

/** One line of the legend. */
export interface Shade {
  /** What the cells of this shade have in common, and its word in the legend. */
  key: string;
  /** The custom property with its colour, without the dashes: "status-up". */
  token: string;
  /** The term that filters for it. */
  term: string;
  count: number;
  status: Status | null;
}

const loadSteps = [
  { to: 0.25, key: "below 25 %", token: "load-1", term: "load:0-25" },
  { to: 0.5, key: "25–50 %", token: "load-2", term: "load:25-50" },
  { to: 0.75, key: "50–75 %", token: "load-3", term: "load:50-75" },
  { to: 0.9, key: "75–90 %", token: "load-4", term: "load:75-90" },
  { to: Infinity, key: "90 % and more", token: "load-5", term: "load:90-" },
];
const unlimited = { key: "no limit", token: "load-none", term: "load:none" };
const hues = 7;

type Unshaded = Omit<Shade, "count" | "status">;

function shadeOf(cell: Cell, by: Colouring, versions: readonly string[]): Unshaded {
  switch (by) {
    case "status": {
      const status = statusOf(cell);
      return { key: status, token: `status-${status}`, term: `status:${status}` };
    }
    case "load": {
      const load = loadOf(cell);
      return load === null ? unlimited : (loadSteps.find((step) => load.ratio < step.to) ?? unlimited);
    }
    case "version": {
      // The same place in the order, the same hue; more versions than hues share the last one.
      const place = versions.indexOf(cell.version);
      return { key: cell.version, token: `hue-${Math.min(place + 1, hues)}`, term: `version:${cell.version.toLowerCase()}` };
    }
    case "class":
      return { key: cell.class, token: `hue-${cell.class === "shared" ? 1 : cell.class === "dedicated" ? 2 : 3}`, term: `class:${cell.class}` };
  }
}

/** How each cell is coloured, and the legend of all shades that occur: in their natural order, versions newest first. */
export function shade(cells: readonly Cell[], by: Colouring): { legend: Shade[]; tokenOf: (cell: Cell) => string } {
  const versions = [...new Set(cells.map((cell) => cell.version))].sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  const legend = new Map<string, Shade>();
  for (const cell of cells) {
    const one = shadeOf(cell, by, versions);
    const known = legend.get(one.key);
    if (known) known.count++;
    else legend.set(one.key, { ...one, count: 1, status: by === "status" ? statusOf(cell) : null });
  }
  const order: readonly string[] = { status: statuses, load: [...loadSteps.map((step) => step.key), unlimited.key], version: versions, class: ["shared", "dedicated", "sandbox"] }[by];
  return {
    legend: [...legend.values()].sort((a, b) => order.indexOf(a.key) - order.indexOf(b.key)),
    tokenOf: (cell) => shadeOf(cell, by, versions).token,
  };
}
