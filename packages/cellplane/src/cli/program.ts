import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { Argument, Command, CommanderError, Option } from "commander";
import { CellplaneError, fail } from "../base/errors.ts";
import type { CallOptions, Client } from "../http/client.ts";
import type { Endpoint } from "../http/contract.ts";
import { type ArgumentTable, type Cli, type Columns, type Flag, flag, type FlagTable, type Invocation, type Terminal, type Verb } from "./command.ts";
import { type Context, contextFileIn, defaultStateDir, projectFileAbove, readContext, userContextFile } from "./context.ts";
import { differences } from "./differences.ts";
import { failureLines } from "./failure.ts";
import { type Format, formats, print } from "./output.ts";
import { ask, type Io, mayColour, openTerminal, processIo } from "./terminal.ts";

/** A command of the first level: a noun with verbs, or a verb by itself. Its code is loaded when it is called. */
export interface Entry {
  name: string;
  summary: string;
  load: () => Promise<(cli: Cli) => void>;
}

const everywhere = {
  output: { ...flag.choice(formats, "Form of the data on stdout", { short: "o", placeholder: "<format>" }), initial: "table" as Format },
  server: flag.text("URL of the control plane", { placeholder: "<url>" }),
  token: flag.text("Token to call with; CELLPLANE_TOKEN does not show in the list of processes", { placeholder: "<token>" }),
  context: flag.text("File with server and token", { placeholder: "<file>" }),
  stateDir: flag.text("Folder of a fleet on this machine", { placeholder: "<dir>" }),
} satisfies FlagTable;

const ofMutations = {
  dryRun: flag.toggle("Show what would be, and change nothing"),
  diff: flag.toggle("Show what differs afterwards, on stderr"),
  wait: flag.toggle("Wait until the operation it starts is done"),
  timeout: flag.durationMs("With --wait: no longer than this, then end with 6"),
  reason: flag.text("Why, for the audit log"),
  idempotencyKey: flag.text("Names this change: repeated with the same key it is done once", { placeholder: "<key>" }),
  yes: flag.toggle("Do not ask", { short: "y" }),
} satisfies FlagTable;

type AnyVerb = Verb<ArgumentTable, FlagTable, unknown>;
type Values = Record<string, unknown>;

/**
 * Runs one command line. @returns its exit code
 * @param argv without the program's own name
 */
