// Makes a fresh clone ready to run: the right Node, the locked dependencies, a build of what the sources say now.
// Uses nothing but Node, and does nothing when nothing is missing.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));
const cache = join(root, "node_modules/.cache/cellplane");

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  console.error(`cellplane: Node ${process.versions.node} is too old; this needs Node 20.19 or newer.`);
  process.exit(3);
}

/** Runs `work` unless the stamp says that it was done for the same digest. */
function once(name, digest, work) {
  const stamp = join(cache, name);
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  work();
  mkdirSync(cache, { recursive: true });
  writeFileSync(stamp, digest);
}

function install() {
  const digest = createHash("sha256").update(readFileSync(join(root, "package-lock.json"))).update(process.version).digest("hex");
  once("installed", digest, () => {
    console.error("cellplane: installing dependencies (once) …");
    const npm = process.env.npm_execpath ? [process.execPath, process.env.npm_execpath] : ["npm"];
    const { status } = spawnSync(npm[0], [...npm.slice(1), "ci", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: root, stdio: ["ignore", 2, 2] });
    if (status === 0) return;
    console.error("cellplane: `npm ci` failed; its message is above. Nothing was started.");
    process.exit(1);
  });
}

function* sources(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.name === "node_modules" || entry.name === "dist" || entry.name.startsWith(".")) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* sources(path);
    else yield path;
  }
}

function build() {
  const hash = createHash("sha256");
  for (const folder of ["packages", "examples", "bench", "scripts"])
    for (const path of sources(join(root, folder))) {
      const { mtimeMs, size } = statSync(path);
      hash.update(`${path} ${mtimeMs} ${size}\n`);
    }
  if (!existsSync(join(root, "packages/cellplane/dist"))) rmSync(join(cache, "built"), { force: true });
  once("built", hash.digest("hex"), () => {
    console.error("cellplane: building …");
    const { status } = spawnSync(process.execPath, [join(root, "scripts/build.mjs")], { cwd: root, stdio: ["ignore", 2, 2] });
    if (status !== 0) process.exit(1);
  });
}

export function ready() {
  checkNode();
  install();
  build();
}
