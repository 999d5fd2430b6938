// `npm test`: everything a change must pass. Arguments name the test files to run; without any, the static checks run too.
import { spawnSync } from "node:child_process";
import { ready, root } from "./ready.mjs";

ready();
const files = process.argv.slice(2);
const run = (args) => spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" }).status === 0;
const checked = files.length > 0 || run(["scripts/check.mjs"]);
const golden = process.env.UPDATE_GOLDEN ? ["--update"] : [];
const tested = run(["node_modules/vitest/vitest.mjs", "run", ...golden, ...files]);
process.exit(checked && tested ? 0 : 1);
