import { once } from "node:events";
import { readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";

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
      const url: URL = new URL(`/v1/tenants?limit=1000${cursor && `&cursor=${encodeURIComponent(cursor)}`}`, server);
      const { items, nextCursor } = (await getJson(url, { authorization: `Bearer ${await token()}` }, signal)) as { items: { name: string; state: string }[]; nextCursor: string | null };
      for (const { name, state } of items) if (state === "active") names.push(name);
      cursor = nextCursor;
    }
    return names;
  };

/** By the plain client, since `fetch` alone takes 14 MiB. */
async function getJson(url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<unknown> {
  const { request } = url.protocol === "https:" ? await import("node:https") : await import("node:http");
  const [response] = (await once(request(url, { headers, signal }).end(), "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) text += chunk as string;
  if (response.statusCode !== 200) throw new Error(`${url.pathname} answered ${response.statusCode}`);
  return JSON.parse(text);
}
