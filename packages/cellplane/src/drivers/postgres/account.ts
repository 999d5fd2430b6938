import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { fail } from "../../base/errors.ts";

const execute = promisify(execFile);

/** A user of this machine. */
export interface Account {
  name: string;
  uid: number;
  gid: number;
}

/** Looks a user up by name or number; null when there is none. `id` answers for every directory service, on Linux and macOS. */
async function accountNamed(name: string): Promise<Account | null> {
  try {
    const [uid, gid] = await Promise.all([execute("id", ["-u", name]), execute("id", ["-g", name])]);
    return { name, uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch {
    return null;
  }
}

/**
 * Who runs PostgreSQL here: null for the caller itself. PostgreSQL refuses to run as root, so root lends it the user
 * `postgres` where there is one, else `nobody`.
 */
export async function postgresAccount(): Promise<Account | null> {
  if (process.getuid?.() !== 0) return null;
  for (const name of ["postgres", "_postgres", "nobody"]) {
    const account = await accountNamed(name);
    if (account) return account;
  }
  throw fail("postgres_failed", { why: "it does not run as root, and there is neither a user `postgres` nor `nobody`", log: "none" });
}

/** For spawn: the ids of the account, or none. */
export const asAccount = (account: Account | null): { uid?: number; gid?: number } => (account ? { uid: account.uid, gid: account.gid } : {});
