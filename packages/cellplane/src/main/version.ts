import { readFileSync } from "node:fs";

/** Of the package this was built as; names the build to people and to the workflow runner. */
export const buildVersion: string = (JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }).version;
