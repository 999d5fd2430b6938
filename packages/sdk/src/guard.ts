import { guardConnect, guardConnectErrors } from "./adapters/connect.ts";
import { guardFastify } from "./adapters/fastify.ts";
import { guardHono } from "./adapters/hono.ts";
import { guardHttp, guardUpgrade } from "./adapters/node.ts";
import { createGate, type Gate, type GuardOptions } from "./admission.ts";

export interface Guard extends Gate {
  http: ReturnType<typeof guardHttp>;
  upgrade: ReturnType<typeof guardUpgrade>;
  connect: ReturnType<typeof guardConnect>;
  connectErrors: ReturnType<typeof guardConnectErrors>;
  fastify: ReturnType<typeof guardFastify>;
  hono: ReturnType<typeof guardHono>;
}

/**
 * Checks on each request that the router sent it here and by the newest route this cell knows of, before the app sees it
 * (SPEC G1–G5). Correct even if every router is out of date: a router that errs costs a second try, never a lost write.
 *
 * @throws TypeError when `cell` or `secret` is empty
 */
export function createGuard(options: GuardOptions): Guard {
  const gate = createGate(options);
  return {
    ...gate,
    http: guardHttp(gate),
    upgrade: guardUpgrade(gate),
    connect: guardConnect(gate),
    connectErrors: guardConnectErrors(gate),
    fastify: guardFastify(gate),
    hono: guardHono(gate),
  };
}
