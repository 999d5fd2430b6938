import { z } from "zod";
import { Name } from "../base/names.ts";
import { endpoint, type Handler, handler, page, PageQuery, roles } from "../http/contract.ts";
import { NewToken, Token } from "./model.ts";
import type { TokenStore } from "./store.ts";

export const createToken = endpoint({
  id: "createToken", method: "POST", path: "/v1/tokens", role: "admin", summary: "Create a token", status: 201,
  body: NewToken,
  returns: z.object({
    token: Token,
    /** Shown this once; null in the answer to a repeated call. */
    secret: z.string().nullable(),
  }),
  shownOnce: "secret",
});

export const listTokens = endpoint({
  id: "listTokens", method: "GET", path: "/v1/tokens", role: "admin", summary: "List the tokens, without their secrets", query: PageQuery, returns: page(Token),
});

export const revokeToken = endpoint({
  id: "revokeToken", method: "DELETE", path: "/v1/tokens/{token}", role: "admin", summary: "Revoke a token: it is refused from now on",
  params: z.object({ token: Name }), returns: Token,
});

export const whoAmI = endpoint({
  id: "whoAmI", method: "GET", path: "/v1/whoami", role: "viewer", summary: "Whose token this is",
  returns: z.object({ name: z.string(), role: z.enum(roles) }),
});

export const tokenHandlers = ({ tokens }: { tokens: TokenStore }): Handler[] => [
  handler(createToken, ({ body, caller, mutate }) => mutate((tx) => tokens.create(tx, body, caller.name))),
  handler(listTokens, async ({ query }) => {
    const items = await tokens.list(query.cursor ?? "", query.limit + 1);
    const more = items.length > query.limit;
    if (more) items.pop();
    return { items, nextCursor: more ? (items.at(-1)?.name ?? null) : null };
  }),
  handler(revokeToken, ({ params, mutate }) => mutate((tx) => tokens.revoke(tx, params.token))),
  handler(whoAmI, async ({ caller }) => caller),
];
