import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { layoutMap, neighbour, regionHead, regionPad, treemap, type Box, type RegionIn } from "./layout.ts";

const overlap = (a: Box, b: Box): boolean => a.x + a.width > b.x + 0.01 && b.x + b.width > a.x + 0.01 && a.y + a.height > b.y + 0.01 && b.y + b.height > a.y + 0.01;
const weights = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 10_000 })), { minLength: 1, maxLength: 40 });
const region = fc.tuple(weights, fc.boolean()).map(([weights, sized]): RegionIn => ({ region: "r", count: weights.length, weights: sized ? weights : null }));

describe("the layout of the map", () => {
  test("C4: gives every cell a tile inside its region's panel, and no two share a spot", () => {
    fc.assert(
      fc.property(fc.array(region, { minLength: 1, maxLength: 5 }), fc.integer({ min: 240, max: 2000 }), (regions, width) => {
        const { regions: panels, height } = layoutMap(width, regions);
        for (const [i, panel] of panels.entries()) {
          expect(panel.boxes).toHaveLength(regions[i]?.count ?? -1);
          expect(panel.x + panel.width).toBeLessThanOrEqual(width + 0.01);
          expect(panel.y + panel.height).toBeLessThanOrEqual(height + 0.01);
          for (const box of panel.boxes) {
            expect(box.x).toBeGreaterThanOrEqual(panel.x + regionPad - 0.01);
            expect(box.y).toBeGreaterThanOrEqual(panel.y + regionHead - 0.01);
            expect(box.x + box.width).toBeLessThanOrEqual(panel.x + panel.width - regionPad + 0.01);
            expect(box.y + box.height).toBeLessThanOrEqual(panel.y + panel.height - regionPad + 0.01);
          }
        }
        for (const [i, a] of panels.entries()) for (const b of panels.slice(i + 1)) expect(overlap(a, b)).toBe(false);
        const boxes = panels.flatMap((panel) => panel.boxes).filter((box) => box.width > 1 && box.height > 1);
        for (const [i, a] of boxes.entries()) for (const b of boxes.slice(i + 1)) expect(overlap(a, b)).toBe(false);
      }),
      { numRuns: 60 },
    );
  });

  test("areas are as the weights", () => {
    const [a, b, c] = treemap([400, 200, 100], 700, 700);
    const area = (box: Box | undefined): number => ((box?.width ?? 0) + 2) * ((box?.height ?? 0) + 2);
    expect(area(a) / area(b)).toBeCloseTo(2, 5);
    expect(area(b) / area(c)).toBeCloseTo(2, 5);
  });

  test("the fewer cells, the more each says", () => {
    const detail = (count: number) => layoutMap(900, [{ region: "eu", count, weights: null }]).detail;
    expect([4, 40, 150, 320, 1000].map(detail)).toEqual(["large", "full", "compact", "small", "dot"]);
  });

  test("no cells, no height", () => expect(layoutMap(900, [])).toEqual({ detail: "large", height: 0, regions: [] }));
});

describe("C4: arrow keys", () => {
  const grid = Array.from({ length: 6 }, (_, i) => ({ x: (i % 3) * 10, y: Math.floor(i / 3) * 10, width: 9, height: 9 }));
  test.each([
    [0, "right", 1], [0, "down", 3], [5, "up", 2], [5, "left", 4], [0, "left", null], [2, "right", null], [4, "down", null],
  ] as const)("from %i %s to %s", (from, direction, to) => expect(neighbour(grid, from, direction)).toBe(to));

  test("reach every tile of any map", () => {
    fc.assert(
      fc.property(fc.array(region, { minLength: 1, maxLength: 4 }), fc.integer({ min: 300, max: 1500 }), (regions, width) => {
        const boxes = layoutMap(width, regions).regions.flatMap((panel) => panel.boxes);
        const reached = new Set([0]);
        for (const at of reached) for (const direction of ["up", "down", "left", "right"] as const) {
          const to = neighbour(boxes, at, direction);
          if (to !== null) reached.add(to);
        }
        expect(reached.size).toBe(boxes.length);
      }),
      { numRuns: 40 },
    );
  });
});
