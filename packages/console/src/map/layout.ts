/** A rectangle in CSS pixels, measured from the upper left corner of the map. */
export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** How much a tile has room to say, most first: everything with its course · everything · name and load · name · its shape alone. */
const details = ["large", "full", "compact", "small", "dot"] as const;
export type Detail = (typeof details)[number];

interface Format {
  detail: Detail;
  /** Up to so many cells on the map. */
  cellsMax: number;
  widthMin: number;
  /** Without the course of the requests, which is not measured everywhere. */
  height: number;
  /** What that course takes more. */
  courseHeight: number;
  gap: number;
  /** A region has room for so many side by side, unless none has as many cells. */
  across: number;
}

/** The fewer cells, the more each of them says. */
const formats: readonly Format[] = [
  { detail: "large", cellsMax: 16, widthMin: 208, height: 134, courseHeight: 50, gap: 10, across: 2 },
  { detail: "full", cellsMax: 60, widthMin: 184, height: 82, courseHeight: 22, gap: 8, across: 2 },
  { detail: "compact", cellsMax: 200, widthMin: 128, height: 60, courseHeight: 0, gap: 6, across: 2 },
  { detail: "small", cellsMax: 450, widthMin: 72, height: 34, courseHeight: 0, gap: 4, across: 3 },
  { detail: "dot", cellsMax: Infinity, widthMin: 20, height: 20, courseHeight: 0, gap: 2, across: 8 },
];

/** Above so many cells tiles are painted on a canvas; up to it each is an element of its own. */
export const elementsMax = 200;
const regionGap = 14;
export const regionHead = 44;
export const regionPad = 12;
/** How much wider than it must be a tile may become. */
const growthMax = 1.6;
/** A region's head needs so much. */
const headWidthMin = 180;

export interface RegionIn {
  region: string;
  /** The size of each cell's tile against the others; null: all alike. */
  weights: readonly number[] | null;
  count: number;
}

interface RegionOut extends Box {
  region: string;
  /** One for each cell, in the order given, measured from the map's corner. */
  boxes: readonly Box[];
}

export interface MapLayout {
  detail: Detail;
  height: number;
  regions: readonly RegionOut[];
}

/** Where everything stands on a map of this width. Regions fill columns of equal width, each the shortest so far; the same input, the same picture. */
export function layoutMap(width: number, regions: readonly RegionIn[], withCourse = false): MapLayout {
  const count = regions.reduce((sum, region) => sum + region.count, 0);
  const format = formatFor(count, withCourse);
  const countMax = Math.max(1, ...regions.map((region) => region.count));
  const across = Math.min(format.across, countMax);
  const columnMin = Math.max(headWidthMin, across * (format.widthMin + format.gap) - format.gap + 2 * regionPad);
  const columns = Math.max(1, Math.min(regions.length, Math.floor((width + regionGap) / (columnMin + regionGap))));
  const columnWidth = (width - (columns - 1) * regionGap) / columns;
  const feet = Array.from({ length: columns }, () => 0);
  const placed = regions.map((region): RegionOut => {
    const column = feet.indexOf(Math.min(...feet));
    const corner = { x: column * (columnWidth + regionGap), y: feet[column] ?? 0 };
    const inner = columnWidth - 2 * regionPad;
    const grid = gridBoxes(region.count, inner, { ...format, countMax });
    const boxes = region.weights ? treemap(region.weights, inner, grid.height) : grid.boxes;
    const height = regionHead + grid.height + regionPad;
    feet[column] = corner.y + height + regionGap;
    return { region: region.region, ...corner, width: columnWidth, height, boxes: boxes.map((box) => ({ ...box, x: box.x + corner.x + regionPad, y: box.y + corner.y + regionHead })) };
  });
  return { detail: format.detail, height: Math.max(0, ...feet) - (regions.length > 0 ? regionGap : 0), regions: placed };
}

/** What a tile of this size has room to say: tiles of a treemap differ. */
export function detailOf(box: Pick<Box, "width" | "height">, withCourse = false): Detail {
  return formats.find((format) => box.width >= format.widthMin * 0.94 && box.height >= (format.height + (withCourse ? format.courseHeight : 0)) * 0.94)?.detail ?? "dot";
}

