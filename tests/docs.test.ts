import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, startFleet, type TestFleet } from "./fleet.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Markdown files of the project, without those of others. */
async function documents(folder = root): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.name.startsWith(".") || ["node_modules", "dist"].includes(entry.name)) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...(await documents(path)));
    else if (entry.name.endsWith(".md")) found.push(path);
  }
  return found;
}

/** Command lines of the blocks below `<!-- tested: fleet -->`. */
const commandsIn = (text: string): string[] => [...text.matchAll(/<!-- tested: fleet -->\n```sh\n([\s\S]*?)```/g)].flatMap((match) => (match[1] ?? "").split("\n")).filter((line) => line && !line.startsWith("#"));

test("links between documents lead somewhere", async () => {
  for (const document of await documents()) {
    const text = await readFile(document, "utf8");
    for (const [, target = ""] of text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)) {
      expect(await stat(join(dirname(document), target)).then(() => true, () => false), `${document}: ${target}`).toBe(true);
    }
  }
});

describe("commands in the documents do what they say", async () => {
  const commands = (await Promise.all((await documents()).map(async (document) => commandsIn(await readFile(document, "utf8")).map((command) => ({ document: document.slice(root.length), command }))))).flat();
  let fleet: TestFleet;
  beforeAll(async () => {
    fleet = await startFleet({ args: ["--import", "examples/shop/tenants.ndjson"] });
  }, 120_000);
  afterAll(() => fleet.stop(), 60_000);

  test("there are some", () => expect(commands.length).toBeGreaterThan(5));

  test.each(commands)("$document: $command", async ({ command }) => {
    // As written, but for where the fleet of this test is, and in less time.
    const line = command.replaceAll(/http:\/\/(localhost|127\.0\.0\.1):8080/g, fleet.routerUrl).replaceAll("http://127.0.0.1:7070", fleet.apiUrl)
      .replace("CELLPLANE_TOKEN=…", `CELLPLANE_TOKEN=${fleet.adminToken}`).replace("--rate 50 --duration 30 --journal /tmp/journal", `--target ${fleet.routerUrl} --rate 50 --duration 3 --journal ${fleet.stateDirectory}/journal`).replace(/^npx cellplane/, `${process.execPath} packages/cellplane/bin/cellplane.mjs`);
    const run = async (): Promise<{ code: number; output: string }> => {
      const child = spawn("/bin/sh", ["-c", line], { cwd: root, env: { ...process.env, CI: "1", CELLPLANE_STATE_DIR: fleet.stateDirectory }, stdio: ["ignore", "pipe", "pipe"] });
      let output = "";
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (data: Buffer) => (output += data.toString()));
      const [code] = (await once(child, "close")) as [number];
      return { code, output };
    };
    const { code, output } = await eventually("it succeeds", async () => {
      const ran = await run();
      // A route takes a moment to reach the router.
      return ran.code === 0 && !/"status":404/.test(ran.output) ? ran : Promise.reject(new Error(ran.output));
    }, 10_000);
    expect(code, output).toBe(0);
  });
});
