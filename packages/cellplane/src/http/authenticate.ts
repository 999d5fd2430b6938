import { fail } from "../base/errors.ts";
import type { Clock } from "../base/clock.ts";
import type { TokenStore } from "../token/store.ts";
import { type Caller, mayCall, type RawHandler, type Role } from "./contract.ts";

/** Carries the console's token where scripts cannot read it: browsers' event streams can send no authorization header. */
const sessionCookie = "cellplane_session";

/**
 * Who calls, and that he may.
 * @throws CellplaneError unauthenticated, forbidden, origin_refused
 */
export async function authenticate(request: Request, needs: Role, tokens: Pick<TokenStore, "find">, clock: Clock): Promise<Caller> {
  if (needs === "public") return { name: "anonymous", role: "public" };
  const authorization = request.headers.get("authorization");
  const secret = authorization === null ? sessionOf(request) : bearerOf(authorization);
  if (secret === null) throw fail("unauthenticated", { why: authorization === null ? "the request has no token" : "the authorization header is not `Bearer <token>`" });
  if (authorization === null) refuseForeignOrigin(request);
  const known = await tokens.find(secret, clock.nowMs());
  if (!known) throw fail("unauthenticated", { why: "nobody has this token" });
  if (known.refusal) throw fail("unauthenticated", { why: known.refusal });
  if (!mayCall(known.role, needs)) throw fail("forbidden", { role: known.role, needs });
  return { name: known.name, role: known.role };
}

const bearerOf = (authorization: string | null): string | null => /^Bearer +([\w.~+/-]+=*) *$/i.exec(authorization ?? "")?.[1] ?? null;

function sessionOf(request: Request): string | null {
  for (const pair of (request.headers.get("cookie") ?? "").split(";")) {
    const [name, value] = pair.trim().split("=", 2);
    if (name === sessionCookie && value) return value;
  }
  return null;
}

/** A cookie goes along with whatever page asks; what it may do is only for pages that this server itself sent. */
function refuseForeignOrigin(request: Request): void {
  const site = request.headers.get("sec-fetch-site");
  const origin = request.headers.get("origin");
  const ours = origin === null ? site === "same-origin" || site === "none" || (site === null && request.method === "GET") : origin === new URL(request.url).origin;
  if (!ours) throw fail("origin_refused", { origin: origin ?? "" });
}

const setCookie = (secret: string, more = ""): Record<string, string> => ({ "set-cookie": `${sessionCookie}=${secret}; Path=/; HttpOnly; SameSite=Strict${more}` });

/** How the console's page gets and gives back its cookie: POST with the token in the authorization header, DELETE. */
export const sessionRoutes: RawHandler[] = [
  {
    method: "POST", path: "/v1/session", role: "viewer",
    handle: (request, { caller }) => Response.json(caller, { headers: setCookie(bearerOf(request.headers.get("authorization")) ?? "") }),
  },
  { method: "DELETE", path: "/v1/session", role: "public", handle: () => new Response(null, { status: 204, headers: setCookie("", "; Max-Age=0") }) },
];