function formatFor(count: number, withCourse: boolean): Format {
  const format = formats.find(({ cellsMax }) => count <= cellsMax);
  if (!format) throw new RangeError("the last format has no upper bound");
  return withCourse ? { ...format, height: format.height + format.courseHeight } : format;
}

/** @param format `countMax` is the most cells any region has: where even those leave room, tiles of all regions grow alike, within bounds */
function gridBoxes(count: number, width: number, { widthMin, height, gap, countMax }: Format & { countMax: number }): { boxes: Box[]; height: number } {
  const fitting = Math.max(1, Math.floor((width + gap) / (widthMin + gap)));
  const columns = Math.min(fitting, Math.max(countMax, Math.ceil(fitting / growthMax)));
  const tile = (width - (columns - 1) * gap) / columns;
  const boxes = Array.from({ length: count }, (_, i) => ({ x: (i % columns) * (tile + gap), y: Math.floor(i / columns) * (height + gap), width: tile, height }));
  const rows = Math.ceil(count / columns);
  return { boxes, height: Math.max(0, rows * (height + gap) - gap) };
}

const treemapGap = 2;

/**
 * Tiles whose areas are as the weights, as near to squares as may be (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000). A weight of
 * nothing still gets a sliver, since a cell that holds nothing is a cell.
 */
export function treemap(weights: readonly number[], width: number, height: number): Box[] {
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const least = sum > 0 ? (sum / weights.length) * 0.12 : 1;
  const areas = weights.map((weight, i) => ({ i, area: Math.max(weight, least) })).sort((a, b) => b.area - a.area || a.i - b.i);
  const scale = (width * height) / areas.reduce((total, { area }) => total + area, 0);
  const boxes: Box[] = [];
  let free: Box = { x: 0, y: 0, width, height };
  for (let start = 0; start < areas.length; ) {
    const side = Math.min(free.width, free.height);
    let end = start + 1;
    let total = (areas[start]?.area ?? 0) * scale;
    let worst = worstRatio(total, total, total, side);
    for (; end < areas.length; end++) {
      const next = (areas[end]?.area ?? 0) * scale;
      const ratio = worstRatio((areas[start]?.area ?? 0) * scale, next, total + next, side);
      if (ratio > worst) break;
      [total, worst] = [total + next, ratio];
    }
    const thick = side > 0 ? total / side : 0;
    let along = 0;
    for (const { i, area } of areas.slice(start, end)) {
      const long = thick > 0 ? (area * scale) / thick : 0;
      boxes[i] = free.width >= free.height ? { x: free.x, y: free.y + along, width: thick, height: long } : { x: free.x + along, y: free.y, width: long, height: thick };
      along += long;
    }
    free = free.width >= free.height ? { ...free, x: free.x + thick, width: free.width - thick } : { ...free, y: free.y + thick, height: free.height - thick };
    start = end;
  }
  return boxes.map((box) => ({ ...box, width: Math.max(1, box.width - treemapGap), height: Math.max(1, box.height - treemapGap) }));
}

/** How far from a square the worst of a row is, which lies along a side of this length: its largest and smallest area decide. */
function worstRatio(largest: number, smallest: number, total: number, side: number): number {
  const square = side * side;
  return Math.max((square * largest) / (total * total), (total * total) / (square * smallest));
}

export type Direction = "up" | "down" | "left" | "right";

/**
 * The tile an arrow key leads to: the nearest one whose middle lies that way, where straying sideways counts double; null at the edge.
 */
export function neighbour(boxes: readonly Box[], from: number, direction: Direction): number | null {
  const start = boxes[from];
  if (!start) return null;
  const middle = (box: Box): [number, number] => [box.x + box.width / 2, box.y + box.height / 2];
  const [x, y] = middle(start);
  const reach = (direction === "up" || direction === "down" ? start.height : start.width) / 2;
  let [best, bestFar]: [number | null, number] = [null, Infinity];
  for (const [i, box] of boxes.entries()) {
    const [otherX, otherY] = middle(box);
    const ahead = { up: y - otherY, down: otherY - y, left: x - otherX, right: otherX - x }[direction];
    const aside = Math.abs(direction === "up" || direction === "down" ? otherX - x : otherY - y);
    const far = ahead + 2 * aside;
    // A tile lies that way when its middle is beyond our own edge.
    if (i !== from && ahead >= reach && far < bestFar) [best, bestFar] = [i, far];
  }
  return best;
}
