import { useLayoutEffect, useMemo, useRef, useState, type KeyboardEvent } from "react";
import type { Cell } from "../../../cellplane/src/cell/model.ts";
import { formatCount, plural } from "../draw/number.ts";
import { Mark } from "../draw/mark.tsx";
import { statuses, statusOf } from "../draw/status.ts";
import type { Rates } from "../live/fleet.ts";
import { TileCanvas } from "./canvas.tsx";
import type { Colouring } from "./colour.ts";
import { detailOf, elementsMax, layoutMap, neighbour, type Direction } from "./layout.ts";
import { weightsOf, type Sizing } from "./size.ts";
import { Tile } from "./tile.tsx";

interface CellMapProps {
  /** In the order of regions and names. */
  cells: readonly Cell[];
  rates: ReadonlyMap<string, Rates>;
  sizing: Sizing;
  colouring: Colouring;
  /** The custom property with a cell's colour, without the dashes. */
  tokenOf: (cell: Cell) => string;
  selected: string | null;
  select: (cell: string | null) => void;
}

const arrows: Readonly<Record<string, Direction>> = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right" };

/** Regions as panels with a tile for each cell. Elements while they are few, painted when they are many; arrows go from tile to tile either way. */
export function CellMap({ cells, rates, sizing, colouring, tokenOf, selected, select }: CellMapProps) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = (): void => setWidth(element.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const regions = useMemo(() => {
    const grouped = new Map<string, Cell[]>();
    for (const cell of cells) grouped.set(cell.region, [...(grouped.get(cell.region) ?? []), cell]);
    return [...grouped].map(([region, members]) => ({ region, members }));
  }, [cells]);
  const withCourse = rates.size > 0;
  const layout = useMemo(
    () => layoutMap(width, regions.map(({ region, members }) => ({ region, count: members.length, weights: weightsOf(members, sizing, rates) })), withCourse),
    // Rates matter to the layout only when they are what sizes the tiles.
    // oxlint-disable-next-line react/exhaustive-deps
    [width, regions, sizing, withCourse, sizing === "rate" ? rates : null],
  );
  const boxes = useMemo(() => layout.regions.flatMap((region) => region.boxes), [layout]);
  const ordered = useMemo(() => regions.flatMap(({ members }) => members), [regions]);

  const [focused, setFocused] = useState<string | null>(null);
  const current = focused ?? selected ?? ordered[0]?.name ?? null;
  const painted = cells.length > elementsMax;

  const pressed = (event: KeyboardEvent): void => {
    const direction = arrows[event.key];
    const from = ordered.findIndex((cell) => cell.name === current);
    if (direction) {
      event.preventDefault();
      const to = neighbour(boxes, from, direction);
      const cell = to === null ? undefined : ordered[to];
      if (!cell) return;
      setFocused(cell.name);
      if (!painted) box.current?.querySelector<HTMLElement>(`[data-cell="${CSS.escape(cell.name)}"]`)?.focus();
    } else if (painted && (event.key === "Enter" || event.key === " ") && current) {
      event.preventDefault();
      select(current);
    }
  };

  if (width === 0) return <div ref={box} className="map" />;
  return (
    <div
      ref={box}
      className="map"
      style={{ height: layout.height }}
      role={painted ? "listbox" : "group"}
      aria-label="Cells"
      tabIndex={painted ? 0 : undefined}
      aria-activedescendant={painted && current ? "map-current" : undefined}
      onKeyDown={pressed}
    >
      {painted && current && <CurrentOption cell={ordered.find((cell) => cell.name === current)} selected={current === selected} />}
      {layout.regions.map((panel, i) => {
        const members = regions[i]?.members ?? [];
        return (
          <section key={panel.region} className="region" style={{ left: panel.x, top: panel.y, width: panel.width, height: panel.height }} aria-label={`Region ${panel.region}`}>
            <RegionHead region={panel.region} cells={members} />
            {painted ? (
              <TileCanvas cells={members} boxes={panel.boxes} corner={panel} colouring={colouring} tokenOf={tokenOf} selected={selected} current={focused} select={select} />
            ) : (
              members.map((cell, at) => {
                const place = panel.boxes[at];
                if (!place) return null;
                const { x, y, width, height } = place;
                return (
                  <Tile
                    key={cell.name}
                    cell={cell}
                    rates={rates.get(cell.name)}
                    x={x - panel.x}
                    y={y - panel.y}
                    width={width}
                    height={height}
                    detail={sizing === "equal" ? layout.detail : detailOf(place, withCourse)}
                    token={tokenOf(cell)}
                    selected={cell.name === selected}
                    reachable={cell.name === current}
                    select={select}
                    focus={setFocused}
                  />
                );
              })
            )}
          </section>
        );
      })}
    </div>
  );
}

function RegionHead({ region, cells }: { region: string; cells: readonly Cell[] }) {
  const tenants = cells.reduce((sum, cell) => sum + (cell.used.tenants ?? 0), 0);
  const counts = new Map<string, number>();
  for (const cell of cells) counts.set(statusOf(cell), (counts.get(statusOf(cell)) ?? 0) + 1);
  return (
    <header className="region-head">
      <h2>{region}</h2>
      <span className="region-cells">{plural(cells.length, "cell")}</span>
      <span className="region-tenants">{plural(tenants, "tenant")}</span>
      <span className="region-counts">
        {statuses.filter((status) => counts.has(status)).map((status) => (
          <span key={status} title={`${counts.get(status)} ${status}`}>
            <Mark sign={status} label={status} />
            {formatCount(counts.get(status) ?? 0)}
          </span>
        ))}
      </span>
    </header>
  );
}

/** Stands for the painted tile that the arrows have reached, for those who hear the page. */
function CurrentOption({ cell, selected }: { cell: Cell | undefined; selected: boolean }) {
  if (!cell) return null;
  return (
    <div id="map-current" role="option" aria-selected={selected} className="unseen">
      {cell.name}, {statusOf(cell)}, region {cell.region}, {plural(cell.used.tenants ?? 0, "tenant")}
    </div>
  );
}
