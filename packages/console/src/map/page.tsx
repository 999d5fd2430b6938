import { useDeferredValue, useMemo, useRef } from "react";
import type { Cell } from "../../../cellplane/src/cell/model.ts";
import { CellInspector } from "../cell/inspector.tsx";
import { Command } from "../draw/copy.tsx";
import { Icon } from "../draw/icon.tsx";
import { ProblemNote } from "../draw/problem.tsx";
import { useNow } from "../live/clock.ts";
import { useFleet, useLive } from "../live/live.tsx";
import { FleetInspector } from "../operation/inspector.tsx";
import { PageHead } from "../shell/head.tsx";
import { useKeys } from "../shell/keys.ts";
import type { PageProps } from "../shell/location.ts";
import { Attention } from "./attention.tsx";
import { concernsOf } from "./concern.ts";
import { colourings, shade, type Colouring } from "./colour.ts";
import { parseFilter, toggleTerm } from "./filter.ts";
import { Legend } from "./legend.tsx";
import { CellMap } from "./map.tsx";
import { sizings, type Sizing } from "./size.ts";
import { Summary } from "./summary.tsx";
import { CellTable } from "./table.tsx";
import "./map.css";

const oneOf = <T extends string>(known: readonly T[], given: string | undefined): T => known.find((one) => one === given) ?? (known[0] as T);
const after = <T extends string>(known: readonly T[], now: T): T => known[(known.indexOf(now) + 1) % known.length] ?? now;

/** The cell map: every cell of the fleet on one page, and what needs a person on top. */
export function MapPage({ search, go }: PageProps) {
  const fleet = useFleet();
  const { fleet: live } = useLive();
  const nowMs = useNow(15_000);
  const input = useRef<HTMLInputElement>(null);
  const attention = useRef<HTMLElement>(null);

  const colouring = oneOf<Colouring>(colourings, search["colour"]);
  const sizing = oneOf<Sizing>(sizings, search["size"]);
  const asTable = search["view"] === "table";
  const filter = search["filter"] ?? "";
  const selected = search["cell"] ?? null;

  const all = useMemo(() => [...fleet.cells.values()].sort(byRegionAndName), [fleet.cells]);
  const appliedFilter = useDeferredValue(filter);
  const shown = useMemo(() => all.filter(parseFilter(appliedFilter)), [all, appliedFilter]);
  const shading = useMemo(() => shade(all, colouring), [all, colouring]);
  const concerns = useMemo(() => concernsOf({ cells: all, operations: fleet.operations, events: fleet.events, nowMs }), [all, fleet.operations, fleet.events, nowMs]);

  const select = (cell: string | null): void => go({ cell: cell ?? "" }, "add");
  const setFilter = (text: string): void => go({ filter: text });
  const setColouring = (next: string): void => go({ colour: next === colourings[0] ? "" : next });
  const setSizing = (next: string): void => go({ size: next === sizings[0] ? "" : next });
  const setTable = (table: boolean): void => go({ view: table ? "table" : "" });

  useKeys({
    "/": () => input.current?.focus(),
    Escape: () => {
      if (document.activeElement === input.current) input.current?.blur();
      else if (selected) select(null);
      else if (filter) setFilter("");
    },
    t: () => setTable(!asTable),
    c: () => setColouring(after(colourings, colouring)),
    s: () => setSizing(after(sizings, sizing)),
    a: () => attention.current?.querySelector<HTMLElement>("button")?.focus(),
  });

  const selectedCell = selected ? fleet.cells.get(selected) : undefined;
  return (
    <div className="page">
      <div className="page-main">
        <PageHead title="Cells">
          <div className="search">
            <Icon name="search" />
            <input ref={input} type="search" placeholder="Search cells" aria-label="Search cells" spellCheck={false} autoComplete="off" value={filter} onChange={(event) => setFilter(event.target.value)} />
            <kbd aria-hidden>/</kbd>
          </div>
          <label className="choice">
            Colour
            <select value={colouring} onChange={(event) => setColouring(event.target.value)}>
              {colourings.map((one) => <option key={one}>{one}</option>)}
            </select>
          </label>
          <label className="choice">
            Size
            <select value={sizing} onChange={(event) => setSizing(event.target.value)}>
              {sizings.map((one) => <option key={one}>{one}</option>)}
            </select>
          </label>
          <div className="switch" role="group" aria-label="Show as">
            <button type="button" aria-pressed={!asTable} onClick={() => setTable(false)}><Icon name="map" />Map</button>
            <button type="button" aria-pressed={asTable} onClick={() => setTable(true)}><Icon name="table" />Table</button>
          </div>
        </PageHead>
        <main className={`map-main ${fleet.link.state === "lost" ? "is-old" : ""}`} aria-busy={fleet.phase === "loading"}>
          {fleet.phase === "loading" && <Loading />}
          {fleet.phase === "failed" && fleet.problem && <ProblemNote problem={fleet.problem} retry={() => live.retry()} />}
          {fleet.phase === "ready" && all.length === 0 && <Empty />}
          {fleet.phase === "ready" && all.length > 0 && (
            <>
              {fleet.problem && fleet.link.state === "live" && <ProblemNote problem={fleet.problem} retry={() => live.retry()} />}
              <Summary cells={all} rates={fleet.rates} />
              <Attention ref={attention} concerns={concerns} open={(concern) => (concern.cells.length === 1 ? select(concern.cells[0] ?? null) : setFilter(concern.filter))} />
              <Legend legend={shading.legend} colouring={colouring} filter={filter} toggle={(term) => setFilter(toggleTerm(filter, term))} shown={shown.length} all={all.length} clear={() => setFilter("")} />
              {shown.length === 0 ? (
                <p className="nothing">No cell matches <code>{filter}</code>.</p>
              ) : asTable ? (
                <CellTable cells={shown} rates={fleet.rates} selected={selected} select={select} />
              ) : (
                <CellMap cells={shown} rates={fleet.rates} sizing={sizing} colouring={colouring} tokenOf={shading.tokenOf} selected={selected} select={select} />
              )}
            </>
          )}
        </main>
      </div>
      {selectedCell ? (
        <CellInspector key={selectedCell.name} cell={selectedCell} rates={fleet.rates.get(selectedCell.name)} close={() => select(null)} />
      ) : (
        <FleetInspector missing={fleet.phase === "ready" ? selected : null} select={select} />
      )}
    </div>
  );
}

const byRegionAndName = (a: Cell, b: Cell): number => collator.compare(a.region, b.region) || collator.compare(a.name, b.name);
// So that eu-2 stands before eu-10.
const collator = new Intl.Collator("en", { numeric: true });

function Loading() {
  return (
    <div className="loading" role="status">
      <span className="unseen">Reading the fleet…</span>
      {Array.from({ length: 8 }, (_, i) => <span key={i} className="loading-tile" aria-hidden />)}
    </div>
  );
}

function Empty() {
  return (
    <section className="empty">
      <h2>No cells yet</h2>
      <p>Describe your fleet in a file, look at what would be done, and do it. The cells appear here as they come up.</p>
      <ol>
        <li><Command text="cellplane plan -f cellplane.yaml" /></li>
        <li><Command text="cellplane apply -f cellplane.yaml" /></li>
      </ol>
      <p>Or make a single one from a blueprint:</p>
      <p><Command text="cellplane cell create eu-1 --region eu --blueprint shop" /></p>
    </section>
  );
}
