import type { Command } from "commander";
import { parseBytes, parseDurationMs } from "../base/units.ts";
import type { Client } from "../http/client.ts";
import type { Operation } from "../workflow/model.ts";

/**
 * How a noun puts its verbs on the command line. Each noun has a `cli.ts` with one function, called only when its noun
 * is asked for (main/cli.ts has the list of nouns and loads them lazily):
 *
 *   export function registerCell(cli: Cli): void {
 *     const cell = cli.noun("cell");
 *     cli.verb(cell, "list", {
 *       summary: "List the cells",
 *       flags: { region: flag.text("Only those of this region") },
 *       run: ({ flags, pages }) => pages(listCells, { query: { region: flags.region } }),
 *       columns: { NAME: (c) => c.name, STATE: (c) => c.state },
 *       wide: { VERSION: (c) => c.version },
 *     });
 *     cli.verb(cell, "destroy", {
 *       summary: "Stop a cell and remove it",
 *       args: { cell: "Its name" },
 *       mutates: true,
 *       confirm: ({ args }) => args.cell,
 *       before: ({ args, call }) => call(getCell, { params: { cell: args.cell } }),
 *       run: ({ args, call }) => call(destroyCell, { params: { cell: args.cell } }),
 *       operation: (answer) => answer.operation,
 *     });
 *   }
 *
 * Verbs at the top (`plan`, `apply`, `up`) are registered on `cli.program`. What the framework does for every verb:
 * `--output`, `--server`, `--token`, exit codes, rendering of failures, and for those with `mutates: true` the flags
 * `--dry-run --diff --wait --timeout --reason --idempotency-key --yes`.
 */
export interface Cli {
  /** The root, parent of verbs without a noun. */
  program: Command;
  /** The noun's command, as declared in main/cli.ts. A noun within a noun: `cli.noun("key", { in: tenant, summary: "…" })`. */
  noun(name: string, options?: { in: Command; summary: string }): Command;
  verb<A extends ArgumentTable, F extends FlagTable, R>(parent: Command, name: string, verb: Verb<A, F, R>): void;
}

/**
 * Positional arguments in their order: name → what it is. A name that ends in `?` may be left out, one that ends in
 * `...` takes all that follow.
 */
export type ArgumentTable = Record<string, string>;
type Arguments<A extends ArgumentTable> = {
  [K in keyof A as K extends `${infer N}?` ? N : K extends `${infer N}...` ? N : K]: K extends `${string}?` ? string | undefined : K extends `${string}...` ? string[] : string;
};

/** Flags: camelCase name → what it takes; `--camel-case` on the command line, `CELLPLANE_CAMEL_CASE` in the environment. */
export type FlagTable = Record<string, Flag<unknown>>;
type Flags<F extends FlagTable> = { [K in keyof F]: F[K] extends Flag<infer T> ? T : never };

export interface Flag<T> {
  summary: string;
  /** What stands after the flag, as in "<name>"; null for a toggle. */
  placeholder: string | null;
  /** One letter, as in "f". */
  short?: string;
  required: boolean;
  choices?: readonly string[];
  /** Value when it is not given. */
  initial: T;
  /** `previous` is what earlier occurrences gave, or `initial`. Throws an Error that says what would be right. */
  parse(text: string, previous: T): T;
}

interface FlagOptions {
  short?: string;
  placeholder?: string;
}

function measured(what: string, parse: (text: string) => number | null) {
  return (summary: string, options: FlagOptions = {}): Flag<number | undefined> => ({
    summary, placeholder: `<${what.split(",")[0] ?? what}>`, required: false, initial: undefined, ...options,
    parse: (text) => {
      const value = parse(text);
      if (value === null) throw new Error(`expected a ${what}`);
      return value;
    },
  });
}

