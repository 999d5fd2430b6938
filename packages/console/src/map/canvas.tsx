import { useEffect, useLayoutEffect, useMemo, useRef, useState, type MouseEvent } from "react";
import type { Cell } from "../../../cellplane/src/cell/model.ts";
import { loadOf } from "../cell/load.ts";
import { StatusWord } from "../draw/mark.tsx";
import { dimensionWords, formatRatio, formatVersion, plural } from "../draw/number.ts";
import { shapes, statuses, statusOf, type Status } from "../draw/status.ts";
import { usePaint, type Paint } from "../draw/paint.ts";
import type { Colouring } from "./colour.ts";
import { detailOf, type Box } from "./layout.ts";

interface TileCanvasProps {
  cells: readonly Cell[];
  /** One for each cell, measured from the map's corner. */
  boxes: readonly Box[];
  /** The panel this canvas covers. */
  corner: Box;
  colouring: Colouring;
  tokenOf: (cell: Cell) => string;
  selected: string | null;
  /** The tile the arrows have reached. */
  current: string | null;
  select: (cell: string | null) => void;
}

/** The tiles of a region, painted: thousands of elements would make the page crawl, thousands of rectangles do not. */
export function TileCanvas({ cells, boxes, corner, colouring, tokenOf, selected, current, select }: TileCanvasProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const paint = usePaint();
  const outlines = useMemo(outlinesOf, []);
  const [hovered, setHovered] = useState<number | null>(null);

  useLayoutEffect(() => {
    const element = canvas.current;
    const pen = element?.getContext("2d");
    if (!element || !pen) return;
    const density = devicePixelRatio;
    const [width, height] = [Math.round(corner.width * density), Math.round(corner.height * density)];
    // Setting the size clears the canvas and its memory, even when it stays the same.
    if (element.width !== width || element.height !== height) [element.width, element.height] = [width, height];
    pen.setTransform(density, 0, 0, density, 0, 0);
    pen.clearRect(0, 0, corner.width, corner.height);
    pen.translate(-corner.x, -corner.y);
    cells.forEach((cell, i) => {
      const box = boxes[i];
      if (box) paintTile({ pen, paint, outlines }, cell, box, { token: tokenOf(cell), colouring, ring: cell.name === selected ? "selected" : cell.name === current || i === hovered ? "current" : null });
    });
  }, [cells, boxes, corner, colouring, tokenOf, selected, current, hovered, paint, outlines]);

  useEffect(() => setHovered(null), [boxes]);

  const at = (event: MouseEvent): number | null => {
    const edge = event.currentTarget.getBoundingClientRect();
    const [x, y] = [event.clientX - edge.left + corner.x, event.clientY - edge.top + corner.y];
    const i = boxes.findIndex((box) => x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height);
    return i < 0 ? null : i;
  };
  const cell = hovered === null ? undefined : cells[hovered];
  const box = hovered === null ? undefined : boxes[hovered];
  return (
    <>
      <canvas
        ref={canvas}
        className={`tiles ${cell ? "tiles-hit" : ""}`}
        style={{ width: corner.width, height: corner.height }}
        aria-hidden
        onMouseMove={(event) => setHovered(at(event))}
        onMouseLeave={() => setHovered(null)}
        onClick={(event) => {
          const hit = at(event);
          if (hit !== null) select(cells[hit]?.name ?? null);
        }}
      />
      {cell && box && <Tip cell={cell} box={box} corner={corner} />}
    </>
  );
}

function Tip({ cell, box, corner }: { cell: Cell; box: Box; corner: Box }) {
  const load = loadOf(cell);
  const middle = box.x - corner.x + box.width / 2;
  // Kept inside the panel, so that it is never cut off by the page's edge.
  const left = Math.max(100, Math.min(corner.width - 100, middle));
  return (
    <div className="tip" style={{ left, top: box.y - corner.y }} role="tooltip">
      <strong>{cell.name}</strong>
      <StatusWord status={statusOf(cell)} />
      <span>{load ? `${formatRatio(load.ratio)} of ${dimensionWords[load.dimension]}` : "no limit"}</span>
      <span>{plural(cell.used.tenants ?? 0, "tenant")} · {formatVersion(cell.version)}</span>
    </div>
  );
}

interface Look {
  token: string;
  colouring: Colouring;
  ring: "selected" | "current" | null;
}

interface Tools {
  pen: CanvasRenderingContext2D;
  paint: Paint;
  outlines: Readonly<Record<Status, Path2D>>;
}

const outlinesOf = () => Object.fromEntries(statuses.map((status) => [status, new Path2D(shapes[status])])) as Record<Status, Path2D>;

function paintTile({ pen, paint, outlines }: Tools, cell: Cell, { x, y, width, height }: Box, { token, colouring, ring }: Look): void {
  const status = statusOf(cell);
  const named = detailOf({ width, height }) !== "dot";
  const colour = paint(token);
  const load = loadOf(cell)?.ratio ?? 0;
  const box = new Path2D();
  box.roundRect(x, y, width, height, Math.min(4, width / 5));

  pen.save();
  pen.clip(box);
  pen.fillStyle = paint("panel");
  pen.fillRect(x, y, width, height);
  // Well cells stay pale and fill up from their foot as their load grows; whatever is not well is solid, and stands out.
  const pale = colouring === "status" && status === "up";
  pen.fillStyle = colour;
  pen.globalAlpha = pale ? 0.16 : named ? 0.22 : 1;
  pen.fillRect(x, y, width, height);
  pen.globalAlpha = pale || named ? 0.55 : 0;
  if (named) pen.fillRect(x, y + height - 5, width * Math.min(1, load), 5);
  else pen.fillRect(x, y + height * (1 - Math.min(1, load)), width, height);
  pen.globalAlpha = 1;
  if (named) pen.fillRect(x, y, 3, height);
  pen.restore();

  if (named || (status !== "up" && Math.min(width, height) >= 13)) {
    pen.save();
    pen.translate(named ? x + 8 : x + width / 2 - 6, y + height / 2 - (named ? 8 : 6));
    pen.fillStyle = paint(named ? `status-${status}` : "on-fill");
    pen.fill(outlines[status], "evenodd");
    pen.restore();
  }
  if (named) {
    pen.fillStyle = paint("ink");
    pen.font = paint("canvas-font");
    pen.textBaseline = "middle";
    pen.fillText(fit(pen, cell.name, width - 30), x + 24, y + height / 2 - 2);
  }
  if (cell.drift.length > 0) {
    pen.fillStyle = paint("ink");
    pen.beginPath();
    pen.moveTo(x + width, y);
    pen.lineTo(x + width - 7, y);
    pen.lineTo(x + width, y + 7);
    pen.fill();
  }
  if (ring) {
    pen.strokeStyle = paint(ring === "selected" ? "accent" : "ink-2");
    pen.lineWidth = ring === "selected" ? 2.5 : 1.5;
    pen.stroke(box);
  }
}

/** The end of a name tells cells apart, so that is what stays. */
function fit(pen: CanvasRenderingContext2D, name: string, width: number): string {
  if (pen.measureText(name).width <= width) return name;
  for (let from = 1; from < name.length; from++) {
    const short = `…${name.slice(from)}`;
    if (pen.measureText(short).width <= width) return short;
  }
  return "";
}
