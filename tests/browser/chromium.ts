import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium, type Browser } from "playwright-core";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * A real Chromium that needs no package of the operating system. `CELLPLANE_CHROMIUM` names another executable; otherwise the one of
 * `@sparticuz/chromium` is unpacked once, with the shared libraries it brings along.
 */
export async function launchChromium(): Promise<Browser> {
  // Rendering differs between machines unless the sandbox, the GPU and the network in the background are out of the picture.
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
  const own = process.env["CELLPLANE_CHROMIUM"];
  if (own) return chromium.launch({ executablePath: own, args });
  const folder = await unpacked();
  const env = { ...process.env, LD_LIBRARY_PATH: join(folder, "al2023", "lib"), FONTCONFIG_PATH: join(folder, "fonts") } as Record<string, string>;
  return chromium.launch({ executablePath: join(folder, "chromium"), args, env });
}

/** The folder with the executable, its libraries and its fonts. */
async function unpacked(): Promise<string> {
  const { version } = JSON.parse(await readFile(join(root, "node_modules/@sparticuz/chromium/package.json"), "utf8")) as { version: string };
  const folder = join(root, "node_modules/.cache", `chromium-${version}`);
  if (existsSync(folder)) return folder;

  // Unpacked aside and moved into place whole: two test files may start at once, and a killed one must leave nothing half done.
  const fresh = `${folder}.${process.pid}`;
  await mkdir(fresh, { recursive: true });
  // In a process of its own, since the package reads and writes the environment when it is imported.
  const script = `import("@sparticuz/chromium").then((package_) => package_.default.executablePath())`;
  await promisify(execFile)(process.execPath, ["-e", script], { cwd: root, env: { ...process.env, TMPDIR: fresh, AWS_EXECUTION_ENV: "AWS_Lambda_nodejs20.x" } });
  // Its own list of font folders is that of a cloud function.
  await writeFile(
    join(fresh, "fonts", "fonts.conf"),
    `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>${folder}/cache</cachedir>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family><family>Liberation Mono</family></prefer></alias>
  <match target="pattern"><edit name="family" mode="append"><string>Open Sans</string></edit></match>
</fontconfig>
`,
  );
  await rename(fresh, folder).catch(async (error: unknown) => {
    await rm(fresh, { recursive: true });
    if (!existsSync(folder)) throw error;
  });
  return folder;
}
