import { type Entry, runCli } from "../cli/program.ts";
import { buildVersion } from "./version.ts";

const fleet = async () => (await import("../fleet/cli.ts")).registerFleet;

/**
 * What stands behind `cellplane`, in the order of its help. Each entry's code is loaded when it is called, so that the
 * help costs next to nothing; the summary of a verb by itself (`plan`) is the one it registers with.
 */
export const entries: Entry[] = [
  { name: "up", summary: "Run a whole fleet on this machine, and stay until Ctrl-C", load: async () => (await import("./verbs.ts")).registerUp },
  { name: "down", summary: "Stop every process of a fleet on this machine; its data are kept", load: async () => (await import("./verbs.ts")).registerDown },
  { name: "server", summary: "Run one control plane instance", load: async () => (await import("./verbs.ts")).registerServer },
  { name: "router", summary: "Run one router", load: async () => (await import("./verbs.ts")).registerRouter },
  { name: "status", summary: "The fleet at a glance: cells, routers, operations under way, what needs attention", load: async () => (await import("./status.ts")).registerStatus },
  { name: "doctor", summary: "Look for what is wrong on this machine and with the fleet", load: async () => (await import("./doctor.ts")).registerDoctor },
  { name: "plan", summary: "Show what applying the fleet file would do", load: fleet },
  { name: "diff", summary: "Show every field in which the fleet differs from the fleet file", load: fleet },
  { name: "apply", summary: "Bring the fleet to what the fleet file says", load: fleet },
  { name: "fleet", summary: "The fleet file as it was applied last", load: fleet },
  { name: "cell", summary: "Cells: make, update, cordon, drain, retire, destroy", load: async () => (await import("../cell/cli.ts")).registerCell },
  { name: "tenant", summary: "Tenants: create, import, list, suspend, delete; their keys", load: async () => (await import("../tenant/cli.ts")).registerTenant },
  { name: "placement", summary: "Placement: which cell would take a tenant, and why", load: async () => (await import("../placement/cli.ts")).registerPlacement },
  { name: "claim", summary: "Claims: values that one tenant of the whole fleet may hold", load: async () => (await import("../claim/cli.ts")).registerClaim },
  { name: "route", summary: "Routes: where a request goes, and which routers know", load: async () => (await import("../routing/cli.ts")).registerRoute },
  { name: "operation", summary: "Operations: long work on the server; watch, pause, resume, cancel, retry", load: async () => (await import("../workflow/cli.ts")).registerOperation },
  { name: "event", summary: "Events: what happened, as a list or as it happens", load: async () => (await import("../observe/cli.ts")).registerEvent },
  { name: "audit", summary: "The audit log: who asked for what; prove that nobody changed it", load: async () => (await import("../audit/cli.ts")).registerAudit },
  { name: "token", summary: "Tokens: who may call, as viewer, operator, admin or router", load: async () => (await import("../token/cli.ts")).registerToken },
];

/** @returns the exit code */
export function main(argv: string[]): Promise<number> {
  // A reader that has seen enough (`| head`) closes the pipe: that is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  return runCli(argv, entries, buildVersion);
}
