import { createHash } from "node:crypto";
import type { Observed } from "../cell/model.ts";
import { canonicalJson } from "../base/canonical.ts";

export type Drift = Observed["drift"];
type Json = Drift[number]["actual"];

/** What is there, flat: path → value. A path that is absent is not there. */
export type Facts = Record<string, Json>;

export const digestOf = (value: unknown): string => createHash("sha256").update(canonicalJson(value)).digest("hex");

/** Adds a value's fields under their paths; arrays are one field. */
export function addFacts(facts: Facts, path: string, value: unknown): void {
  const fields = typeof value === "object" && value !== null && !Array.isArray(value) ? Object.entries(value) : [];
  if (fields.length === 0) facts[path] = value as Json;
  for (const [key, field] of fields) if (field !== undefined) addFacts(facts, `${path}.${key}`, field);
}

/**
 * Where the facts are what none of the expectations says. There are several while a change is under way: each thing is
 * then rightly the former or the next one.
 */
export function driftBetween(facts: Facts, expectations: Facts[]): Drift {
  const [latest = {}] = expectations;
  const paths = [...new Set([...Object.keys(facts), ...expectations.flatMap((expected) => Object.keys(expected))])].sort();
  return paths
    .filter((path) => !expectations.some((expected) => canonicalJson(expected[path]) === canonicalJson(facts[path]) && path in expected === path in facts))
    .map((path) => ({ path, ...(path in latest ? { expected: latest[path] } : {}), ...(path in facts ? { actual: facts[path] } : {}) }));
}

/** Replaces secrets wherever they stand in it. */
export function redact<T>(value: T, secrets: string[]): T {
  if (typeof value === "string") return secrets.reduce<string>((text, secret) => text.replaceAll(secret, "***"), value) as T;
  if (Array.isArray(value)) return value.map((item: unknown) => redact(item, secrets)) as T;
  if (typeof value === "object" && value !== null) return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, redact(field, secrets)])) as T;
  return value;
}
