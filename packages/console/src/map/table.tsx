import { memo, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import type { Cell } from "../../../cellplane/src/cell/model.ts";
import { loadOf } from "../cell/load.ts";
import { Bar } from "../draw/bar.tsx";
import { StatusWord } from "../draw/mark.tsx";
import { dimensionWords, formatCount, formatRate, formatRatio } from "../draw/number.ts";
import { statuses, statusOf } from "../draw/status.ts";
import type { Rates } from "../live/fleet.ts";

interface CellTableProps {
  cells: readonly Cell[];
  rates: ReadonlyMap<string, Rates>;
  selected: string | null;
  select: (cell: string | null) => void;
}

const columns = ["name", "status", "region", "load", "tenants", "req/s", "version", "class", "drift"] as const;
type Column = (typeof columns)[number];
const numeric: readonly Column[] = ["tenants", "req/s", "drift"];
const rowHeight = 34;
/** Rows kept above and below what is seen, so that scrolling meets no gap. */
const margin = 12;

/** The map's twin: the same cells and facts as rows. Only the rows in view are made. */
export function CellTable({ cells, rates, selected, select }: CellTableProps) {
  const [sort, setSort] = useState<{ by: Column; down: boolean }>({ by: "region", down: false });
  const sorted = useMemo(() => [...cells].sort(comparison(sort.by, sort.down, rates)), [cells, rates, sort]);
  const body = useRef<HTMLTableSectionElement>(null);
  const [range, setRange] = useState({ from: 0, to: 60 });

  const look = (): void => {
    const edge = body.current?.getBoundingClientRect();
    if (!edge) return;
    const from = Math.max(0, Math.floor(-edge.top / rowHeight) - margin);
    const to = Math.ceil((innerHeight - edge.top) / rowHeight) + margin;
    setRange((now) => (now.from === from && now.to === to ? now : { from, to }));
  };
  useLayoutEffect(look);
  useEffect(() => {
    // Captured, since it is the page's middle that scrolls, not the window.
    addEventListener("scroll", look, { capture: true, passive: true });
    addEventListener("resize", look);
    return () => {
      removeEventListener("scroll", look, { capture: true });
      removeEventListener("resize", look);
    };
  }, []);

  const to = Math.min(sorted.length, range.to);
  const from = Math.min(range.from, to);
  return (
    <div className="table-box">
      <table className="table" aria-rowcount={sorted.length + 1}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column} scope="col" className={numeric.includes(column) ? "numeric" : undefined} aria-sort={sort.by !== column ? "none" : sort.down ? "descending" : "ascending"}>
                <button type="button" onClick={() => setSort({ by: column, down: sort.by === column && !sort.down })}>
                  {column}
                  <span aria-hidden className="sort">{sort.by !== column ? "" : sort.down ? "↓" : "↑"}</span>
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody ref={body}>
          {from > 0 && <tr aria-hidden style={{ height: from * rowHeight }} />}
          {sorted.slice(from, to).map((cell, i) => (
            <CellRow key={cell.name} cell={cell} rate={rates.get(cell.name)?.at(-1)} index={from + i + 2} selected={cell.name === selected} select={select} />
          ))}
          {to < sorted.length && <tr aria-hidden style={{ height: (sorted.length - to) * rowHeight }} />}
        </tbody>
      </table>
    </div>
  );
}

interface CellRowProps {
  cell: Cell;
  rate: number | undefined;
  index: number;
  selected: boolean;
  select: (cell: string | null) => void;
}

const CellRow = memo(function CellRow({ cell, rate, index, selected, select }: CellRowProps) {
  const load = loadOf(cell);
  return (
    <tr aria-rowindex={index} className={selected ? "row-selected" : undefined} onClick={() => select(cell.name)}>
      <th scope="row">
        <button type="button" className="row-name" aria-pressed={selected}>{cell.name}</button>
      </th>
      <td><StatusWord status={statusOf(cell)} /></td>
      <td>{cell.region}</td>
      <td className="row-load">
        {load ? (
          <>
            <Bar ratio={load.ratio} label={dimensionWords[load.dimension]} />
            <span>{formatRatio(load.ratio)}</span>
          </>
        ) : "no limit"}
      </td>
      <td className="numeric">{formatCount(cell.used.tenants ?? 0)}</td>
      <td className="numeric">{rate === undefined ? "–" : formatRate(rate)}</td>
      <td><code>{cell.version}</code></td>
      <td>{cell.class}</td>
      <td className="numeric">{cell.drift.length || "–"}</td>
    </tr>
  );
});

const collator = new Intl.Collator("en", { numeric: true });

/** Ties are broken by region and name, so the order never flickers. */
function comparison(by: Column, down: boolean, rates: ReadonlyMap<string, Rates>): (a: Cell, b: Cell) => number {
  const key: Record<Column, (cell: Cell) => string | number> = {
    name: (cell) => cell.name,
    status: (cell) => statuses.indexOf(statusOf(cell)),
    region: (cell) => cell.region,
    load: (cell) => loadOf(cell)?.ratio ?? -1,
    tenants: (cell) => cell.used.tenants ?? 0,
    "req/s": (cell) => rates.get(cell.name)?.at(-1) ?? -1,
    version: (cell) => cell.version,
    class: (cell) => cell.class,
    drift: (cell) => cell.drift.length,
  };
  const of = key[by];
  const compare = (a: string | number, b: string | number): number => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b)));
  return (a, b) => (down ? -1 : 1) * compare(of(a), of(b)) || collator.compare(a.region, b.region) || collator.compare(a.name, b.name);
}
