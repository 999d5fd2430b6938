/** What every bench is told on its command line. */
export const quick = process.argv.includes("--quick");
const json = process.argv.includes("--json");

/** The value below which this part of the numbers lies: 0.5 for the median. */
export function quantile(numbers: readonly number[], part: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}
export const median = (numbers: readonly number[]): number => quantile(numbers, 0.5);

/** Three significant digits are as many as a busy machine has. */
export const shown = (number: number): string => (Number.isFinite(number) ? String(Number(number.toPrecision(3))) : "–");

/** "12 (10 … 15)" */
export const spread = (numbers: readonly number[]): string => `${shown(median(numbers))} (${shown(Math.min(...numbers))} … ${shown(Math.max(...numbers))})`;

export function printTable(rows: readonly (readonly string[])[]): void {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  for (const [i, row] of rows.entries()) {
    console.log(row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join("  ").trimEnd());
    if (i === 0) console.log(widths.map((width) => "─".repeat(width)).join("──"));
  }
}

/** The last line, for programs. */
export function printJson(keys: Record<string, number>): void {
  if (json) console.log(JSON.stringify(Object.fromEntries(Object.entries(keys).map(([key, value]) => [key, Number(value.toPrecision(4))]))));
}
