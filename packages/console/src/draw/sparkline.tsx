import { memo } from "react";

const width = 100;
const height = 24;

/** The line through the values in a box of 100 × 24, from zero at its foot to `max` at its top. */
export function linePath(values: readonly number[], max: number): string {
  if (values.length === 0) return "";
  const stepX = width / Math.max(1, values.length - 1);
  const y = (value: number): string => (height - 1 - (max > 0 ? value / max : 0) * (height - 2)).toFixed(1);
  return values.map((value, i) => `${i === 0 ? "M" : "L"}${(i * stepX).toFixed(1)} ${y(value)}`).join("");
}

/** Recent values without axes: only the course counts, the number stands beside it. */
export const Sparkline = memo(function Sparkline({ values }: { values: readonly number[] }) {
  const line = linePath(values, Math.max(1, ...values));
  return (
    <svg className="sparkline" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden>
      <path className="sparkline-area" d={`${line}L${width} ${height}L0 ${height}Z`} />
      <path className="sparkline-line" d={line} vectorEffect="non-scaling-stroke" />
    </svg>
  );
});
