import { Composer, type Document, isAlias, isMap, isNode, isScalar, isSeq, Lexer, LineCounter, type Node, Parser, visit } from "yaml";
import type { z } from "zod";
import { fail, type Issue } from "../base/errors.ts";
import { Blueprint } from "../cell/model.ts";
import { Fleet } from "./model.ts";
import { checkFleet, type Finding } from "./plan.ts";

/** A file larger, deeper or, with its aliases written out, longer than this is no fleet file. */
export const bytesMax = 1024 * 1024;
const depthMax = 64;
const lexemesMax = 250_000;
const valuesMax = 200_000;
/** Nobody reads more at once, and finding the places of thousands takes long. */
const issuesMax = 20;

export interface ParsedFleet {
  fleet: Fleet;
  /** Says where in the file the findings are. */
  locate: (findings: Finding[]) => Issue[];
}

/**
 * Reads a fleet file and everything in it that can be judged without knowing the fleet as it is.
 *
 * @throws CellplaneError fleet_invalid with line and column of each issue; syntax first, since nothing else can be said before
 */
export function parseFleet(text: string, file: string): ParsedFleet {
  if (Buffer.byteLength(text) > bytesMax) throw fail("fleet_invalid", { file, issues: [{ path: "", message: `the file is larger than ${bytesMax} bytes` }] });
  const lines = new LineCounter();
  const refuse = (issues: Issue[]) => fail("fleet_invalid", { file, issues: issues.slice(0, issuesMax).sort((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)) });
  const at = (offset: number): Pick<Issue, "line" | "column"> => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };

  const documents = [...new Composer({ version: "1.2", uniqueKeys: false, stringKeys: true, prettyErrors: false }).compose(tokens(text, lines, refuse, at), true, text.length)];
  const document = documents[0];
  const problems = documents.flatMap(({ errors, warnings }) => [...errors, ...warnings]);
  if (problems.length > 0) throw refuse(problems.map((problem) => ({ path: "", message: problem.message.replace(/\.?$/, ""), ...at(problem.pos[0]) })));
  if (!document?.contents || (isScalar(document.contents) && document.contents.value === null)) throw refuse([{ path: "", message: "the file is empty; it begins with `fleet: <name>`", line: 1, column: 1 }]);
  if (documents[1]) throw refuse([{ path: "", message: "a fleet is one YAML document: remove the `---` and what follows", ...at(documents[1].range[0]) }]);
  const twice = duplicateKeys(document, at);
  if (twice.length > 0) throw refuse(twice);

  const locate = (findings: FileFinding[]): Issue[] => findings.slice(0, issuesMax).map(({ keys, message, of = "value" }) => ({ path: keys.join("."), message, ...at(offsetOf(document, keys, of)) }));
  const parsed = FleetFile.safeParse(valueOf(document, refuse));
  if (!parsed.success) throw refuse(locate(parsed.error.issues.flatMap((issue) => findingsOf(issue))));
  return { fleet: parsed.data, locate };
}

const FleetFile = Fleet.superRefine(checkFleet);

/** A finding about a name is shown where the name stands, one about a value where the value does. */
type FileFinding = Finding & { of?: "key" | "value" };
type Refuse = (issues: Issue[]) => Error;
type At = (offset: number) => Pick<Issue, "line" | "column">;

/** The composer calls itself for each level, so how deep it may go is bounded here, where levels are a stack. */
function* tokens(text: string, lines: LineCounter, refuse: Refuse, at: At) {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  let count = 0;
  for (const lexeme of new Lexer().lex(text)) {
    yield* parser.next(lexeme);
    if (++count > lexemesMax) throw refuse([{ path: "", message: "the file says more than a fleet could need", ...at(parser.offset) }]);
    if (parser.stack.length > depthMax) throw refuse([{ path: "", message: `this is nested deeper than ${depthMax} levels`, ...at(parser.offset) }]);
  }
  yield* parser.end();
}

/** Of two equal keys a reader would believe one and the program the other. Checked here because the library's own check takes quadratic time. */
function duplicateKeys(document: Document, at: At): Issue[] {
  const issues: Issue[] = [];
  visit(document, {
    Map(_, map) {
      const first = new Map<string, number>();
      for (const { key } of map.items) {
        if (!isScalar(key)) continue;
        const name = String(key.value);
        const offset = key.range?.[0] ?? 0;
        const known = first.get(name);
        if (known === undefined) first.set(name, offset);
        else issues.push({ path: "", message: `the key ${name} stands twice: first in line ${at(known).line}`, ...at(offset) });
      }
    },
  });
  return issues;
}

