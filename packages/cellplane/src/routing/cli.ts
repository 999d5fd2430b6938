import { formatDurationMs } from "../base/units.ts";
import { type Cli, flag } from "../cli/command.ts";
import { explainRoute, listRouters } from "./api.ts";
import type { Explanation, IdentifyRule } from "./model.ts";

const ruleOf = (rule: IdentifyRule): string => {
  switch (rule.by) {
    case "host": return rule.suffix ? `host (names under ${rule.suffix})` : "host";
    case "header": return `header ${rule.header}`;
    case "path": return `path ${rule.prefix}`;
    case "apikey": return `API key in ${rule.header}`;
  }
};

/** host → rule → key → tenant → cell → why, one line each. */
function show(why: Explanation): string {
  const looks = why.looks.map((look) => `  ${ruleOf(look.rule)}: ${look.space} ${look.value} → ${look.tenant ?? "nobody"}`);
  const route = why.tenant === null ? [] : [`tenant  ${why.tenant}, ${why.state}, epoch ${why.epoch}`, `cell    ${why.cell ?? "unknown"}${why.endpoint ? ` at ${why.endpoint}` : ""}`];
  const outcome = why.status === null ? why.outcome : `refuse with ${why.status} (${why.reason})`;
  return ["looks", ...looks, ...route, `answer  ${outcome}`, `why     ${why.why}`].join("\n");
}

export function registerRoute(cli: Cli): void {
  const route = cli.noun("route");
  cli.verb(route, "explain", {
    summary: "Show where a request would go, and why",
    help: "cellplane route explain --host acme.example.com\ncellplane route explain --header 'x-tenant: acme' --path /orders",
    flags: {
      host: flag.text("Its Host header"),
      path: flag.text("Its path"),
      header: flag.many("A header of it, as in 'x-tenant: acme'; may be repeated"),
    },
    run: ({ flags, call }) => call(explainRoute, { query: { host: flags.host, path: flags.path, header: flags.header.length > 0 ? flags.header : undefined } }),
    text: show,
  });
  cli.verb(route, "status", {
    summary: "List the routers: which version of the routes each has applied",
    run: ({ pages }) => pages(listRouters, {}),
    columns: {
      ROUTER: (router) => router.name,
      VERSION: (router) => router.version,
      BEHIND: (router) => router.behind,
      AGE: (router) => formatDurationMs(router.ageMs),
    },
    wide: { "IN FLIGHT": (router) => Object.entries(router.inFlight).map(([tenant, count]) => `${tenant}=${count}`) },
  });
}
