// Builds every package into its `dist`; fast enough to run before each start.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = (args, cwd = root) => {
  if (spawnSync(process.execPath, args, { cwd, stdio: "inherit" }).status === 0) return;
  console.error("cellplane: the build failed; its message is above.");
  process.exit(1);
};

const tsc = `${root}node_modules/@typescript/native/bin/tsc`;
for (const project of ["packages/sdk", "packages/cellplane", "examples/shop"]) run([tsc, "-p", `${root}${project}`]);
cpSync(`${root}packages/cellplane/src/store/schema`, `${root}packages/cellplane/dist/store/schema`, { recursive: true });
if (existsSync(`${root}packages/console/vite.config.ts`)) run([`${root}node_modules/vite/bin/vite.js`, "build", "--logLevel", "warn"], `${root}packages/console`);
