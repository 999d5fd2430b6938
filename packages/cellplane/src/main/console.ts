import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import type { RawHandler } from "../http/contract.ts";

/** Where the console is built to: beside this package in the repository, inside it when installed. */
const folders = ["../../../console/dist/", "../../console/"].map((path) => fileURLToPath(new URL(path, import.meta.url)));

const contentTypes: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};

/** Nothing from elsewhere, nothing inline, no framing: what an injected string could do is nothing. */
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

interface StaticFile {
  body: Buffer<ArrayBuffer>;
  headers: Record<string, string>;
}

/** The console's files, read once: what is served is what was there at the start, and a path can name nothing else. */
export async function consoleFiles(): Promise<RawHandler[]> {
  const files = new Map<string, StaticFile>();
  for (const folder of folders) {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      const body = Buffer.from(await readFile(path));
      const hashed = relative(folder, path).startsWith("assets");
      files.set(relative(folder, path), {
        body,
        headers: {
          "content-type": contentTypes[extname(path)] ?? "application/octet-stream",
          "cache-control": hashed ? "public, max-age=31536000, immutable" : "no-cache",
          etag: `"${createHash("sha256").update(body).digest("hex").slice(0, 20)}"`,
          "content-security-policy": policy,
        },
      });
    }
    if (files.size > 0) break;
  }

  function serve(request: Request): Response {
    const path = new URL(request.url).pathname.replace(/^\/console\/?/, "");
    // Every page of the console is one document; its own code reads the path.
    const file = files.get(path) ?? (extname(path) === "" ? files.get("index.html") : undefined);
    if (!file) return new Response("The console is not built here: run `npm run build`.\n", { status: 404, headers: { "content-type": "text/plain" } });
    if (request.headers.get("if-none-match") === file.headers["etag"]) return new Response(null, { status: 304, headers: file.headers });
    return new Response(file.body, { headers: file.headers });
  }

  const redirect = (): Response => new Response(null, { status: 302, headers: { location: "/console/" } });
  return [
    { method: "GET", path: "/", role: "public", handle: async () => redirect() },
    { method: "GET", path: "/console", role: "public", handle: async () => redirect() },
    { method: "GET", path: "/console/*", role: "public", handle: async (request) => serve(request) },
  ];
}
