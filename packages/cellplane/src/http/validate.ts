import { z } from "zod";
import { fail, type Issue } from "../base/errors.ts";

/** Deeper JSON than this is refused: nothing of ours is, and every recursive function downstream may rely on it. */
const depthMax = 64;
const unstorable = /\0|\p{Surrogate}/u;

/**
 * What is JSON but cannot be handled safely: too deep, a `__proto__` key, or text PostgreSQL cannot keep (NUL, half a
 * surrogate pair). Null when all is well.
 */
export function unsafeJson(value: unknown): Issue | null {
  const found = findUnsafe(value, depthMax);
  return found && { path: found.path.join("."), message: found.message };
}

function findUnsafe(value: unknown, depthLeft: number): { path: string[]; message: string } | null {
  if (typeof value === "string") return unstorable.test(value) ? { path: [], message: "text may not contain NUL or half of a surrogate pair" } : null;
  if (value === null || typeof value !== "object") return null;
  if (depthLeft === 0) return { path: [], message: `nested deeper than ${depthMax} levels` };
  for (const [key, field] of Object.entries(value)) {
    if (key === "__proto__" || unstorable.test(key)) return { path: [], message: `a key may not be ${JSON.stringify(key)}` };
    const found = findUnsafe(field, depthLeft - 1);
    if (found) {
      // The path is put together on the way back only, so that sound input costs none.
      if (found.path.length < 8) found.path.unshift(key);
      return found;
    }
  }
  return null;
}

/** A schema as the border uses it: what it does not know is refused, not dropped, so that a typo is not silence. */
export const strict = <T, I>(schema: z.ZodType<T, I>): z.ZodType<T, I> => (schema instanceof z.ZodObject ? (schema.strict() as unknown as z.ZodType<T, I>) : schema);

/**
 * The value as the schema has it.
 * @param where stands before the paths of issues, as in "query"; "" for the body
 * @throws CellplaneError invalid_input with every issue
 */
export function check<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw fail("invalid_input", { issues: result.error.issues.flatMap((issue) => issuesOf(issue, where ? [where] : [])) });
}

function issuesOf(issue: z.core.$ZodIssue, before: PropertyKey[]): Issue[] {
  const path = [...before, ...issue.path];
  const at = (...more: PropertyKey[]) => [...path, ...more].map(String).join(".");
  if (issue.code === "unrecognized_keys") return issue.keys.map((key) => ({ path: at(key), message: "unknown field" }));
  // Of the alternatives, the one that got furthest says most.
  if (issue.code === "invalid_union" && issue.errors.length > 0) {
    const best = [...issue.errors].sort((a, b) => a.length - b.length)[0] ?? [];
    if (best.some((inner) => inner.path.length > 0)) return best.flatMap((inner) => issuesOf(inner, path));
  }
  return [{ path: at(), message: issue.message }];
}
