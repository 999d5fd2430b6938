import { existsSync } from "node:fs";
import { fail } from "../base/errors.ts";
import type { Terminal } from "../cli/command.ts";
import { type Entry, runCli } from "../cli/program.ts";
import { processIo } from "../cli/terminal.ts";
import { type PlatformOptions, startPlatform } from "./platform.ts";
import { buildVersion } from "./version.ts";

export interface UpOptions extends PlatformOptions {
  /** null: `cellplane.yaml` here, if there is one. */
  fleetFile: string | null;
  /** Tenants that are to exist; null: none. */
  tenantsFile: string | null;
}

/** Where everything is, for people and for scripts. */
export interface Whereabouts {
  router: string;
  console: string;
  api: string;
  stateDirectory: string;
}

const defaultFleetFile = "cellplane.yaml";

const entries: Entry[] = [
  { name: "apply", summary: "", load: async () => (await import("../fleet/cli.ts")).registerFleet },
  { name: "tenant", summary: "", load: async () => (await import("../tenant/cli.ts")).registerTenant },
];

/**
 * Brings up the platform and what the fleet file and the tenants' file say, by the very commands a person would use.
 *
 * @param ending settles when the person has seen enough
 * @returns null when that was before everything was up; then all is stopped
 */
export async function up(options: UpOptions, { terminal, ending }: { terminal: Terminal; ending: Promise<void> }): Promise<{ where: Whereabouts; stop: () => Promise<void> } | null> {
  let ended = false;
  void ending.then(() => (ended = true));
  const platform = await startPlatform(options, (line) => terminal.note(line));

  const command = async (...words: string[]): Promise<void> => {
    if (ended) return;
    const io = { ...processIo(), env: { ...process.env, CELLPLANE_SERVER: platform.apiUrl, CELLPLANE_TOKEN: platform.adminToken } };
    const code = await runCli(words, entries, buildVersion, { ...io, stdout: { ...io.stdout, write: () => true } as typeof io.stdout });
    if (code !== 0 && !ended) throw fail("start_incomplete", { command: words.join(" ") });
  };

  try {
    const fleetFile = options.fleetFile ?? (existsSync(defaultFleetFile) ? defaultFleetFile : null);
    if (fleetFile) await command("apply", "-f", fleetFile, "--wait", "--yes");
    if (options.tenantsFile) await command("tenant", "import", "-f", options.tenantsFile, "--yes");
    if (!ended) await platform.startOthers();
  } catch (error) {
    await platform.stop();
    throw error;
  }
  if (ended) {
    terminal.note("stopping …");
    await platform.stop();
    return null;
  }

  terminal.note(`
  router    ${platform.routerUrl}    customers' requests
  console   ${platform.apiUrl}/console/#token=${platform.adminToken}
  API       ${platform.apiUrl}    (openapi.json, metrics)
  state     ${platform.layout.directory}    (logs/ holds what the processes say)
  Ctrl-C stops everything and keeps the data.
`);
  return {
    where: { router: platform.routerUrl, console: `${platform.apiUrl}/console/`, api: platform.apiUrl, stateDirectory: platform.layout.directory },
    stop: platform.stop,
  };
}
