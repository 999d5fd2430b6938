import { readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { fileURLToPath } from "node:url";
import type { Command, Option } from "commander";
import { beforeAll, describe, expect, test } from "vitest";
import { run } from "../cli/testing/shell.ts";
import { wholeTree } from "../cli/program.ts";
import { entries } from "./cli.ts";

const program = await wholeTree(entries, "0.0.0-test");
const pathOf = (command: Command): string[] => (command.parent ? [...pathOf(command.parent), command.name()] : []);
const leavesOf = (command: Command): Command[] => (command.commands.length > 0 ? command.commands.flatMap(leavesOf) : [command]);
const verbs = leavesOf(program).map((command) => ({ words: pathOf(command), name: pathOf(command).join(" "), command }));

/** They run or look at processes of this machine and call no server, or not only. */
const local = new Set(["up", "down", "server", "router", "doctor"]);
/** They read a file first, which is not there. */
const readers = new Set(["plan", "diff", "apply", "tenant import", "claim reconcile"]);
/** Flags of which one is wanted. */
const more: Record<string, string[]> = { "tenant key add": ["--value", "x"] };

const longNames = (command: Command): string[] => command.options.map((option) => option.long ?? "");

/** A value that any flag of this kind takes. */
function valueFor(option: Option): string {
  const choices = /\(required; ([^)]+)\)/.exec(option.description)?.[1];
  const placeholder = /<(.+)>/.exec(option.flags)?.[1] ?? "";
  const byKind: Record<string, string> = { duration: "1s", number: "1", size: "1MiB", "key=value": "a=b" };
  return choices?.split(" | ")[0] ?? byKind[placeholder] ?? exampleIn(placeholder) ?? "x";
}

/** "login=ann" in "What, as in login=ann or …". */
const exampleIn = (text: string): string | undefined => /as in (\S+)/.exec(text)?.[1];

let deadPort: number;
beforeAll(async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  deadPort = (server.address() as AddressInfo).port;
  await new Promise((resolve) => server.close(resolve));
});

describe("C9: every verb keeps the contract", () => {
  test.each(verbs.filter(({ name }) => !local.has(name)))("$name: no terminal, -o json, a server that is not there", async ({ words, name, command }) => {
    const required = command.options.filter((option) => option.description.includes("(required")).flatMap((option) => [option.long ?? "", valueFor(option)]);
    const given = command.registeredArguments.filter((argument) => argument.required).map((argument) => exampleIn(argument.description) ?? "x");
    const yes = longNames(command).includes("--yes") ? ["--yes"] : [];
    const ended = await run(entries, [...words, ...given, ...required, ...(more[name] ?? []), ...yes, "-o", "json", "--server", `http://127.0.0.1:${deadPort}`, "--token", "x"]);
    const code = /code: (\w+)/.exec(ended.stderr)?.[1] ?? "";
    const kind = /unreadable|bad_usage/.test(code) ? "file" : code;
    expect([kind, ended.code, ended.stdout]).toEqual(readers.has(name) ? ["file", 3, ""] : ["server_unreachable", 1, ""]);
    expect(ended.stderr).toContain("fix: ");
  });

  test.each(verbs.filter(({ command }) => longNames(command).includes("--reason")))("$name has all the flags of a change", ({ command }) => {
    expect(longNames(command)).toEqual(expect.arrayContaining(["--dry-run", "--diff", "--wait", "--timeout", "--reason", "--idempotency-key", "--yes"]));
  });

  test.each(verbs)("$name is described", ({ name, command }) => {
    expect(command.description()).toMatch(/^[A-Z].*[^.]$/);
    expect(longNames(command)).toContain("--output");
    const entry = entries.find((candidate) => candidate.name === name);
    expect(entry?.summary ?? command.description()).toBe(command.description());
    const shorts = command.options.map((option) => option.short).filter(Boolean);
    expect(new Set(shorts).size).toBe(shorts.length);
  });
});

test("C10: the help is as main/help.golden.txt shows it (UPDATE_GOLDEN=1 rewrites it)", async () => {
  const file = fileURLToPath(new URL("./help.golden.txt", import.meta.url));
  const text = [program, ...program.commands, ...verbs.filter(({ words }) => words.length > 1).map(({ command }) => command)].map((command) => `$ cellplane ${[...pathOf(command), "--help"].join(" ")}\n${command.helpInformation()}`).join("\n");
  if (process.env["UPDATE_GOLDEN"]) writeFileSync(file, text);
  expect(readFileSync(file, "utf8")).toBe(text);
});
