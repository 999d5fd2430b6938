import { mkdir, readFile } from "node:fs/promises";
import { delimiter, dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { fail } from "../base/errors.ts";
import { startKeeper } from "../drivers/keeper/keeper.ts";
import type { Keeper, NewService } from "../drivers/keeper/model.ts";
import { findPostgres } from "../drivers/postgres/binaries.ts";
import { type Address, formatAddress, httpUrl, keepAddresses, keptAddresses, probeAddress } from "./address.ts";
import { controlPostgres, keepControlPostgres } from "./database.ts";
import { keepStampSecret, type StateLayout, stateLayout } from "./state.ts";

export interface PlatformOptions {
  stateDirectory: string;
  /** Where customers' requests are taken, the API is served and the router tells of itself; port 0 for any free one. */
  listen: Address;
  apiListen: Address;
  adminListen: Address;
  /** Another PostgreSQL for the control plane; null: its own. */
  databaseUrl: string | null;
  pgBin: string | null;
  /** More processes to keep beside the fleet: name → shell words, `{router}`, `{api}`, `{state}` filled in. */
  also: Record<string, string>;
}

/** Where everything is. */
export interface RunningPlatform {
  layout: StateLayout;
  routerUrl: string;
  apiUrl: string;
  adminUrl: string;
  /** The admin's token is in the context file of the state directory, so that commands beside it find the way. */
  adminToken: string;
  /** Starts what was asked for in `also`; once there is a fleet to talk to. */
  startOthers(): Promise<void>;
  /** Ends all processes, outermost first. */
  stop(): Promise<void>;
  /** Lets go of all processes and leaves them running. */
  release(): Promise<void>;
}

const program = fileURLToPath(new URL("../../bin/cellplane.mjs", import.meta.url));
const readyTimeoutMs = 60_000;

/**
 * Brings up the control plane's database, the control plane and the router as processes of this machine and keeps them
 * running; what still runs from a former time is adopted.
 *
 * @param log one line for people
 * @throws CellplaneError state_dir_in_use, port_in_use, postgres_failed, service_failed
 */
export async function startPlatform(options: PlatformOptions, log: (line: string) => void): Promise<RunningPlatform> {
  const layout = stateLayout(options.stateDirectory);
  await mkdir(layout.directory, { recursive: true, mode: 0o711 });
  const keeper = await startKeeper(layout.directory);
  try {
    const addresses = await chooseAddresses(keeper, layout, options);
    const databaseUrl = options.databaseUrl ?? (await keepControlPostgres(keeper, layout, await findPostgres(options.pgBin ?? undefined)));
    const stampSecret = await keepStampSecret(layout);
    const urls = { routerUrl: httpUrl(addresses.router), apiUrl: httpUrl(addresses.api), adminUrl: httpUrl(addresses.admin) };

    const service = (name: string, tier: NewService["tier"], args: string[], rest: Partial<NewService>): NewService => ({
      name, tier, command: [process.execPath, program, ...args], directory: layout.directory, logFile: layout.log(name), ...rest,
    });
    const controlPlane = service("control-plane", "control", ["server", "--listen", formatAddress(addresses.api), "--state-dir", layout.directory], {
      env: { DATABASE_URL: databaseUrl, CELLPLANE_STAMP_SECRET: stampSecret, CELLPLANE_LOG_LEVEL: "info", ...(options.pgBin ? { CELLPLANE_PG_BIN: resolve(options.pgBin) } : {}) },
      after: options.databaseUrl ? [] : [controlPostgres],
      ready: { kind: "http", url: `${urls.apiUrl}/ready` },
      readyIntervalMs: 50,
    });
    const router = (token: string): NewService =>
      service("router", "router", ["router", "--server", urls.apiUrl, "--listen", formatAddress(addresses.router), "--admin-listen", formatAddress(addresses.admin), "--state-dir", layout.router], {
        env: { CELLPLANE_TOKEN: token, CELLPLANE_STAMP_SECRET: stampSecret },
        ready: { kind: "http", url: `${urls.adminUrl}/ready` },
        readyIntervalMs: 50,
      });

    // A router that has been here before serves from its disk and waits for nobody.
    const known = await tokensIn(layout);
    if (known?.["router"]) await keeper.put(router(known["router"]));
    await keeper.put(controlPlane);
    log("starting the control plane …");
    await waitFor(keeper, layout, "control-plane");
    const tokens = await tokensIn(layout);
    const [routerToken, adminToken] = [tokens?.["router"], tokens?.["admin"]];
    if (!routerToken || !adminToken) throw fail("tokens_elsewhere", { file: layout.tokens });
    await keeper.put(router(routerToken));
    log("starting the router …");
    await waitFor(keeper, layout, "router");

    return {
      layout, ...urls, adminToken,
      async startOthers() {
        for (const [name, words] of Object.entries(options.also)) {
          const filled = words.replaceAll("{router}", urls.routerUrl).replaceAll("{api}", urls.apiUrl).replaceAll("{state}", layout.directory);
          await keeper.put({
            name, tier: "traffic", command: filled.split(/\s+/).filter(Boolean), directory: process.cwd(), logFile: layout.log(name),
            env: { CELLPLANE_SERVER: urls.apiUrl, CELLPLANE_TOKEN: adminToken, PATH: [dirname(process.execPath), process.env["PATH"]].join(delimiter) },
          });
        }
      },
      stop: async () => {
        await keeper.stopAll();
        await keeper.close();
      },
      release: () => keeper.close(),
    };
  } catch (error) {
    await keeper.stopAll();
    await keeper.close();
    throw error;
  }
}

/**
 * The addresses of the last start where port 0 leaves the choice. Checked to be free, but for those that our own services
 * have or are just taking: the keeper started them when it started.
 */
async function chooseAddresses(keeper: Keeper, layout: StateLayout, options: PlatformOptions): Promise<Record<"router" | "api" | "admin", Address>> {
  const kept = await keptAddresses(layout.addresses);
  const known = new Set((await keeper.status()).map((status) => status.name));
  const choose = async (name: string, service: string, wanted: Address, purpose: string, flag: string): Promise<Address> => {
    const former = kept[name];
    const address = wanted.port === 0 && former ? former : wanted;
    const ours = known.has(service) && former?.port === address.port;
    return ours ? address : probeAddress(address, purpose, flag);
  };
  const chosen = {
    router: await choose("router", "router", options.listen, "router", "--listen"),
    api: await choose("api", "control-plane", options.apiListen, "API", "--api-listen"),
    admin: await choose("admin", "router", options.adminListen, "router's metrics", "--admin-listen"),
  };
  await keepAddresses(layout.addresses, { ...kept, ...chosen });
  return chosen;
}

async function tokensIn(layout: StateLayout): Promise<Record<string, string> | null> {
  const text = await readFile(layout.tokens, "utf8").catch(() => null);
  return text === null ? null : (JSON.parse(text) as Record<string, string>);
}

async function waitFor(keeper: Keeper, layout: StateLayout, name: string): Promise<void> {
  const status = await keeper.waitReady(name, readyTimeoutMs);
  if (status.state === "ready") return;
  const lines = (await readFile(layout.log(name), "utf8").catch(() => "")).trim().split("\n");
  throw fail("service_failed", { service: name, why: lines.at(-1) || status.problem, log: layout.log(name) });
}
