// `npm run bench -- <name> [--quick] [--json] …`: runs one benchmark. Without a name it lists them.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readdirSync, readFileSync } from "node:fs";
import { ready, root } from "./ready.mjs";

const names = readdirSync(`${root}bench`).filter((file) => /^[a-z-]+\.ts$/.test(file)).map((file) => file.replace(".ts", ""));
const [name, ...args] = process.argv.slice(2);

if (!names.includes(name)) {
  const about = (name) => /\/\*\*\s*\*?\s*(.*)/.exec(readFileSync(`${root}bench/${name}.ts`, "utf8"))?.[1] ?? "";
  console.error(`usage: npm run bench -- <name> [--quick] [--json]\n\n${names.map((name) => `  ${name.padEnd(14)}${about(name)}`).join("\n")}`);
  process.exit(name === undefined ? 0 : 3);
}

ready();
// Failing types do not stop a bench: `npm run check` tells of them.
spawnSync(process.execPath, [`${root}node_modules/@typescript/native/bin/tsc`, "-p", `${root}bench`], { stdio: "ignore" });
const main = `${root}bench/dist/bench/${name}.js`;
if (!existsSync(main)) throw new Error(`${main} was not built`);
cpSync(`${root}packages/cellplane/src/store/schema`, `${root}bench/dist/packages/cellplane/src/store/schema`, { recursive: true });
process.exit(spawnSync(process.execPath, ["--enable-source-maps", main, ...args], { stdio: "inherit" }).status ?? 1);
