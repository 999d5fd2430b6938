import { createServer, type Server } from "node:http";
import { explain } from "../routing/model.ts";
import { headOf } from "../routing/request.ts";
import type { RouteTable } from "../routing/table.ts";

export interface AdminParts {
  table(): RouteTable | null;
  /** Why it is not ready; null when it is. */
  notReady(): string | null;
  metrics(): string;
}

/** For operators beside the router: `/ready`, `/metrics`, `/routes/explain?host=&path=&header=`. Never reachable by clients. */
export function adminServer(parts: AdminParts): Server {
  return createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://router");
    const answer = (status: number, type: string, text: string): void => void response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(text);
    const json = (status: number, value: unknown): void => answer(status, "application/json", `${JSON.stringify(value)}\n`);
    const table = parts.table();
    switch (url.pathname) {
      case "/ready": {
        const why = parts.notReady();
        return json(why === null ? 200 : 503, { ready: why === null, ...(why === null ? {} : { why }) });
      }
      case "/metrics": return answer(200, "text/plain; version=0.0.4; charset=utf-8", parts.metrics());
      case "/routes/explain": {
        if (table === null) return json(503, { code: "no_table" });
        const { searchParams } = url;
        return json(200, explain(table, headOf({ host: searchParams.get("host") ?? "", path: searchParams.get("path") ?? "/", headers: searchParams.getAll("header") })));
      }
      default: return json(404, { code: "not_found" });
    }
  });
}
