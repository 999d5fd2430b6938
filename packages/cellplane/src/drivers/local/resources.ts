import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import { z } from "zod";
import { fail, type Issue } from "../../base/errors.ts";
import type { CellSpec, ServiceSpec } from "../../cell/model.ts";
import { type NewService, Service } from "../keeper/model.ts";
import { accessText, type Cluster } from "../postgres/cluster.ts";
import { postgresService } from "../postgres/service.ts";
import { fill, type Meaning, mentions } from "./fill.ts";

/** What makes a cell on this machine: all that is compared to find drift, all that is written to make it so. */
export const CellResources = z.object({
  /** Text of `config.json`. */
  config: z.string(),
  /** The cell's PostgreSQL; null when it has none. */
  database: z.object({ port: z.int(), settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])), access: z.string() }).nullable(),
  /** In the order of the blueprint, the database first. */
  services: z.array(Service),
  /** host:port for the routers; null when no service has a port named http. */
  http: z.string().nullable(),
});
export type CellResources = z.infer<typeof CellResources>;

/** What has to be known of the machine to tell what a spec comes to. */
export interface Surroundings {
  directory: string;
  /** The port of a service by name, as in ("app", "http"). */
  port: (service: string, name: string) => number;
  database: { cluster: Cluster; url: string } | null;
  /** Told to every service, under what the blueprint says. */
  environment: Record<string, string>;
  /** For `${env.X}`. */
  env: NodeJS.ProcessEnv;
}

export const servicePrefix = (cell: string): string => `cell-${cell}.`;
export const serviceName = (cell: string, service: string): string => `${servicePrefix(cell)}${service}`;
/** No dot: so no cell's service can have this name. */
export const databaseName = (cell: string): string => `database-${cell}`;
export const configFile = (directory: string): string => join(directory, "config.json");

/** @throws CellplaneError invalid_input for what this driver cannot do, or a placeholder that stands for nothing */
export function resourcesFor(spec: CellSpec, around: Surroundings): CellResources {
  const config = `${JSON.stringify(spec.config, null, 2)}\n`;
  const issues: Issue[] = [];
  const services = Object.entries(spec.services).map(([name, service]) => appService(spec, name, service, around, config, issues));
  if (issues.length > 0) throw fail("invalid_input", { issues });
  const front = Object.keys(spec.services).find((name) => spec.services[name]?.ports["http"] !== undefined);
  const { database } = around;
  return {
    config,
    database: database && { port: database.cluster.port, settings: database.cluster.settings, access: accessText },
    services: [...(database ? [postgresService(database.cluster, databaseName(spec.cell))] : []), ...services].map((service) => Service.parse(service)),
    http: front === undefined ? null : `127.0.0.1:${around.port(front, "http")}`,
  };
}

function appService(spec: CellSpec, name: string, service: ServiceSpec, around: Surroundings, config: string, issues: Issue[]): NewService {
  const path = `services.${name}`;
  const directory = resolve(spec.baseDirectory, service.directory ?? ".");
  const meaning: Meaning = (placeholder) => {
    if (placeholder === "cell.name") return spec.cell;
    if (placeholder === "cell.region") return spec.region;
    if (placeholder === "config.file") return configFile(around.directory);
    if (placeholder === "database.url") return around.database?.url;
    const [, kind, key = ""] = /^(port|env)\.(.+)$/.exec(placeholder) ?? [];
    if (kind === "env") return around.env[key];
    return kind === "port" && service.ports[key] !== undefined ? String(around.port(name, key)) : undefined;
  };
  if (!service.command) issues.push({ path: `${path}.command`, message: "the local driver runs programs; an image needs another driver" });
  if (service.readiness && service.ports["http"] === undefined) issues.push({ path: `${path}.readiness`, message: "it is asked over HTTP; the service needs a port named http" });
  const [program = "", ...args] = (service.command ?? []).map((text, i) => fill(text, meaning, `${path}.command.${i}`, issues));
  const env = Object.fromEntries(Object.entries(service.env).map(([key, text]) => [key, fill(text, meaning, `${path}.env.${key}`, issues)]));
  // Who names the file reads it at its start; who takes CELLPLANE_CONFIG_FILE looks at it again and again, as the SDK does.
  const readsConfigOnce = mentions([...(service.command ?? []), ...Object.values(service.env)], "config.file");
  const port = service.ports["http"] === undefined ? null : around.port(name, "http");
  return {
    name: serviceName(spec.cell, name),
    tier: "app",
    command: [program.includes("/") ? resolve(directory, program) : program, ...args],
    env: {
      CELLPLANE_CELL: spec.cell,
      CELLPLANE_REGION: spec.region,
      CELLPLANE_VERSION: spec.version,
      CELLPLANE_CONFIG_FILE: configFile(around.directory),
      ...around.environment,
      ...env,
    },
    directory,
    revision: readsConfigOnce ? createHash("sha256").update(config).digest("hex").slice(0, 16) : "",
    after: around.database ? [databaseName(spec.cell)] : [],
    ready: port === null ? null : service.readiness ? { kind: "http", url: `http://127.0.0.1:${port}${service.readiness.path}` } : { kind: "tcp", host: "127.0.0.1", port },
    readyIntervalMs: service.readiness?.intervalMs ?? 100,
    logFile: join(around.directory, "logs", `${name}.log`),
  };
}

/** How long a fresh service may take to be ready. */
export const readyTimeoutMs = (spec: CellSpec, service: string): number => spec.services[service]?.readiness?.timeoutMs ?? 15_000;
