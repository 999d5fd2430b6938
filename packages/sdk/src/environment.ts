import { randomUUID } from "node:crypto";
import type { GuardOptions } from "./admission.ts";
import { cellConfig, type ConfigOptions } from "./config.ts";
import { createGuard, type Guard } from "./guard.ts";

type Environment = Record<string, string | undefined>;

/** What a driver tells the services of a cell. */
export interface CellEnvironment {
  /** CELLPLANE_CELL */
  cell: string;
  /** CELLPLANE_REGION */
  region: string;
  /** CELLPLANE_STAMP_SECRET: one, or several separated by commas while one replaces another */
  stampSecrets: string[];
  /** CELLPLANE_CONFIG_FILE; undefined when the cell has no configuration */
  configFile: string | undefined;
  /** CELLPLANE_UNSTAMPED: "allow" to run on a developer's machine without a router */
  unstamped: "refuse" | "allow";
}

/** @throws Error that names the variable missing and how to run without a cell */
export function cellEnvironment(env: Environment = process.env): CellEnvironment {
  const unstamped = env["CELLPLANE_UNSTAMPED"] === "allow" ? "allow" : "refuse";
  const required = (name: string, alone: string): string => {
    const value = env[name] ?? (unstamped === "allow" ? alone : "");
    if (value === "") throw new Error(`${name} is not set: the cell's driver sets it; to run without a cell set CELLPLANE_UNSTAMPED=allow`);
    return value;
  };
  return {
    cell: required("CELLPLANE_CELL", "local"),
    region: env["CELLPLANE_REGION"] ?? "",
    stampSecrets: required("CELLPLANE_STAMP_SECRET", randomUUID()).split(","),
    configFile: env["CELLPLANE_CONFIG_FILE"],
    unstamped,
  };
}

/** The guard of the cell this process runs in, by its environment. @throws as `cellEnvironment` */
export function guardFromEnvironment(options: Partial<GuardOptions> = {}, env?: Environment): Guard {
  const { cell, stampSecrets, unstamped } = cellEnvironment(env);
  return createGuard({ cell, secret: stampSecrets, unstamped, ...options });
}

/** The configuration of the cell this process runs in, by its environment, over the defaults given. */
export const configFromEnvironment = <C extends object>(defaults: C, options: Omit<ConfigOptions, "file"> = {}, env: Environment = process.env): (() => C) =>
  cellConfig(defaults, { ...options, file: env["CELLPLANE_CONFIG_FILE"] });
