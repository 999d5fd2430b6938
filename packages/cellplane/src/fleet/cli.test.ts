import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { run } from "../cli/testing/shell.ts";
import { registerFleet } from "./cli.ts";

const entries = ["plan", "diff", "apply", "fleet"].map((name) => ({ name, summary: name, load: async () => registerFleet }));
const noServer = ["--server", "http://127.0.0.1:1", "--token", "x", "--yes"];
let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "fleet-cli-"));
});
afterAll(() => rm(directory, { recursive: true }));

test.each(["plan", "diff", "apply"])("F1: %s tells of a slip in the file, with its place, although no control plane answers", async (verb) => {
  const file = join(directory, "slip.yaml");
  await writeFile(file, "fleet: Demo\nregions: {}\nbluprints: {}\n");
  const words = [verb, "-f", file, ...(verb === "apply" ? noServer : noServer.slice(0, -1))];
  const { code, stdout, stderr } = await run(entries, words);
  expect({ code, stdout }).toEqual({ code: 3, stdout: "" });
  expect(stderr).toContain(`${file}:1:8: fleet: a name is a DNS label: lower-case letters, digits and inner hyphens`);
  expect(stderr).toContain(`${file}:3:1: bluprints: unknown field bluprints; did you mean blueprints?`);
  expect(stderr).toContain("code: fleet_invalid");
});

test("F1: a file that is not there is said to be so", async () => {
  const { code, stderr } = await run(entries, ["plan", "-f", join(directory, "none.yaml"), ...noServer.slice(0, -1)]);
  expect(code).toBe(3);
  expect(stderr).toContain("none.yaml can not be read: there is no such file");
});

test("a file that is well is sent to the control plane", async () => {
  const file = join(directory, "well.yaml");
  await writeFile(file, "fleet: demo\nregions: { eu: { spare: true } }\nblueprints: {}\n");
  const { code, stderr } = await run(entries, ["plan", "-f", file, ...noServer.slice(0, -1)]);
  expect(code).toBe(1);
  expect(stderr).toContain("code: server_unreachable");
});
