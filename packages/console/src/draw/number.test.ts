import { describe, expect, test } from "vitest";
import { formatAgo, formatRate, formatRatio, plural } from "./number.ts";
import { linePath } from "./sparkline.tsx";

describe("figures", () => {
  test.each([[0, "0 %"], [0.001, "1 %"], [0.624, "62 %"], [0.999, "99 %"], [1, "100 %"], [1.26, "126 %"]])("%d is %s", (ratio, text) => expect(formatRatio(ratio)).toBe(text));
  test.each([[0, "0"], [0.04, "0.0"], [3.25, "3.3"], [213.4, "213"], [1234, "1.2K"]])("%d per second is %s", (rate, text) => expect(formatRate(rate)).toBe(text));
  test.each([[500, "just now"], [12_000, "12 s ago"], [130_000, "2 min ago"], [7.3e6, "2 h ago"], [2e8, "2 d ago"], [-5000, "just now"]])("%d ms is %s", (ms, text) => expect(formatAgo(ms)).toBe(text));
  test("one and many", () => expect([plural(1, "cell"), plural(1200, "cell")]).toEqual(["1 cell", "1,200 cells"]));
});

describe("the sparkline", () => {
  test("goes from edge to edge, with zero at its foot", () => expect(linePath([0, 10, 5], 10)).toBe("M0.0 23.0L50.0 1.0L100.0 12.0"));
  test("of nothing is nothing, and of silence a line", () => expect([linePath([], 1), linePath([0, 0], 0)]).toEqual(["", "M0.0 23.0L100.0 23.0"]));
});
