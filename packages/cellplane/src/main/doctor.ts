import { stat, statfs } from "node:fs/promises";
import { resolve } from "node:path";
import { verifyAudit } from "../audit/api.ts";
import { CellplaneError } from "../base/errors.ts";
import { formatBytes } from "../base/units.ts";
import { type Cli, flag, type Invocation } from "../cli/command.ts";
import { defaultStateDir } from "../cli/context.ts";
import { findPostgres } from "../drivers/postgres/binaries.ts";
import { whoAmI } from "../token/api.ts";
import { stateLayout } from "./state.ts";
import { fleetStatus } from "./status.ts";

export interface Finding {
  check: string;
  /** warn: works now, and will not for long, or not for everyone. */
  verdict: "ok" | "warn" | "fail" | "skipped";
  detail: string;
  /** What to do; "" when all is well. */
  fix: string;
}

type Calls = Pick<Invocation<unknown, unknown>, "call" | "pages">;

const diskFreeBytesMin = 2 * 2 ** 30;

const ok = (check: string, detail: string): Finding => ({ check, verdict: "ok", detail, fix: "" });

/** Everything that can be told from here, of this machine first and then of the fleet. Looks only, and changes nothing. */
export async function* examine(at: Calls, stateDirectory: string): AsyncGenerator<Finding> {
  const layout = stateLayout(stateDirectory);
  yield nodeVersion();
  yield await postgresPrograms();
  yield await diskSpace(layout.directory);
  for (const file of [layout.tokens, layout.stampSecret]) yield await secretFile(file);

  const answered = await expected(() => at.call(whoAmI, {}));
  if (answered instanceof CellplaneError) {
    yield { check: "control plane", verdict: "fail", detail: answered.message, fix: answered.kind.fix };
    return;
  }
  yield ok("control plane", `answers; you are ${answered.name}, ${answered.role}`);

  const status = await fleetStatus(at);
  for (const line of status.attention) yield { check: "fleet", verdict: "fail", detail: line, fix: "See `cellplane cell describe`, `cellplane operation describe` or `cellplane route status`." };
  if (status.attention.length === 0) yield ok("fleet", `${status.cells.length} cells, ${status.routers.length} routers, nothing needs attention`);
  if (status.cells.length > 0 && status.routers.length === 0) yield { check: "routers", verdict: "warn", detail: "no router was heard of within the last hour", fix: "Start one with `cellplane router`; customers' requests go through it." };
  yield regionLoss(status.cells);

  const audit = await expected(() => at.call(verifyAudit, { query: {} }));
  if (audit instanceof CellplaneError) yield { check: "audit log", verdict: "skipped", detail: audit.message, fix: audit.kind.fix };
  else if (audit.ok) yield ok("audit log", `${audit.verified} entries, unbroken`);
  else yield { check: "audit log", verdict: "fail", detail: `entry ${audit.firstBad?.seq ?? "?"} is not what was written: ${audit.firstBad?.why ?? ""}`, fix: "Compare with a backup of the control plane's database; `cellplane audit verify` shows more." };
}

function nodeVersion(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return ok("Node", process.versions.node);
  return { check: "Node", verdict: "fail", detail: `${process.versions.node} is too old`, fix: "Install Node 20.19 or newer." };
}

async function postgresPrograms(): Promise<Finding> {
  const found = await expected(() => findPostgres(process.env["CELLPLANE_PG_BIN"]));
  if (found instanceof CellplaneError) return { check: "PostgreSQL programs", verdict: "warn", detail: found.message, fix: found.kind.fix };
  return ok("PostgreSQL programs", `version ${found.majorVersion}, run as ${found.account?.name ?? "you"}`);
}

async function diskSpace(directory: string): Promise<Finding> {
  const disk = await statfs(directory).catch(() => null);
  if (!disk) return { check: "disk", verdict: "skipped", detail: `there is no ${directory}`, fix: "" };
  const freeBytes = disk.bavail * disk.bsize;
  if (freeBytes >= diskFreeBytesMin) return ok("disk", `${formatBytes(freeBytes)} free for ${directory}`);
  return { check: "disk", verdict: "warn", detail: `only ${formatBytes(freeBytes)} free for ${directory}`, fix: "Free space: cells stop writing when the disk is full." };
}

async function secretFile(file: string): Promise<Finding> {
  const found = await stat(file).catch(() => null);
  if (!found) return { check: "secrets", verdict: "skipped", detail: `there is no ${file}`, fix: "" };
  if ((found.mode & 0o077) === 0) return ok("secrets", `${file} is readable by its owner only`);
  return { check: "secrets", verdict: "fail", detail: `others may read ${file}`, fix: `chmod 600 ${file}, and replace what it holds if others use this machine.` };
}

/** Could each region take up its fullest cell's tenants, by count, if that cell were lost? Known before the outage. */
function regionLoss(cells: Awaited<ReturnType<typeof fleetStatus>>["cells"]): Finding {
  const tight: string[] = [];
  for (const region of new Set(cells.map((cell) => cell.region))) {
    const mine = cells.filter((cell) => cell.region === region && cell.state === "active" && cell.fullness !== null);
    const fullest = Math.max(0, ...mine.map((cell) => cell.fullness ?? 0));
    const spare = mine.reduce((sum, cell) => sum + (1 - (cell.fullness ?? 0)), 0) - (1 - fullest);
    if (mine.length > 0 && spare < fullest) tight.push(region);
  }
  if (tight.length === 0) return ok("loss of a cell", "every region could take up its fullest cell");
  return { check: "loss of a cell", verdict: "warn", detail: `the other cells of ${tight.join(", ")} could not take up the fullest one`, fix: "Add a cell there, or raise capacities that were tested." };
}

async function expected<T>(call: () => Promise<T>): Promise<T | CellplaneError> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof CellplaneError) return error;
    throw error;
  }
}

export function registerDoctor(cli: Cli): void {
  cli.verb(cli.program, "doctor", {
    summary: "Look for what is wrong on this machine and with the fleet",
    help: "Exits with 1 when something is.",
    flags: { stateDir: flag.text("Folder of a fleet on this machine", { placeholder: "<dir>" }) },
    run: async function* ({ call, pages, exitWith, flags }) {
      for await (const finding of examine({ call, pages }, resolve(flags.stateDir ?? defaultStateDir(process.env)))) {
        if (finding.verdict === "fail") exitWith(1);
        yield finding;
      }
    },
    columns: { VERDICT: (finding) => finding.verdict, CHECK: (finding) => finding.check, DETAIL: (finding) => finding.detail, FIX: (finding) => finding.fix },
    nameOf: (finding) => finding.check,
  });
}
