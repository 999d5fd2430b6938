import { readFile } from "node:fs/promises";

/** Where the names of the tenants come from; asked again and again, since tenants come and go. */
export type TenantSource = (signal: AbortSignal) => Promise<string[]>;

/** A file of names, one a line or as a JSON array. */
export const tenantsOfFile =
  (file: string): TenantSource =>
  async () => {
    const text = await readFile(file, "utf8");
    const names: unknown = text.trimStart().startsWith("[") ? JSON.parse(text) : text.split("\n").map((line) => line.trim());
    return (names as unknown[]).filter((name): name is string => typeof name === "string" && name !== "");
  };

/**
 * The active tenants that the control plane lists.
 *
 * @param token reads the API token each time, because it may be replaced
 */
export const tenantsOfApi =
  (server: string, token: () => Promise<string>): TenantSource =>
  async (signal) => {
    const names: string[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const url = new URL(`/v1/tenants?limit=1000${cursor && `&cursor=${encodeURIComponent(cursor)}`}`, server);
      const response = await fetch(url, { headers: { authorization: `Bearer ${await token()}` }, signal });
      if (!response.ok) throw new Error(`${url.pathname} answered ${response.status}`);
      const { items, nextCursor } = (await response.json()) as { items: { name: string; state: string }[]; nextCursor: string | null };
      for (const { name, state } of items) if (state === "active") names.push(name);
      cursor = nextCursor;
    }
    return names;
  };
