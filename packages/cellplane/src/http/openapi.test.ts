import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { openApi } from "./openapi.ts";
import { declaredEndpoints } from "./testing/declared.ts";

const endpoints = await declaredEndpoints();
const file = fileURLToPath(new URL("../../../../openapi/v1.json", import.meta.url));

test("H9: openapi/v1.json is what the endpoints declare (UPDATE_GOLDEN=1 rewrites it)", () => {
  const text = `${JSON.stringify(openApi(endpoints), null, 2)}\n`;
  if (process.env["UPDATE_GOLDEN"]) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  expect(readFileSync(file, "utf8")).toBe(text);
});

test.each(endpoints.map((e) => [e.id, e] as const))("%s is declared as the others are", (_, e) => {
  const names = [...e.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
  expect(e.path).toMatch(/^\/v1(\/([a-z-]+|\{[a-z]+\}))+(:[a-z]+)?$/);
  expect(e.id).toMatch(/^[a-z]+([A-Z][a-z]*)+$/);
  expect(e.summary).not.toMatch(/\.$|^$/);
  const declared = Object.keys((e.params as unknown as { shape: object }).shape);
  expect(declared.sort()).toEqual([...names].sort());
});

test("no two endpoints share an id, or a method and a path", () => {
  expect(new Set(endpoints.map((e) => e.id)).size).toBe(endpoints.length);
  expect(new Set(endpoints.map((e) => `${e.method} ${e.path.replaceAll(/\{\w+\}/g, "{}")}`)).size).toBe(endpoints.length);
});

test("no reference in the document leads nowhere", () => {
  const document = openApi(endpoints) as { components: Record<string, Record<string, unknown>> };
  const text = JSON.stringify(document);
  for (const [, kind = "", name = ""] of text.matchAll(/"#\/components\/(\w+)\/([\w.-]+)"/g)) expect(document.components[kind]).toHaveProperty([name]);
  expect(text).not.toContain("#/$defs");
});
