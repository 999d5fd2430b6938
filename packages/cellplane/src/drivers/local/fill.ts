import type { Issue } from "../../base/errors.ts";

/** What stands for a placeholder; undefined: it is unknown here. */
export type Meaning = (name: string) => string | undefined;

/** Fills in `${name}`; `$${name}` stands for itself. What is unknown becomes an issue at the path. */
export function fill(text: string, meaning: Meaning, path: string, issues: Issue[]): string {
  return text.replaceAll(/(\$?)\$\{([^}]*)\}/g, (whole, escape: string, name: string) => {
    if (escape !== "") return whole.slice(1);
    const value = meaning(name);
    if (value === undefined) issues.push({ path, message: `\${${name}} is unknown here` });
    return value ?? "";
  });
}

export const mentions = (texts: string[], name: string): boolean => texts.some((text) => new RegExp(`(?<!\\$)\\$\\{${name.replace(".", "\\.")}\\}`).test(text));
