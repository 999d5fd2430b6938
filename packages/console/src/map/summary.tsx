import { memo } from "react";
import type { Cell } from "../../../cellplane/src/cell/model.ts";
import { loadOf } from "../cell/load.ts";
import { formatCount, formatRate, formatRatio, formatVersion } from "../draw/number.ts";
import { Sparkline } from "../draw/sparkline.tsx";
import type { Rates } from "../live/fleet.ts";

/** The fleet in a line of figures. */
export const Summary = memo(function Summary({ cells, rates }: { cells: readonly Cell[]; rates: ReadonlyMap<string, Rates> }) {
  const regions = new Set(cells.map((cell) => cell.region)).size;
  const tenants = cells.reduce((sum, cell) => sum + (cell.used.tenants ?? 0), 0);
  const room = cells.reduce((sum, cell) => sum + (cell.state === "active" ? Math.max(0, (cell.capacity.tenants ?? 0) - (cell.used.tenants ?? 0)) : 0), 0);
  const fullest = cells.reduce<{ name: string; ratio: number } | null>((most, cell) => {
    const load = loadOf(cell);
    return load && (most === null || load.ratio > most.ratio) ? { name: cell.name, ratio: load.ratio } : most;
  }, null);
  const versions = new Set(cells.map((cell) => cell.version)).size;
  const total = sumOf([...rates.values()]);
  return (
    <dl className="summary">
      <div><dt>cells</dt><dd>{formatCount(cells.length)}</dd></div>
      <div><dt>regions</dt><dd>{formatCount(regions)}</dd></div>
      <div><dt>tenants</dt><dd>{formatCount(tenants)}</dd></div>
      {room > 0 && <div><dt>room for</dt><dd>{formatCount(room)}</dd></div>}
      {fullest && <div><dt>fullest, {fullest.name}</dt><dd>{formatRatio(fullest.ratio)}</dd></div>}
      <div><dt>{versions === 1 ? "version" : "versions"}</dt><dd>{versions === 1 ? formatVersion(cells[0]?.version ?? "") : formatCount(versions)}</dd></div>
      {total.length > 0 && (
        <div className="summary-rate">
          <dt>requests/s</dt>
          <dd>{formatRate(total.at(-1) ?? 0)}</dd>
          <dd className="summary-line"><Sparkline values={total} /></dd>
        </div>
      )}
    </dl>
  );
});

/** The sum at each instant; series end at the same one. */
function sumOf(series: readonly Rates[]): number[] {
  const length = Math.max(0, ...series.map((rates) => rates.length));
  return Array.from({ length }, (_, i) => series.reduce((sum, rates) => sum + (rates[rates.length - length + i] ?? 0), 0));
}
