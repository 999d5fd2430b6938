import { fail } from "../base/errors.ts";
import type { Clock } from "../base/clock.ts";
import type { TokenStore } from "../token/store.ts";
import { type Caller, mayCall, type Role } from "./contract.ts";

/**
 * Who calls, and that he may. The token comes in the authorization header and nowhere else: what a browser would send along
 * by itself, a cookie, could be made to act by any page.
 * @throws CellplaneError unauthenticated, forbidden
 */
export async function authenticate(request: Request, needs: Role, tokens: Pick<TokenStore, "find">, clock: Clock): Promise<Caller> {
  if (needs === "public") return { name: "anonymous", role: "public" };
  const authorization = request.headers.get("authorization");
  if (authorization === null) throw fail("unauthenticated", { why: "the request has no token" });
  const secret = /^Bearer +([\w.~+/-]+=*) *$/i.exec(authorization)?.[1];
  if (secret === undefined) throw fail("unauthenticated", { why: "the authorization header is not `Bearer <token>`" });
  const known = await tokens.find(secret, clock.nowMs());
  if (!known) throw fail("unauthenticated", { why: "nobody has this token" });
  if (known.refusal) throw fail("unauthenticated", { why: known.refusal });
  if (!mayCall(known.role, needs)) throw fail("forbidden", { role: known.role, needs });
  return { name: known.name, role: known.role };
}
