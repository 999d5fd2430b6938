import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { brokenHealth as brokenOnce, operation } from "../../packages/console/src/testing/cell.ts";
import { launchChromium } from "./chromium.ts";
import { freshCell, type ScriptedPlane, scriptedPlane, tenant } from "./scripted.ts";

const brokenHealth = { ...brokenOnce, observedAt: new Date().toISOString() };
const root = fileURLToPath(new URL("../..", import.meta.url));
const screens = join(root, ".tmp/screens");

let browser: Browser;
let built: string;
let plane: ScriptedPlane;
let context: BrowserContext;
let page: Page;
/** What the page complained about: errors of scripts and violations of the policy. Refused calls are not among them. */
let complaints: string[];

beforeAll(async () => {
  built = await mkdtemp(join(tmpdir(), "cellplane-console-"));
  await mkdir(screens, { recursive: true });
  const vite = join(root, "node_modules/vite/bin/vite.js");
  await promisify(execFile)(process.execPath, [vite, "build", "--outDir", built, "--emptyOutDir", "--logLevel", "warn"], { cwd: join(root, "packages/console") });
  browser = await launchChromium();
});
afterAll(async () => {
  await browser?.close();
  await rm(built, { recursive: true, force: true });
});

beforeEach(async () => {
  plane = await scriptedPlane({ console: built });
  complaints = [];
  await begin();
});
afterEach(async () => {
  await context.close();
  await plane.stop();
  if (complaints.length > 0) throw new Error(`the page complained: ${complaints.join("; ")}`);
});

async function begin(options: Parameters<Browser["newContext"]>[0] = {}): Promise<void> {
  context = await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: "reduce", ...options });
  page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) complaints.push(message.text());
  });
}

/** A fleet of two regions with two cells each. */
function smallFleet(): void {
  for (const name of ["eu-1", "eu-2", "us-1", "us-2"]) plane.cells.set(name, freshCell({ name }));
  for (let i = 1; i <= 84; i++) plane.tenants.push(tenant(`tenant-${String(i).padStart(3, "0")}`, "eu-1"));
  const wave = (base: number) => Array.from({ length: 60 }, (_, i) => base * (1 + 0.3 * Math.sin(i / 7 + base) + 0.06 * Math.sin(i * 1.7)));
  plane.setRates({ "eu-1": wave(320), "eu-2": wave(180), "us-1": wave(410), "us-2": wave(60) });
}

function largeFleet(count: number): void {
  const regions = ["ap-east", "ap-south", "eu-north", "eu-west", "me-west", "sa-east", "us-east", "us-west"];
  for (let i = 0; i < count; i++) {
    const region = regions[i % regions.length] ?? "";
    const name = `${region}-${Math.floor(i / regions.length) + 1}`;
    const tenants = (i * 7919) % 197;
    const odd = i % 97 === 5 ? { health: brokenHealth } : i % 61 === 7 ? { state: "cordoned" as const } : i % 83 === 3 ? { state: "draining" as const } : {};
    plane.cells.set(name, freshCell({ name, region, used: { tenants, connections: tenants / 3, diskBytes: tenants * 2 ** 26 }, version: i % 11 === 0 ? "1.5.0" : "1.4.2", ...odd }));
  }
}

/** For what is not so yet. */
const soon = { timeout: 10_000, interval: 30 };
const tile = (name: string) => page.locator(`[data-cell="${name}"]`);
const text = async (selector: string): Promise<string> => (await page.locator(selector).allInnerTexts()).join("\n").replaceAll(/\s+/g, " ");
const link = (): Promise<string> => text(".link");
const picture = (name: string) => page.screenshot({ path: join(screens, `${name}.png`) });

