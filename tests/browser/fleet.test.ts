import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { shopFleet, startFleet, type TestFleet } from "../fleet.ts";
import { launchChromium } from "./chromium.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const soon = { timeout: 30_000, interval: 50 };

/** Three cells of the shop in two regions. */
const threeCells = shopFleet(["eu-1", "eu-2", "us-1"]);

let fleet: TestFleet;
let browser: Browser;
let page: Page;
const complaints: string[] = [];

beforeAll(async () => {
  mkdirSync(join(root, ".tmp/screens"), { recursive: true });
  execFileSync(process.execPath, [join(root, "node_modules/vite/bin/vite.js"), "build", "--logLevel", "warn"], { cwd: join(root, "packages/console") });
  [fleet, browser] = await Promise.all([startFleet({ fleetFile: threeCells }), launchChromium()]);
  page = await browser.newPage({ viewport: { width: 1440, height: 900 }, reducedMotion: "reduce" });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) complaints.push(message.text());
  });
  await page.goto(`${fleet.apiUrl}/console/#token=${fleet.adminToken}`);
}, 120_000);
afterAll(async () => {
  await browser?.close();
  await fleet?.stop();
}, 60_000);

const tile = (name: string) => page.locator(`[data-cell="${name}"]`);
const labelOf = async (name: string): Promise<string> => (await tile(name).getAttribute("aria-label")) ?? "";
const text = async (selector: string): Promise<string> => (await page.locator(selector).allInnerTexts()).join("\n").replaceAll(/\s+/g, " ");
const cellOf = async (name: string) => (await fleet.api("GET", `/v1/cells/${name}`)).body as { state: string };

describe("the console on a real fleet", () => {
  test("C3: shows the cells there are", async () => {
    await expect.poll(() => page.locator(".tile").count(), soon).toBe(3);
    for (const name of ["eu-1", "eu-2", "us-1"]) await expect.poll(() => labelOf(name), soon).toContain(`${name}, up`);
    expect(await text(".attention")).toContain("Every cell is as it should be.");
    await page.screenshot({ path: join(root, ".tmp/screens/fleet.png") });
  });

  test("C3, C9: a cell that hangs goes down and comes back before one's eyes", async () => {
    await fleet.kill("cell-eu-1.app", "SIGSTOP");
    try {
      await expect.poll(() => labelOf("eu-1"), soon).toContain("eu-1, down");
      expect(await text(".attention")).toContain("eu-1 is down");
      expect(await labelOf("us-1")).toContain("us-1, up");
      await tile("eu-1").click();
      await expect.poll(() => page.locator(".check-broken").count(), soon).toBeGreaterThan(0);
      await page.screenshot({ path: join(root, ".tmp/screens/fleet-cell-down.png") });
    } finally {
      await fleet.kill("cell-eu-1.app", "SIGCONT");
    }
    await expect.poll(() => labelOf("eu-1"), soon).toContain("eu-1, up");
    await expect.poll(() => text(".attention"), soon).not.toContain("eu-1");
  });

  test("C8: cordons and uncordons for real, and the reason stands in the audit log", async () => {
    await tile("eu-2").click();
    await page.getByRole("button", { name: "cordon", exact: true }).click();
    await page.getByLabel("Reason").fill("a disk – is swapped");
    await page.getByRole("button", { name: "cordon eu-2", exact: true }).click();
    await expect.poll(() => labelOf("eu-2"), soon).toContain("eu-2, cordoned");
    expect((await cellOf("eu-2")).state).toBe("cordoned");
    expect((await fleet.cli("audit", "list", "-o", "json")).stdout).toContain("a disk – is swapped");
    await page.getByRole("button", { name: "uncordon", exact: true }).click();
    await page.getByRole("button", { name: "uncordon eu-2", exact: true }).click();
    await expect.poll(() => labelOf("eu-2"), soon).toContain("eu-2, up");
  });

  test("tenants appear in the cell they were placed in", async () => {
    await tile("us-1").click();
    expect((await fleet.api("POST", "/v1/tenants", { name: "initech", cell: "us-1" })).status).toBeLessThan(300);
    await expect.poll(() => text(".tenants"), soon).toContain("initech");
    expect(await labelOf("us-1")).toContain("1 tenant");
  });

  test("C1, C2: the control plane is killed, the page says so, and goes on where it was when it is back", async () => {
    await fleet.kill("control-plane");
    await expect.poll(() => text(".link"), soon).toBe("Not live");
    expect(await page.locator(".tile").count()).toBe(3);
    await expect.poll(() => text(".link"), soon).toBe("Live");
    expect((await fleet.cli("cell", "cordon", "eu-2")).code).toBe(0);
    await expect.poll(() => labelOf("eu-2"), soon).toContain("eu-2, cordoned");
    expect(complaints).toEqual([]);
  });
});