export async function runCli(argv: string[], entries: Entry[], version: string, io: Io = processIo()): Promise<number> {
  const words = argv[0] === "help" ? [...argv.slice(1), "--help"] : argv;
  let code = 0;
  const program = newCommand("cellplane", io).description("Cells for SaaS: make them, place tenants on them, route to them.").version(version, "-V, --version");
  for (const entry of entries) program.addCommand(newCommand(entry.name, io).description(entry.summary));
  const cli = openCli(program, io, (ended) => (code = ended));
  try {
    const entry = entries.find(({ name }) => name === words.find((word) => !word.startsWith("-")));
    if (entry) (await entry.load())(cli);
    await program.parseAsync(words, { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0;
      // A noun without a verb has been shown its help.
      if (error.code === "commander.help") return 3;
    }
    const terminal = openTerminal(io, { yes: true });
    const failure = error instanceof CommanderError ? fail("bad_usage", { why: error.message.replace(/^error: /, ""), command: "" }) : error;
    for (const line of failureLines(failure, { colour: terminal.colour, debug: Boolean(io.env["CELLPLANE_DEBUG"]) })) io.stderr.write(`${line}\n`);
    return failure instanceof CellplaneError ? failure.kind.exit : 1;
  }
}

/** Every command of the tree, for tests, completion and the reference. */
export async function wholeTree(entries: Entry[], version: string, io: Io = processIo()): Promise<Command> {
  const program = newCommand("cellplane", io).version(version);
  const cli = openCli(program, io, () => undefined);
  for (const entry of entries) program.addCommand(newCommand(entry.name, io).description(entry.summary));
  for (const register of new Set(await Promise.all(entries.map((entry) => entry.load())))) register(cli);
  return program;
}

function newCommand(name: string, io: Io): Command {
  return new Command(name)
    .exitOverride()
    .helpCommand(false)
    .showSuggestionAfterError(true)
    .configureOutput({ writeOut: (text) => void io.stdout.write(text), writeErr: (text) => void io.stderr.write(text), outputError: () => undefined })
    .configureHelp({ helpWidth: 120, sortSubcommands: false });
}

function childOf(parent: Command, name: string, io: Io): Command {
  const known = parent.commands.find((command) => command.name() === name);
  if (known) return known;
  const child = newCommand(name, io);
  parent.addCommand(child);
  return child;
}

function openCli(program: Command, io: Io, endWith: (code: number) => void): Cli {
  return {
    program,
    noun: (name, { in: parent, summary } = { in: program, summary: "" }) => {
      const noun = childOf(parent, name, io);
      return summary ? noun.description(summary) : noun;
    },
    verb(parent, name, verb) {
      const command = childOf(parent, name, io).description(verb.summary);
      if (verb.help) command.addHelpText("after", `\n${verb.help}`);
      const argumentNames = Object.entries(verb.args ?? {}).map(([spelled, summary]) => {
        const bare = spelled.replace(/\?$|\.\.\.$/, "");
        command.addArgument(new Argument(spelled.endsWith("?") ? `[${bare}]` : `<${spelled}>`, summary));
        return bare;
      });
      const own: FlagTable = verb.flags ?? {};
      const change: FlagTable = verb.mutates ? ofMutations : {};
      const table: FlagTable = { ...everywhere, ...change, ...own };
      addOptions(command, own, "Options:");
      addOptions(command, without(change, own), "Change:");
      addOptions(command, without(everywhere, own), "Everywhere:");
      command.action(async () => {
        const values = await resolveFlags(command, table, io);
        const args = Object.fromEntries(argumentNames.map((bare, i) => [bare, command.processedArgs[i] as unknown]));
        endWith(await runVerb(verb as unknown as AnyVerb, pathTo(command), args, values, io));
      });
    },
  };
}

/** A verb may give a flag of all verbs a meaning of its own. */
const without = (table: FlagTable, others: FlagTable): FlagTable => Object.fromEntries(Object.entries(table).filter(([name]) => !Object.hasOwn(others, name)));

const kebab = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
const variable = (name: string): string => `CELLPLANE_${kebab(name).replaceAll("-", "_").toUpperCase()}`;
const pathTo = (command: Command): string => (command.parent ? `${pathTo(command.parent)} ${command.name()}` : command.name());

function addOptions(command: Command, table: FlagTable, heading: string): void {
  for (const [name, given] of Object.entries(table)) {
    const spelled = `${given.short ? `-${given.short}, ` : ""}--${kebab(name)}${given.placeholder ? ` ${given.placeholder}` : ""}`;
    const notes = [given.required ? "required" : "", given.choices ? given.choices.join(" | ") : "", typeof given.initial === "string" ? `default ${given.initial}` : ""].filter(Boolean);
    const option = new Option(spelled, notes.length > 0 ? `${given.summary} (${notes.join("; ")})` : given.summary).helpGroup(heading);
    // Text is kept as it came: it is parsed once it is known which of the sources has the say.
    if (given.placeholder) option.argParser((text: string, previous: string[] | undefined) => [...(previous ?? []), text]);
    command.addOption(option);
  }
}

/** Flag > CELLPLANE_* > project file > default; the context is asked for last, by whoever calls the server. */
async function resolveFlags(command: Command, table: FlagTable, io: Io): Promise<Values> {
  const given = command.opts<Record<string, string[] | boolean | undefined>>();
  const project = await readProject(io);
  const values: Values = {};
  for (const [name, wanted] of Object.entries(table)) {
    const sources: [string, unknown][] = [[`--${kebab(name)}`, given[name]], [variable(name), io.env[variable(name)] || undefined], [project.file, project.values[name] ?? project.values[kebab(name)]]];
    const [source, value] = sources.find(([, value]) => value !== undefined) ?? ["", undefined];
    if (value === undefined && wanted.required) throw fail("bad_usage", { why: `--${kebab(name)} is missing`, command: pathTo(command) });
    values[name] = value === undefined ? wanted.initial : valueOf(wanted, value, source, pathTo(command));
  }
  return values;
}

function valueOf(wanted: Flag<unknown>, value: unknown, source: string, command: string): unknown {
  if (wanted.placeholder === null) return value === true || ["1", "true", "yes"].includes(String(value));
  let parsed = wanted.initial;
  for (const text of [value].flat().map(String)) {
    if (wanted.choices && !wanted.choices.includes(text)) throw fail("bad_usage", { why: `${source} ${text}: expected one of ${wanted.choices.join(", ")}`, command });
    try {
      parsed = wanted.parse(text, parsed);
    } catch (error) {
      throw fail("bad_usage", { why: `${source} ${text}: ${(error as Error).message}`, command });
    }
  }
  return parsed;
}

async function readProject(io: Io): Promise<{ file: string; values: Values }> {
  const file = projectFileAbove(io.cwd);
  if (file === null) return { file: "", values: {} };
  const { parse } = await import("yaml");
  try {
    const values: unknown = parse(readFileSync(file, "utf8"));
    if (values !== null && (typeof values !== "object" || Array.isArray(values))) throw new Error("expected flags and their values, as in `server: http://127.0.0.1:4600`");
    return { file, values: (values ?? {}) as Values };
  } catch (error) {
    throw fail("context_invalid", { file, why: (error as Error).message });
  }
}

/** Where to call: flags and variables, then the file named, the person's own file, or the one of the fleet on this machine. */
function contextOf(values: Values, io: Io): Context {
  const named = values["context"] as string | undefined;
  const stateDir = values["stateDir"] as string | undefined;
  const files = named !== undefined ? [resolve(io.cwd, named)] : stateDir !== undefined ? [contextFileIn(resolve(io.cwd, stateDir))] : [userContextFile(io.env), contextFileIn(defaultStateDir(io.env))];
  const [server, token] = [values["server"] as string | undefined, values["token"] as string | undefined];
  if (server !== undefined && !URL.canParse(server)) throw fail("bad_usage", { why: `--server ${server}: expected a URL, as in http://127.0.0.1:4600`, command: "" });
  if (server !== undefined && token !== undefined) return { server, token };
  const found = files.map(readContext).find((context) => context !== null);
  if (!found && server === undefined) throw fail("no_context", { looked: files });
  // A token is for the server it came with: it is never sent to another one that only the address names.
  const same = server === undefined || found?.server === server;
  return { server: server ?? found?.server ?? "", token: token ?? (same ? (found?.token ?? null) : null) };
}

async function runVerb(verb: AnyVerb, path: string, args: Values, values: Values, io: Io): Promise<number> {
  const interrupted = new AbortController();
  const stopListening = io.onInterrupt(() => interrupted.abort(fail("bad_usage", { why: "interrupted", command: path })));
  const terminal = openTerminal(io, { yes: values["yes"] === true });
  const dryRun = values["dryRun"] === true;
  const flags = Object.fromEntries(Object.keys(verb.flags ?? {}).map((name) => [name, values[name]]));
  let code = 0;
  let client: Client | null = null;
  // Loaded when a verb runs, and not for the help: the client knows the schemas, which take a while to load.
  const [{ createClient }, { follow }] = await Promise.all([import("../http/client.ts"), import("./follow.ts")]);
  const connect = (): Client => (client ??= createClient(contextOf(values, io)));
  let mutations = 0;

  const invocation = (dry: boolean): Invocation<never, never> => {
    const call = ((e: Endpoint, input: never, options: CallOptions = {}) => {
      const key = values["idempotencyKey"] as string | undefined;
      const reason = values["reason"] as string | undefined;
      // One key names the whole command; its later mutations get keys derived from it, so that each has its own.
      const nth = e.method !== "GET" && !dry ? ++mutations : 0;
      return connect().call(e, input, {
        ...(verb.mutates && dry ? { dryRun: true } : {}), ...(reason === undefined ? {} : { reason }),
        ...(key !== undefined && nth > 0 ? { idempotencyKey: nth === 1 ? key : `${key}.${nth}` } : {}), signal: interrupted.signal, ...options,
      });
    }) as Client["call"];
    return {
      args: args as never, flags: flags as never, call,
      pages: (e, input) => connect().pages(e, input),
      events: (query) => connect().events({ signal: interrupted.signal, ...query }),
      follow: (id) => follow(call, id, { terminal, started: mutations > 0, timeoutMs: (values["timeout"] as number | undefined) ?? null, signal: interrupted.signal }),
      terminal, signal: interrupted.signal, dryRun: dry,
      exitWith: (ended) => (code = ended),
    };
  };
  const show = (result: unknown) =>
    print(result, values["output"] as Format, {
      columns: verb.columns as Columns<unknown> | undefined, wide: verb.wide as Columns<unknown> | undefined, nameOf: verb.nameOf as ((item: unknown) => string) | undefined,
      text: verb.text && ((whole) => verb.text?.(whole, { ...terminal, colour: mayColour(io.stdout, io.env) }) ?? ""),
    }, (text) => void io.stdout.write(text));

  let following: string | null = null;
  let answer: unknown;
  try {
    const at = invocation(dryRun);
    if (verb.confirm && !dryRun && values["yes"] !== true) await confirm(verb.confirm(at), terminal, io, interrupted.signal);
    if (values["diff"] === true) await showDifferences(verb, invocation(true), terminal);
    answer = await verb.run(at);
    following = !dryRun && values["wait"] === true ? (verb.operation?.(answer as never) ?? null) : null;
    if (following !== null) {
      await at.follow(following);
      answer = await reread(verb, at, answer);
    }
    await show(answer);
    if (dryRun) terminal.note("dry run: nothing was changed");
    return code;
  } catch (error) {
    // What was started goes on, here or not: its answer, with the operation's id, is data all the same.
    if (following !== null && (interrupted.signal.aborted || (error instanceof CellplaneError && error.code === "wait_timed_out"))) await show(answer);
    if (!interrupted.signal.aborted) throw error;
    terminal.note(following === null ? "interrupted" : `detached; ${following} goes on: cellplane operation watch ${following}`);
    return 130;
  } finally {
    stopListening();
  }
}

/** After waiting, what there is now: the answer told of the start. */
async function reread(verb: AnyVerb, at: Invocation<never, never>, answer: unknown): Promise<unknown> {
  const again = verb.after ? verb.after(at, answer as never) : verb.before?.(at);
  return again === undefined
    ? answer
    : Promise.resolve(again).catch((error: unknown) => {
        if (error instanceof CellplaneError && error.code === "not_found") return answer;
        throw error;
      });
}

async function showDifferences(verb: AnyVerb, dry: Invocation<never, never>, terminal: Terminal): Promise<void> {
  const before = (await verb.before?.(dry)) ?? null;
  const after = await verb.run(dry);
  const lines = differences(before, after);
  if (lines.length === 0) terminal.note("no difference");
  for (const line of lines) terminal.note(terminal.colour ? paint(line) : line);
}

const paint = (line: string): string => (line.startsWith("+") ? `\x1b[32m${line}\x1b[39m` : line.startsWith("-") ? `\x1b[31m${line}\x1b[39m` : line);

async function confirm(name: string, terminal: Terminal, io: Io, signal: AbortSignal): Promise<void> {
  if (!terminal.interactive) throw fail("not_confirmed", { name, why: "nobody is there to ask" });
  const typed = await ask(io, `This cannot be taken back. Type ${name} to go on: `, signal);
  if (typed.trim() !== name) throw fail("not_confirmed", { name, why: "another name was typed" });
}
