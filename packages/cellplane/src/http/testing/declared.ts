import { readdirSync, existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Endpoint } from "../contract.ts";

const src = fileURLToPath(new URL("../../", import.meta.url));

const isEndpoint = (value: unknown): value is Endpoint => typeof value === "object" && value !== null && ["id", "method", "path", "role", "returns"].every((field) => field in value);

/** Every endpoint that any noun's api.ts declares: a new one is in by being exported. */
export async function declaredEndpoints(): Promise<Endpoint[]> {
  const nouns = readdirSync(src).filter((noun) => existsSync(`${src}${noun}/api.ts`));
  const modules = await Promise.all(nouns.map((noun) => import(`${src}${noun}/api.ts`) as Promise<Record<string, unknown>>));
  return modules.flatMap((module) => Object.values(module).filter(isEndpoint));
}
