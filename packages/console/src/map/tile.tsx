import { memo, useEffect, useRef } from "react";
import type { Cell } from "../../../cellplane/src/cell/model.ts";
import { loadOf, usesOf } from "../cell/load.ts";
import { Bar } from "../draw/bar.tsx";
import { StatusWord, Mark } from "../draw/mark.tsx";
import { dimensionWords, formatCount, formatQuantity, formatRate, formatRatio, formatShort, formatVersion, plural } from "../draw/number.ts";
import { Sparkline } from "../draw/sparkline.tsx";
import { statusOf } from "../draw/status.ts";
import type { Rates } from "../live/fleet.ts";
import type { Detail } from "./layout.ts";

interface TileProps {
  cell: Cell;
  rates: Rates | undefined;
  x: number;
  y: number;
  width: number;
  height: number;
  detail: Detail;
  token: string;
  selected: boolean;
  /** The one tile that Tab leads to; arrows lead to the others. */
  reachable: boolean;
  select: (cell: string | null) => void;
  focus: (cell: string) => void;
}

export const Tile = memo(function Tile({ cell, rates, x, y, width, height, detail, token, selected, reachable, select, focus }: TileProps) {
  const status = statusOf(cell);
  const load = loadOf(cell);
  const element = useRef<HTMLButtonElement>(null);

  // A change of status is worth a glance, the first drawing is not.
  const before = useRef(status);
  useEffect(() => {
    if (before.current === status) return;
    before.current = status;
    const tile = element.current;
    tile?.classList.remove("tile-changed");
    // Read, so that the animation starts anew.
    void tile?.offsetWidth;
    tile?.classList.add("tile-changed");
  }, [status]);

  const roomy = detail === "large" || detail === "full";
  const loadText = load ? `${formatRatio(load.ratio)} of ${dimensionWords[load.dimension]}` : "no limit";
  const tenants = cell.used.tenants ?? 0;
  return (
    <button
      ref={element}
      type="button"
      className={`tile tile-${detail} tile-is-${status} band-${token}`}
      style={{ left: x, top: y, width, height }}
      data-cell={cell.name}
      aria-pressed={selected}
      aria-label={`${cell.name}, ${status}, ${loadText}, ${plural(tenants, "tenant")}, version ${cell.version}${cell.drift.length > 0 ? ", drift" : ""}`}
      tabIndex={reachable ? 0 : -1}
      onClick={() => select(cell.name)}
      onFocus={() => focus(cell.name)}
      title={detail === "dot" || detail === "small" ? `${cell.name}: ${status}, ${loadText}` : undefined}
    >
      <span className="tile-head">
        {!roomy && <Mark sign={status} />}
        {detail !== "dot" && <span className="tile-name">{cell.name}</span>}
        {roomy && cell.drift.length > 0 && <span className="badge badge-drift" title={plural(cell.drift.length, "difference")}>drift</span>}
        {!roomy && detail !== "dot" && cell.drift.length > 0 && <Mark sign="drift" />}
        {roomy && cell.class !== "shared" && <span className="badge">{cell.class}</span>}
        {roomy && <StatusWord status={status} />}
      </span>
      {detail === "large" && <Uses cell={cell} />}
      {(detail === "full" || detail === "compact") && (
        <span className="tile-load">
          <Bar ratio={load?.ratio ?? 0} label={load ? dimensionWords[load.dimension] : "load"} />
          <span className="tile-ratio">{load ? formatRatio(load.ratio) : "–"}</span>
        </span>
      )}
      {roomy && (
        <span className="tile-rate">
          {rates && rates.length > 1 && (
            <>
              <Sparkline values={rates} />
              <span className="tile-ratio">{formatRate(rates.at(-1) ?? 0)}<small>/s</small></span>
            </>
          )}
        </span>
      )}
      {detail !== "dot" && detail !== "small" && (
        <span className="tile-foot">
          <span>{detail === "compact" ? formatShort(tenants) : formatCount(tenants)} {tenants === 1 ? "tenant" : "tenants"}</span>
          {cell.operation !== null && <span className="tile-works">in work</span>}
          <span className="tile-version">{formatVersion(cell.version)}</span>
        </span>
      )}
    </button>
  );
});

/** Where there is room, every dimension that may run out. */
function Uses({ cell }: { cell: Cell }) {
  return (
    <span className="tile-uses">
      {usesOf(cell).slice(0, 4).map(({ dimension, used, ratio }) => (
        <span key={dimension} className="tile-use">
          <span>{dimensionWords[dimension]}</span>
          {ratio === null ? <span /> : <Bar ratio={ratio} label={dimensionWords[dimension]} />}
          <span className="tile-ratio">{ratio === null ? formatQuantity(dimension, used) : formatRatio(ratio)}</span>
        </span>
      ))}
    </span>
  );
}
