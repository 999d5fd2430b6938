import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { statuses } from "../draw/status.ts";

const css = readFileSync(new URL("theme.css", import.meta.url), "utf8");
const block = (selector: string): Record<string, string> => {
  const start = css.indexOf(`${selector} {`);
  return Object.fromEntries([...css.slice(start, css.indexOf("}", start)).matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name = "", value = ""]) => [name, value]));
};
const light = block(":root");
const palettes = { light, dark: { ...light, ...block(`:root[data-theme="dark"]`) } };

/** WCAG 2.2, relative luminance and contrast ratio. */
function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const share = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
function contrast(a: string, b: string): number {
  const [bright = 0, dim = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (bright + 0.05) / (dim + 0.05);
}

describe.each(Object.entries(palettes))("C3: contrast, %s", (_, palette) => {
  const colour = (name: string): string => palette[name] ?? expect.fail(`there is no --${name}`);
  const grounds = ["page", "panel", "well", "tint-down"];

  test.each(["ink", "ink-2", "ink-3", "accent-ink", ...statuses.map((status) => `status-${status}-ink`)])("text in --%s", (ink) => {
    for (const ground of grounds) expect(contrast(colour(ink), colour(ground)), `on --${ground}`).toBeGreaterThanOrEqual(4.5);
  });

  test("text on what is filled", () => {
    expect(contrast(colour("on-accent"), colour("accent"))).toBeGreaterThanOrEqual(4.5);
    expect(contrast(colour("on-accent"), colour("accent-ink"))).toBeGreaterThanOrEqual(4.5);
  });

  // Pale fills are outlined in their ink, which is tested above; all others stand by themselves.
  test.each(statuses.filter((status) => !["provisioning", "draining", "cordoned"].includes(status)))("the shape of %s", (status) => {
    for (const ground of ["page", "panel", "tint-down"]) expect(contrast(colour(`status-${status}`), colour(ground)), `on --${ground}`).toBeGreaterThanOrEqual(3);
  });

  test.each(statuses)("the shape inside a painted tile that is %s", (status) => {
    expect(contrast(colour("on-fill"), colour(`status-${status}`))).toBeGreaterThanOrEqual(3);
  });

  test("bars and outlines of controls", () => {
    for (const ground of ["page", "panel", "well", "line"]) expect(contrast(colour("accent"), colour(ground)), `on --${ground}`).toBeGreaterThanOrEqual(3);
  });
});