/** The plain value, with aliases written out. */
function valueOf(document: Document, refuse: Refuse): unknown {
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch {
    throw refuse([{ path: "", message: "aliases refer to aliases too often, or to themselves: write the values out", line: 1, column: 1 }]);
  }
  const rest = [value];
  for (let count = 1; rest.length > 0; count++) {
    if (count > valuesMax) throw refuse([{ path: "", message: `with aliases written out there are more than ${valuesMax} values`, line: 1, column: 1 }]);
    const next = rest.pop();
    if (typeof next === "object" && next !== null) for (const item of Object.values(next)) rest.push(item);
  }
  return value;
}

/** Where the value of these keys stands, or its key, or what comes closest when it is missing. */
function offsetOf(document: Document, keys: PropertyKey[], of: "key" | "value"): number {
  let node: unknown = document.contents;
  let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
  for (const [i, key] of keys.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    if (isSeq(node)) {
      node = node.items[Number(key)];
    } else {
      const pair = isMap(node) ? node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(key)) : undefined;
      if (!pair) return offset;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
      if (i === keys.length - 1 && of === "key") return offset;
    }
    // `eu:` has a value without an extent of its own.
    if (isNode(node) && node.range && node.range[1] > node.range[0]) offset = node.range[0];
  }
  return offset;
}

// ── what the schema finds, in words that say what to do ─────────────────────────────────────────────────────────────

const kinds: Record<string, string> = { string: "text", number: "a number", int: "a whole number", boolean: "true or false", object: "fields", record: "names with their values", array: "a list", null: "nothing" };

function findingsOf(issue: z.core.$ZodIssue): FileFinding[] {
  const keys = issue.path.map(String);
  switch (issue.code) {
    case "unrecognized_keys": {
      const known = fieldsOf(issue.path);
      return issue.keys.slice(0, issuesMax).map((key) => ({ keys: [...keys, key], of: "key", message: `unknown field ${key}${hint(key, known)}` }));
    }
    case "invalid_key":
      return [{ keys, of: "key", message: issue.issues.map((inner) => inner.message).join("; ") }];
    case "invalid_type": {
      const received = / received (.+)$/.exec(issue.message)?.[1] ?? "";
      const expected = kinds[issue.expected] ?? issue.expected;
      if (received === "undefined") return [{ keys, message: `is missing: ${expected} is needed` }];
      const quote = issue.expected === "string" && (received === "number" || received === "boolean") ? "; put it in quotes" : "";
      return [{ keys, message: `expected ${expected}, found ${kinds[received] ?? received}${quote}` }];
    }
    case "invalid_value":
      return [{ keys, message: `expected ${issue.values.map(String).join(" or ")}` }];
    case "too_small":
      return [{ keys, message: issue.origin === "number" || issue.origin === "int" ? `must be at least ${issue.minimum}` : issue.message }];
    case "too_big":
      return [{ keys, message: issue.origin === "number" || issue.origin === "int" ? `must be at most ${issue.maximum}` : issue.message }];
    case "invalid_union": {
      if (issue.errors.length === 0) return [{ keys, message: issue.message.replace(/^Invalid discriminator value\. E/, "e") }];
      const choices = issue.errors.flat().flatMap((inner) => findingsOf(inner).map((finding) => finding.message.replace(/, found .*$/, "").replace(/^expected /, "")));
      return [{ keys, message: `expected ${[...new Set(choices)].join(" or ")}` }];
    }
    default:
      return [{ keys, message: issue.message }];
  }
}

/** The fields that may stand at a place in the file. */
const fieldsOf = (path: PropertyKey[]): string[] => (path[0] === "cells" && path[2] === "overrides" ? fieldsAt(Blueprint, path.slice(3)) : fieldsAt(Fleet, path));

function fieldsAt(schema: z.core.$ZodType, path: PropertyKey[]): string[] {
  const def = schema._zod.def as unknown as { type: string; innerType?: z.core.$ZodType; shape?: Record<string, z.core.$ZodType>; valueType?: z.core.$ZodType; element?: z.core.$ZodType };
  if (def.innerType) return fieldsAt(def.innerType, path);
  const [key, ...rest] = path;
  if (key === undefined) return Object.keys(def.shape ?? {});
  const inner = def.shape?.[String(key)] ?? def.valueType ?? def.element;
  return inner ? fieldsAt(inner, rest) : [];
}

/** "; did you mean `services`?", or what there is. */
function hint(name: string, known: string[]): string {
  const near = known.map((other) => ({ other, distance: editDistance(name.toLowerCase(), other.toLowerCase()) })).sort((a, b) => a.distance - b.distance)[0];
  if (near && near.distance <= Math.max(1, Math.floor(name.length / 3))) return `; did you mean ${near.other}?`;
  return known.length > 0 && known.length <= 12 ? `; there is ${known.join(", ")}` : "";
}

/** Levenshtein's distance, in one row. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min((next[j - 1] ?? 0) + 1, (row[j] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length] ?? 0;
}
