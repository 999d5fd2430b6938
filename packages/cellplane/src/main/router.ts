import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { fail } from "../base/errors.ts";
import { contextFileIn, defaultStateDir, readContext } from "../cli/context.ts";
import { type RunningRouter, startRouter } from "../router/serve.ts";
import { parseAddress } from "./address.ts";
import { stateLayout } from "./state.ts";

export interface RouterFlags {
  listen: string;
  adminListen: string;
  server: string | undefined;
  name: string | undefined;
  token: string | undefined;
  tokenFile: string | undefined;
  stampSecret: string | undefined;
  stampSecretFile: string | undefined;
  stateDir: string | undefined;
}

/** One router, told by flags; what it needs and is not told it takes from a fleet of this machine. @throws CellplaneError bad_usage, port_in_use */
export async function runRouter(flags: RouterFlags): Promise<RunningRouter> {
  const fleet = stateLayout(defaultStateDir(process.env));
  const listen = parseAddress(flags.listen, "--listen");
  const secret = async (given: string | undefined, file: string | undefined): Promise<string | undefined> => given ?? (file === undefined ? undefined : (await readFile(file, "utf8")).trim());
  const token = (await secret(flags.token, flags.tokenFile)) ?? (await tokenOf(fleet.tokens));
  const stampSecret = (await secret(flags.stampSecret, flags.stampSecretFile)) ?? (await readFile(fleet.stampSecret, "utf8").then((text) => text.trim(), () => undefined));
  if (!stampSecret) throw fail("bad_usage", { why: "it needs the fleet's stamp secret: CELLPLANE_STAMP_SECRET or --stamp-secret-file", command: "cellplane router" });
  const server = flags.server ?? readContext(contextFileIn(fleet.directory))?.server ?? "";
  return startRouter({
    name: flags.name ?? `${hostname()}:${listen.port}`,
    listen,
    admin: parseAddress(flags.adminListen, "--admin-listen"),
    controlPlane: server.split(",").filter(Boolean),
    token: token ?? "",
    stampSecret,
    stateDirectory: resolve(flags.stateDir ?? join(fleet.directory, "router")),
    log: (line) => void process.stderr.write(`${line}\n`),
  });
}

const tokenOf = (file: string): Promise<string | undefined> => readFile(file, "utf8").then((text) => (JSON.parse(text) as { router?: string }).router, () => undefined);
