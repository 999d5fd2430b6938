/** What differs between two values, one line for each leaf, as in `~ capacity.tenants: 50 → 80`; null is the same as nothing. */
export function differences(before: unknown, after: unknown, path = ""): string[] {
  if (isTree(before) && isTree(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
    return keys.flatMap((key) => differences(before[key], after[key], path ? `${path}.${key}` : key));
  }
  if (JSON.stringify(before ?? null) === JSON.stringify(after ?? null)) return [];
  const at = path ? `${path}: ` : "";
  if (before === undefined || before === null) return isTree(after) ? differences({}, after, path) : [`+ ${at}${JSON.stringify(after)}`];
  if (after === undefined || after === null) return isTree(before) ? differences(before, {}, path) : [`- ${at}${JSON.stringify(before)}`];
  return [`~ ${at}${JSON.stringify(before)} → ${JSON.stringify(after)}`];
}

const isTree = (value: unknown): value is Record<string, unknown> => value !== null && typeof value === "object";
