import type { Gate } from "../admission.ts";
import type { Refusal } from "../refusal.ts";
import { asTenant } from "../tenant.ts";

// The few shapes of Hono (4) that are used here, so that the SDK needs no dependency.
interface Context {
  req: { path: string; header(name: string): string | undefined };
  error: Error | undefined;
  get res(): Response;
  set res(response: Response | undefined);
}

const responseOf = ({ status, headers, body }: Refusal): Response => new Response(body, { status, headers });

/** `app.use(guard.hono())`, before everything that has an effect. */
export const guardHono =
  (gate: Gate) =>
  () =>
  async (context: Context, next: () => Promise<void>): Promise<Response | void> => {
    const admission = gate.admit(context.req.path, (name) => context.req.header(name));
    if (admission.refusal) return responseOf(admission.refusal);
    return asTenant(admission.tenant, async () => {
      await next();
      const refusal = context.error && gate.mapError(context.error);
      if (!refusal) return;
      // Hono merges the headers of a response that is replaced; the app's error page leaves none behind this way.
      context.res = undefined;
      context.res = responseOf(refusal);
    });
  };
