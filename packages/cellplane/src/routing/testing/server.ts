import { serve } from "@hono/node-server";
import type { AddressInfo } from "node:net";
import { feedRoutes } from "../api.ts";
import type { RouteFeed } from "../feed.ts";

/** The calls of routers, served without the rest of the API; every token is taken. */
export async function feedServer(feed: RouteFeed): Promise<{ url: string; close(): Promise<void> }> {
  const routes = feedRoutes(feed);
  const server = serve({
    port: 0, hostname: "127.0.0.1",
    fetch: async (request) => {
      const route = routes.find((each) => each.path === new URL(request.url).pathname && each.method === request.method);
      return route ? route.handle(request, { caller: { name: "router", role: "router" }, params: {} }) : new Response(null, { status: 404 });
    },
  });
  await new Promise<void>((resolve) => server.once("listening", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      if ("closeAllConnections" in server) server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