export const flag = {
  text: (summary: string, options: FlagOptions = {}): Flag<string | undefined> => ({ summary, placeholder: "<text>", required: false, initial: undefined, parse: (text) => text, ...options }),
  toggle: (summary: string, options: FlagOptions = {}): Flag<boolean> => ({ summary, placeholder: null, required: false, initial: false, parse: () => true, ...options }),
  choice: <const C extends readonly string[]>(choices: C, summary: string, options: FlagOptions = {}): Flag<C[number] | undefined> => ({
    summary, placeholder: "<choice>", required: false, choices, initial: undefined, parse: (text) => text, ...options,
  }),
  number: measured("number", (text) => (/^-?\d+(\.\d+)?$/.test(text) ? Number(text) : null)),
  durationMs: measured("duration, as in 30s, 5m or 1h", parseDurationMs),
  bytes: measured("size, as in 512MiB or 20GB", parseBytes),
  /** May be repeated. */
  many: (summary: string, options: FlagOptions = {}): Flag<string[]> => ({ summary, placeholder: "<text>", required: false, initial: [], parse: (text, previous) => [...previous, text], ...options }),
  /** `--label a=b --label c=d` */
  pairs: (summary: string, options: FlagOptions = {}): Flag<Record<string, string>> => ({
    summary, placeholder: "<key=value>", required: false, initial: {}, ...options,
    parse: (text, previous) => {
      const at = text.indexOf("=");
      if (at < 1) throw new Error("expected key=value");
      return { ...previous, [text.slice(0, at)]: text.slice(at + 1) };
    },
  }),
  /** Makes a flag obligatory. */
  required: <T>(given: Flag<T>): Flag<Exclude<T, undefined>> => ({ ...given, required: true }) as unknown as Flag<Exclude<T, undefined>>,
};

/** One cell of a table; null and undefined show as "-", an array joined by commas. */
export type Shown = string | number | boolean | null | undefined | readonly (string | number)[];
/** Heading in capitals → what stands below it. */
export type Columns<T> = Record<string, (item: T) => Shown>;
/** A list's item, or the thing itself. */
type ItemOf<R> = R extends readonly (infer T)[] ? T : R extends AsyncIterable<infer T> ? T : NonNullable<R>;

export interface Verb<A extends ArgumentTable, F extends FlagTable, R> {
  summary: string;
  /** Longer help, shown below the flags: examples above all. */
  help?: string;
  args?: A;
  flags?: F;
  /** True adds the flags of a mutation; `call` then carries them. */
  mutates?: boolean;
  /** The name to be typed before a destructive verb runs; without a terminal it needs --yes. */
  confirm?: (at: Invocation<Arguments<A>, Flags<F>>) => string;
  /** What is there now, in the shape `run` answers, for --diff, and again after --wait. Left out by verbs that create. */
  before?: (at: Invocation<Arguments<A>, Flags<F>>) => Promise<unknown>;
  /**
   * Does it and returns what is printed: an object, an array or an async iterable (printed as it comes with
   * `-o ndjson` and tables); undefined prints nothing. Must stand before `columns`, which take their type from it.
   */
  run: (at: Invocation<Arguments<A>, Flags<F>>) => Promise<R> | R;
  /** Columns of `-o table`; `wide` are added by `-o wide`. An object that is no list is shown as lines of heading and value. */
  columns?: Columns<ItemOf<R>>;
  wide?: Columns<ItemOf<R>>;
  /** The human form in place of a table. */
  text?: (result: Awaited<R>, terminal: Terminal) => string;
  /** What `-o name` prints; default: `name` or `id`. */
  nameOf?: (item: ItemOf<R>) => string;
  /** The operation that the answer started, which --wait follows; null when there is nothing to wait for. */
  operation?: (answer: Awaited<R>) => string | null;
  /** What is printed after --wait; default: what `before` reads then, or else the answer. */
  after?: (at: Invocation<Arguments<A>, Flags<F>>, answer: Awaited<R>) => Promise<unknown>;
}

/** What a verb's code gets. */
export interface Invocation<A, F> {
  args: A;
  flags: F;
  /** Calls the API with the server and token of this invocation and, in a mutating verb, its --dry-run, --reason and --idempotency-key. */
  call: Client["call"];
  /** All items of all pages of a list. */
  pages: Client["pages"];
  /** Events as they happen, resumed when the connection breaks. */
  events: Client["events"];
  /** Shows an operation's progress until it is final. @throws CellplaneError operation_failed, operation_undone, wait_timed_out, operation_parked */
  follow: (operationId: string) => Promise<Operation>;
  terminal: Terminal;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
  /** --dry-run */
  dryRun: boolean;
  /** Ends with this code after printing: 2 for "changes present" (--detailed-exitcode). */
  exitWith: (code: 0 | 1 | 2) => void;
}

/** The person's side: stderr, and stdin when it is a terminal. Data go to stdout through what `run` returns. */
export interface Terminal {
  /** Colours may be used (a terminal, no NO_COLOR). */
  colour: boolean;
  /** Someone is there to answer: a terminal on both sides, not CI, no --yes. */
  interactive: boolean;
  /** A line on stderr. */
  note(line: string): void;
  /** A bar on a terminal; a line every few seconds elsewhere. */
  progress(title: string): Progress;
}

export interface Progress {
  /** @param ratio 0…1, or null when it is not known */
  update(ratio: number | null, message: string): void;
  /** Clears the bar and leaves a last line. */
  done(message?: string): void;
}
