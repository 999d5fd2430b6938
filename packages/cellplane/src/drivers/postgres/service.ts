import { createHash } from "node:crypto";
import type { NewService } from "../keeper/model.ts";
import type { Cluster } from "./cluster.ts";
import { settingsText } from "./settings.ts";

/** The cluster's server as a service for the keeper; other settings restart it. */
export const postgresService = (cluster: Cluster, name: string): NewService => ({
  name,
  tier: "database",
  command: cluster.command,
  env: { LC_ALL: "C" },
  directory: "/",
  account: cluster.account && { uid: cluster.account.uid, gid: cluster.account.gid },
  revision: createHash("sha256").update(settingsText(cluster.settings)).digest("hex").slice(0, 16),
  ready: { kind: "postgres", dataDirectory: cluster.dataDirectory },
  readyIntervalMs: 25,
  // The fast shutdown: disconnects everybody and writes everything down.
  stopSignal: "SIGINT",
  stopTimeoutMs: 20_000,
  logFile: cluster.logFile,
});
