import { randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { writeWhole } from "../drivers/files.ts";

/** Everything Cellplane keeps on a machine lies in one folder; this says where in it. */
export interface StateLayout {
  directory: string;
  /** Secrets by role, mode 0600; written by the control plane's first start. */
  tokens: string;
  /** Key of the routers' stamps, mode 0600. */
  stampSecret: string;
  /** The control plane's own PostgreSQL. */
  controlPostgres: string;
  /** The router's copy of the table. */
  router: string;
  /** Which addresses were chosen at the first start, so that the next one has them again. */
  addresses: string;
  log: (service: string) => string;
}

export function stateLayout(directory: string): StateLayout {
  const root = resolve(directory);
  return {
    directory: root,
    tokens: join(root, "tokens.json"),
    stampSecret: join(root, "stamp-secret"),
    controlPostgres: join(root, "control-postgres"),
    router: join(root, "router"),
    addresses: join(root, "addresses.json"),
    log: (service) => join(root, "logs", `${service}.log`),
  };
}

/** The fleet's stamp secret: made once, kept in the state directory. */
export async function keepStampSecret(layout: StateLayout): Promise<string> {
  const kept = await readFile(layout.stampSecret, "utf8").catch(() => "");
  if (kept.trim() !== "") return kept.trim();
  await mkdir(layout.directory, { recursive: true, mode: 0o711 });
  await writeWhole(layout.stampSecret, `${randomBytes(32).toString("hex")}\n`, { durable: true });
  return keepStampSecret(layout);
}
