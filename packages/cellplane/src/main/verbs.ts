import { resolve } from "node:path";
import { type Cli, type Flag, flag } from "../cli/command.ts";
import { defaultStateDir } from "../cli/context.ts";

/**
 * The verbs that start processes. What they run is loaded when they run, since this file is also read for its help.
 */

const listening = {
  stateDir: flag.text("Folder for everything this keeps on the machine", { placeholder: "<dir>" }),
  pgBin: flag.text("Folder with the programs of another PostgreSQL, 15 or newer", { placeholder: "<dir>" }),
};
/** An address to listen on. */
const at = (summary: string, initial: string): Flag<string> => ({ ...flag.text(summary, { placeholder: "<host:port>" }), initial, parse: (text) => text });
const stateDirOf = (given: string | undefined): string => resolve(given ?? defaultStateDir(process.env));

/** Settles at the first request to end. A second one ends the process at once; what it kept stays and is adopted by the next start. */
function untilAskedToEnd(): Promise<void> {
  return new Promise((ended) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
      process.once(signal, () => {
        process.once(signal, () => process.exit(130));
        ended();
      });
  });
}

export function registerUp(cli: Cli): void {
  cli.verb(cli.program, "up", {
    summary: "Run a whole fleet on this machine, and stay until Ctrl-C",
    help: "Starts the control plane with its own PostgreSQL (or DATABASE_URL), a router, and the cells of the fleet file.\nWhat still runs from a former time is adopted; Ctrl-C stops everything and keeps all data.",
    flags: {
      ...listening,
      file: flag.text("Fleet file to apply (default: cellplane.yaml if there is one)", { short: "f", placeholder: "<file>" }),
      listen: at("Where the router takes customers' requests; port 0 for any free one", "127.0.0.1:8080"),
      apiListen: at("Where the API and the console are served", "127.0.0.1:7070"),
      adminListen: at("Where the router's metrics are served", "127.0.0.1:8081"),
      import: flag.text("File of tenants to import once the fleet is up", { placeholder: "<file>" }),
      also: flag.pairs("One more process to keep: {router}, {api} and {state} are filled in", { placeholder: "<name=command>" }),
    },
    run: async function* ({ flags, terminal }) {
      const ending = untilAskedToEnd();
      const { up } = await import("./up.ts");
      const { parseAddress } = await import("./address.ts");
      const running = await up(
        {
          stateDirectory: stateDirOf(flags.stateDir),
          listen: parseAddress(flags.listen, "--listen"),
          apiListen: parseAddress(flags.apiListen, "--api-listen"),
          adminListen: parseAddress(flags.adminListen, "--admin-listen"),
          databaseUrl: process.env["DATABASE_URL"] || null,
          pgBin: flags.pgBin ?? null,
          fleetFile: flags.file ?? null,
          tenantsFile: flags.import ?? null,
          also: flags.also,
        },
        { terminal, ending },
      );
      if (!running) return;
      yield running.where;
      await ending;
      terminal.note("stopping …");
      await running.stop();
      terminal.note("everything is stopped; the data are kept");
    },
    columns: { ROUTER: (where) => where.router, CONSOLE: (where) => where.console, API: (where) => where.api, STATE: (where) => where.stateDirectory },
  });
}

export function registerServer(cli: Cli): void {
  cli.verb(cli.program, "server", {
    summary: "Run one control plane instance",
    help: "With DATABASE_URL on that PostgreSQL (15 or newer), beside as many other instances as you like;\nwithout it on a PostgreSQL of its own in the state directory.",
    flags: {
      ...listening,
      listen: at("Where the API and the console are served", "127.0.0.1:7070"),
      stampSecret: flag.text("Key of the routers' stamps; better as CELLPLANE_STAMP_SECRET (default: the one in the state directory)", { placeholder: "<secret>" }),
      logLevel: { ...flag.choice(["debug", "info", "warn", "error", "silent"], "How much is logged on stdout, in JSON"), initial: "info" },
    },
    run: async ({ flags }) => {
      const ending = untilAskedToEnd();
      const { runServer } = await import("./local.ts");
      const { parseAddress } = await import("./address.ts");
      const server = await runServer({
        stateDirectory: stateDirOf(flags.stateDir), listen: parseAddress(flags.listen, "--listen"), databaseUrl: process.env["DATABASE_URL"] || null,
        pgBin: flags.pgBin ?? null, stampSecret: flags.stampSecret ?? null, logLevel: flags.logLevel ?? "info",
      });
      await ending;
      await server.close();
    },
  });
}

export function registerRouter(cli: Cli): void {
  cli.verb(cli.program, "router", {
    summary: "Run one router",
    help: "Follows the control planes of --server (separate several with commas) and serves from its copy on disk without them.\nNeeds a token of the role router (CELLPLANE_TOKEN) and the fleet's stamp secret (CELLPLANE_STAMP_SECRET).",
    flags: {
      stateDir: listening.stateDir,
      listen: at("Where customers' requests are taken", "127.0.0.1:8080"),
      adminListen: at("Where metrics and readiness are served", "127.0.0.1:8081"),
      server: flag.text("URLs of the control planes", { placeholder: "<url,…>" }),
      name: flag.text("Its name in `route status` (default: host name and port)"),
      token: flag.text("Token of the role router; better as CELLPLANE_TOKEN", { placeholder: "<token>" }),
      tokenFile: flag.text("File that holds the token", { placeholder: "<file>" }),
      stampSecret: flag.text("Key of the stamps; better as CELLPLANE_STAMP_SECRET", { placeholder: "<secret>" }),
      stampSecretFile: flag.text("File that holds the key of the stamps", { placeholder: "<file>" }),
    },
    run: async ({ flags }) => {
      const ending = untilAskedToEnd();
      const { runRouter } = await import("./router.ts");
      const router = await runRouter(flags);
      await ending;
      await router.close();
    },
  });
}

export function registerDown(cli: Cli): void {
  cli.verb(cli.program, "down", {
    summary: "Stop every process of a fleet on this machine; its data are kept",
    flags: { stateDir: listening.stateDir },
    run: async ({ flags, terminal }) => {
      const { stopEverything } = await import("./down.ts");
      terminal.note((await stopEverything(stateDirOf(flags.stateDir))) ? "everything is stopped; the data are kept" : "nothing runs there");
    },
  });
}
