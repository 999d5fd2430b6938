import type { Cell } from "../../../cellplane/src/cell/model.ts";
import { loadOf } from "../cell/load.ts";
import { statusOf } from "../draw/status.ts";

/** Fields a term may name, as in `status:down`; a term without a field looks at the name, and each other term must hold as well. */
const fields: Record<string, (cell: Cell) => string> = {
  name: (cell) => cell.name,
  region: (cell) => cell.region,
  status: statusOf,
  state: (cell) => cell.state,
  version: (cell) => cell.version,
  class: (cell) => cell.class,
  blueprint: (cell) => cell.blueprint,
};
const filterFields: readonly string[] = [...Object.keys(fields), "load", "label", "drift"];

export type Matches = (cell: Cell) => boolean;

/** The test a filter text stands for. Terms are separated by blanks and all must hold; values of one field given twice are alternatives. */
export function parseFilter(text: string): Matches {
  const alternatives = new Map<string, Matches[]>();
  for (const [i, term] of text.trim().toLowerCase().split(/\s+/).filter(Boolean).entries()) {
    const [, field = "", value = ""] = /^([a-z]+):(.*)$/.exec(term) ?? [];
    const known = filterFields.includes(field);
    const key = known ? field : `word ${i}`;
    alternatives.set(key, [...(alternatives.get(key) ?? []), known ? matchesField(field, value) : matchesWord(term)]);
  }
  const all = [...alternatives.values()];
  return (cell) => all.every((any) => any.some((matches) => matches(cell)));
}

const matchesWord = (word: string): Matches => (cell) =>
  [cell.name, cell.region, cell.version, cell.blueprint, ...Object.entries(cell.labels).map(([key, value]) => `${key}=${value}`)].some((text) => text.toLowerCase().includes(word));

function matchesField(field: string, value: string): Matches {
  if (field === "drift") return (cell) => cell.drift.length > 0 === (value !== "no");
  if (field === "label") return (cell) => Object.entries(cell.labels).some(([key, label]) => `${key}=${label}`.toLowerCase() === value || key === value);
  if (field === "load") {
    const range = /^(\d+)-(\d*)$/.exec(value);
    if (!range) return (cell) => value === "none" && loadOf(cell) === null;
    const [from, to] = [Number(range[1]) / 100, range[2] ? Number(range[2]) / 100 : Infinity];
    return (cell) => {
      const load = loadOf(cell);
      return load !== null && load.ratio >= from && (load.ratio < to || to === Infinity);
    };
  }
  return (cell) => fields[field]?.(cell).toLowerCase() === value;
}

/** The filter with a term added, or taken out where it stands already. */
export function toggleTerm(filter: string, term: string): string {
  const terms = filter.split(/\s+/).filter(Boolean);
  return (terms.includes(term) ? terms.filter((other) => other !== term) : [...terms, term]).join(" ");
}
export const hasTerm = (filter: string, term: string): boolean => filter.split(/\s+/).includes(term);
