import type { Capacity, Cell, dimensions } from "../../../cellplane/src/cell/model.ts";

type Dimension = (typeof dimensions)[number];
// Not the value from the model, which would bring the schemas and their library into the browser; the type keeps both lists equal.
const inOrder: readonly Dimension[] = Object.keys({ tenants: 0, connections: 0, requestsPerSecond: 0, diskBytes: 0 } satisfies Record<Dimension, 0>) as Dimension[];

export interface DimensionUse {
  dimension: Dimension;
  used: number;
  /** Null: not limited. */
  capacity: number | null;
  /** used ÷ capacity; null when not limited. More than 1 when it was limited below its use. */
  ratio: number | null;
}

/** Every dimension that is limited or in use. */
export function usesOf({ capacity, used }: { capacity: Capacity; used: Capacity }): DimensionUse[] {
  return inOrder.flatMap((dimension): DimensionUse[] => {
    const limit = capacity[dimension] ?? null;
    const use = used[dimension] ?? 0;
    if (limit === null && use === 0) return [];
    return [{ dimension, used: use, capacity: limit, ratio: limit === null ? null : limit === 0 ? (use > 0 ? Infinity : 0) : use / limit }];
  });
}

/** The dimension that will be full first; null when none is limited. */
export function loadOf(cell: Pick<Cell, "capacity" | "used">): (DimensionUse & { ratio: number }) | null {
  let fullest: (DimensionUse & { ratio: number }) | null = null;
  for (const use of usesOf(cell)) if (use.ratio !== null && (fullest === null || use.ratio > fullest.ratio)) fullest = { ...use, ratio: use.ratio };
  return fullest;
}