describe("coming in", () => {
  test("C5: the token in the link is taken out of the URL, and outlives a reload with the rest of it", async () => {
    smallFleet();
    await page.goto(plane.link);
    await tile("eu-1").waitFor();
    expect(page.url()).toBe(`${plane.origin}/console/#/map`);
    await tile("eu-1").click();
    expect(page.url()).toBe(`${plane.origin}/console/#/map?cell=eu-1`);
    await page.getByRole("searchbox").fill("region:eu");
    await page.keyboard.press("Escape");
    await page.keyboard.press("c");
    await page.reload();
    await expect.poll(() => page.locator(".inspector h2").innerText(), soon).toBe("eu-1");
    expect(await page.locator(".tile").count()).toBe(2);
    expect(await page.getByLabel("Colour").inputValue()).toBe("load");
    expect(await page.evaluate("[localStorage, sessionStorage].map((store) => JSON.stringify(store).includes('secret'))")).toEqual([false, true]);
  });

  test("a wrong token is refused with what to do, the right one is not asked for again", async () => {
    await page.goto(`${plane.origin}/console`);
    await page.getByLabel("API token").fill("guess");
    await page.keyboard.press("Enter");
    await expect.poll(() => text(".problem"), soon).toContain("nobody has this token Pass a valid token. unauthenticated · trace 4bf92f35");
    await page.getByLabel("API token").fill("secret");
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect.poll(link, soon).toBe("Live");
  });

  test("C6: the first load is small, and nothing in it is inline", async () => {
    const assets = join(built, "assets");
    const scripts = await Promise.all((await readdir(assets)).filter((name) => name.endsWith(".js")).map((name) => readFile(join(assets, name))));
    expect(scripts.reduce((sum, script) => sum + gzipSync(script).length, 0)).toBeLessThanOrEqual(200_000);
    const html = await readFile(join(built, "index.html"), "utf8");
    expect(html).not.toMatch(/<style|style=|<script(?![^>]*\bsrc=)|\bon\w+=|(?:src|href)="\//);
  });
});

describe("C10: what is shown when there is nothing to show", () => {
  test("an empty fleet teaches the command that fills it, and fills by itself", async () => {
    await page.goto(plane.link);
    await expect.poll(() => text(".empty"), soon).toContain("cellplane apply -f cellplane.yaml");
    await picture("empty");
    plane.change({ name: "eu-1", state: "provisioning" });
    await expect.poll(() => text(".tile"), soon).toContain("provisioning");
  });

  test("a refusal says what happened and what to do, and goes when it is over", async () => {
    smallFleet();
    plane.fail({ status: 503, code: "database_unavailable", detail: "the control plane's database does not answer" });
    await page.goto(plane.link);
    await expect.poll(() => text(".map-main .problem"), soon).toContain("database does not answer Check that PostgreSQL runs");
    await picture("refused");
    plane.fail(null);
    await page.getByRole("button", { name: "Try again" }).click();
    await expect.poll(() => page.locator(".tile").count(), soon).toBe(4);
  });

  test("no match says so, and a way back", async () => {
    smallFleet();
    await page.goto(plane.link);
    await tile("eu-1").waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("mars");
    await expect.poll(() => text(".nothing"), soon).toBe("No cell matches mars.");
    await page.getByRole("button", { name: "0 of 4 shown" }).click();
    await expect.poll(() => page.locator(".tile").count(), soon).toBe(4);
  });
});

describe("the map", () => {
  test("C3, C9: a cell goes down and comes back before one's eyes", async () => {
    smallFleet();
    await page.goto(plane.link);
    await expect.poll(() => tile("eu-2").getAttribute("aria-label"), soon).toContain("eu-2, up, 42 % of tenants, 84 tenants, version 1.4.2");
    expect(await text(".attention")).toContain("Nothing. Every cell is as it should be.");
    await expect.poll(() => text(".summary"), soon).toContain("requests/s");
    await picture("light");
    plane.change({ name: "eu-2", health: brokenHealth });
    await expect.poll(() => text(".attention"), soon).toContain("eu-2 is down: service/app, connection refused");
    expect(await text(`[data-cell="eu-2"]`)).toContain("down");
    expect(await tile("eu-2").locator(".mark-down").count()).toBe(1);
    await page.getByRole("button", { name: /eu-2 is down/ }).click();
    await expect.poll(() => text(".checks"), soon).toBe("service/app connection refused database well");
    await picture("cell-down");
    plane.change({ name: "eu-2", health: { ...brokenHealth, ok: true } });
    await expect.poll(() => text(".attention"), soon).toContain("Nothing.");
    expect(await tile("eu-2").getAttribute("aria-label")).toContain("up");
  });

  test("C1, C2: what happened while the connection was lost is there when it is back", async () => {
    smallFleet();
    plane.emit("cell.state", "cell/eu-1");
    await page.goto(plane.link);
    await expect.poll(link, soon).toBe("Live");
    plane.emit("tenant.created", "tenant/acme", { cell: "eu-1" });
    await expect.poll(() => text(".events"), soon).toContain("tenant.created tenant/acme");
    await plane.stop();
    await expect.poll(link, soon).toBe("Not live");
    expect(await text(".lost")).toMatch(/The connection to the control plane is lost\. This is how the fleet looked .* cells go on serving meanwhile/);
    expect(await page.locator(".tile").count()).toBe(4);
    await tile("eu-1").click();
    await expect.poll(() => text(".part > .refusal"), soon).toBe("The connection to the control plane is lost.");
    expect(await page.getByRole("button", { name: "cordon", exact: true }).getAttribute("aria-disabled")).toBe("true");
    await picture("lost");
    plane.change({ name: "us-1", state: "cordoned" });
    await plane.start();
    await page.getByRole("button", { name: "Try now" }).click();
    await expect.poll(link, soon).toBe("Live");
    await expect.poll(() => tile("us-1").getAttribute("aria-label"), soon).toContain("cordoned");
    expect(plane.resumedAfter).toEqual(["", "700.2"]);
    expect(await page.locator(".lost").count()).toBe(0);
  });

  test("C8: cordons with a reason and a key, says why not, and has the command", async () => {
    smallFleet();
    await page.goto(`${plane.origin}/console/#token=secret`);
    await tile("eu-1").click();
    await page.getByRole("button", { name: "cordon", exact: true }).click();
    await page.getByLabel("Reason").fill("new disk – Tuesday");
    await page.getByRole("button", { name: "cordon eu-1", exact: true }).click();
    await expect.poll(() => text(".inspector-head"), soon).toContain("cordoned");
    expect(plane.posts).toEqual([{ path: "/v1/cells/eu-1/cordon", reason: "new disk – Tuesday", key: expect.stringMatching(/^[0-9a-f]{32}$/) }]);
    await expect.poll(() => text(".action"), soon).toContain("cell eu-1 still has 84 tenants");
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.getByRole("button", { name: "Copy as command: cellplane cell uncordon eu-1" }).click();
    await expect.poll(() => page.evaluate("navigator.clipboard.readText()"), soon).toBe("cellplane cell uncordon eu-1");
  });

  test("the inspector shows drift, operations in work and the tenants page by page", async () => {
    smallFleet();
    plane.change({ name: "eu-1", operation: "op-1", drift: [{ path: "services.app.env.LOG_LEVEL", expected: "info", actual: "debug" }] });
    plane.setOperations([operation({ id: "op-1", workflow: "cell.update", subject: "cell/eu-1", state: "running", ratio: 0.4, message: "waiting for service/app", finishedAt: null })]);
    await page.goto(plane.link);
    await tile("eu-1").click();
    await expect.poll(() => text(".drift tbody"), soon).toContain(`services.app.env.LOG_LEVEL "info" "debug"`);
    expect(await text(".operation")).toContain("running");
    expect(await page.locator("progress").getAttribute("value")).toBe("0.4");
    await expect.poll(() => text(".tenants tbody"), soon).toContain("tenant-001");
    await page.getByRole("button", { name: "Next page" }).click();
    await expect.poll(() => text(".pager"), soon).toBe("11–20 of 84");
    expect(await text(".tenants tbody")).toContain("tenant-011");
    await page.getByRole("button", { name: "Previous page" }).click();
    await expect.poll(() => text(".tenants tbody"), soon).toContain("tenant-001");
  });

  test("C4: keys reach everything, and the table has what the map has", async () => {
    smallFleet();
    await page.goto(plane.link);
    await tile("eu-1").focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    expect(await page.evaluate("document.activeElement.dataset.cell")).toBe("us-1");
    await page.keyboard.press("Enter");
    await expect.poll(() => page.locator(".inspector h2").innerText(), soon).toBe("us-1");
    await page.keyboard.press("Escape");
    await expect.poll(() => page.locator(".inspector h2").innerText(), soon).toBe("Activity");
    await page.keyboard.press("t");
    await expect.poll(() => page.locator(".table tbody tr").count(), soon).toBe(4);
    expect((await page.locator(".table tbody tr").first().innerText()).replaceAll(/\s+/g, " ")).toMatch(/^eu-1 up eu 42 % 84 (–|\d+) 1\.4\.2 shared –$/);
    await page.getByRole("button", { name: "tenants" }).click();
    await page.getByRole("button", { name: "tenants" }).click();
    expect(await page.getByRole("columnheader", { name: "tenants" }).getAttribute("aria-sort")).toBe("descending");
    await page.keyboard.press("?");
    expect(await page.getByRole("dialog").isVisible()).toBe(true);
    await page.keyboard.press("Escape");
    expect(await page.getByRole("dialog").isVisible()).toBe(false);
    await page.keyboard.press("/");
    expect(await page.evaluate("document.activeElement.type")).toBe("search");
  });

  test("the legend counts, and filters by what it counts", async () => {
    smallFleet();
    plane.change({ name: "eu-2", health: brokenHealth });
    await page.goto(plane.link);
    await page.getByRole("button", { name: "down 1" }).click();
    await expect.poll(() => page.locator(".tile").count(), soon).toBe(1);
    expect(page.url()).toContain("filter=status:down");
    await page.getByRole("button", { name: "down 1" }).click();
    await expect.poll(() => page.locator(".tile").count(), soon).toBe(4);
  });

  test("dark, sized by tenants", async () => {
    await context.close();
    await begin({ colorScheme: "dark" });
    smallFleet();
    plane.change({ name: "us-2", used: { tenants: 12 } });
    await page.goto(plane.link);
    await tile("us-1").waitFor();
    await picture("dark");
    await page.getByLabel("Size").selectOption("tenants");
    await expect.poll(async () => (await tile("us-1").boundingBox())?.width, soon).toBeGreaterThan(2 * ((await tile("us-2").boundingBox())?.width ?? Infinity));
    expect(await page.evaluate("getComputedStyle(document.body).backgroundColor")).toBe("rgb(13, 16, 20)");
  });
});

describe("C7: a thousand cells", () => {
  test("are there soon, and do not lag while they change", async () => {
    largeFleet(1000);
    const startedMs = performance.now();
    await page.goto(plane.link);
    await page.locator("canvas").first().waitFor();
    await page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))");
    const firstMs = performance.now() - startedMs;
    expect(await page.locator("canvas").count()).toBe(8);
    await picture("thousand-cells");

    await page.evaluate(`
      window.gaps = [];
      let before = performance.now();
      const frame = () => { const now = performance.now(); window.gaps.push(now - before); before = now; requestAnimationFrame(frame); };
      requestAnimationFrame(frame);
    `);
    for (let i = 0; i < 100; i++) {
      plane.change({ name: `eu-west-${(i % 100) + 1}`, used: { tenants: (i * 37) % 200 } });
      await page.waitForTimeout(20);
    }
    const gaps = ((await page.evaluate("window.gaps")) as number[]).sort((a, b) => a - b);
    const at = (share: number): number => Math.round(gaps[Math.floor(gaps.length * share)] ?? 0);
    console.log(`1,000 cells: first drawing ${Math.round(firstMs)} ms after the navigation; frames while 50 cells change per second: p50 ${at(0.5)}, p95 ${at(0.95)}, longest ${at(0.9999)} ms`);
    // The machines of a test run are busy: these bounds tell a page that hangs, the figures above whether the promise is kept.
    expect(firstMs).toBeLessThan(6000);
    expect(at(0.95)).toBeLessThan(250);
  });

  test("C4: can be pointed at, walked by keys and read as a table", async () => {
    largeFleet(1000);
    await page.goto(plane.link);
    await page.locator("canvas").first().waitFor();
    await page.locator("canvas").first().hover({ position: { x: 24, y: 54 } });
    await expect.poll(() => text(".tip"), soon).toContain("ap-east-1 up");
    await page.mouse.down();
    await page.mouse.up();
    await expect.poll(() => page.locator(".inspector h2").innerText(), soon).toBe("ap-east-1");
    await page.getByRole("listbox", { name: "Cells" }).focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowDown");
    await expect.poll(() => page.locator("#map-current").innerText(), soon).toMatch(/^ap-east-\d+, \w+, region ap-east/);
    const reached = (await page.locator("#map-current").innerText()).split(",")[0] ?? "";
    await page.keyboard.press("Enter");
    await expect.poll(() => page.locator(".inspector h2").innerText(), soon).toBe(reached);
    await page.keyboard.press("t");
    expect(await page.getByRole("table").first().getAttribute("aria-rowcount")).toBe("1001");
    expect(await page.locator(".table tbody tr").count()).toBeLessThan(100);
    await page.locator(".map-main").evaluate((element) => element.scrollTo(0, element.scrollHeight));
    await expect.poll(() => text(".table tbody"), soon).toContain("us-west-125");
  });
});
