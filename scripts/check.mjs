// Everything that can be told without running the code: types, purity, layers, lint, dead code.
import { spawnSync } from "node:child_process";
import { ready, root } from "./ready.mjs";

ready();
const tsc = "node_modules/@typescript/native/bin/tsc";
const checks = [
  ["types", [tsc, "-p", "tsconfig.json"]],
  ["types of the console", [tsc, "-p", "packages/console/tsconfig.json", "--noEmit"]],
  ["purity of models, machines and plans", [tsc, "-p", "tsconfig.pure.json"]],
  ["who imports whom", ["node_modules/dependency-cruiser/bin/dependency-cruise.mjs", "--config", ".dependency-cruiser.cjs", "packages", "examples", "bench"]],
  ["lint", ["node_modules/oxlint/bin/oxlint", "--deny-warnings"]],
  ["dead code", ["node_modules/knip/bin/knip.js"]],
];

let failed = 0;
for (const [what, args] of checks) {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" });
  console.log(`${status === 0 ? "ok    " : "FAILED"} ${what}`);
  if (status !== 0) failed++;
}
process.exit(failed === 0 ? 0 : 1);
