import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { fail } from "../base/errors.ts";
import { writeWhole } from "../drivers/files.ts";
import type { Queryable } from "../store/model.ts";
import { tokenRoles } from "./model.ts";
import { newSecret } from "./secret.ts";
import { admitSecrets } from "./store.ts";

/** Secrets by role, as in `<stateDir>/tokens.json`. */
export type FirstTokens = Partial<Record<(typeof tokenRoles)[number], string>>;

const File = z.partialRecord(z.enum(tokenRoles), z.string().min(1));

/**
 * One token for each role, named after it: made at the first start, read from `<stateDir>/tokens.json` (mode 0600) at
 * later ones. The file is written before the database knows the tokens, so a crash between the two loses none.
 *
 * Where another instance with a state directory of its own came first, its tokens stay and this one has none for the
 * roles it does not know; `replace` makes new ones all the same, for people who have lost theirs.
 *
 * @throws CellplaneError context_invalid when the file cannot be understood
 */
export async function firstTokens(db: Queryable, stateDir: string, { replace = false } = {}): Promise<FirstTokens> {
  const file = join(stateDir, "tokens.json");
  const kept = await readTokens(file);
  const wanted: FirstTokens = Object.fromEntries(tokenRoles.map((role) => [role, (!replace && kept[role]) || newSecret()]));
  await writeWhole(file, asText(wanted));
  const admitted = await admitSecrets(db, wanted, { replace });
  const good: FirstTokens = Object.fromEntries(Object.entries(wanted).filter(([role]) => admitted.includes(role)));
  if (Object.keys(good).length < tokenRoles.length) await writeWhole(file, asText(good));
  return good;
}

const asText = (tokens: FirstTokens): string => `${JSON.stringify(tokens, null, 2)}\n`;

async function readTokens(file: string): Promise<FirstTokens> {
  try {
    return File.parse(JSON.parse(await readFile(file, "utf8")));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw fail("context_invalid", { file, why: error instanceof SyntaxError ? error.message : "it is no list of tokens by role" }, { cause: error });
  }
}
