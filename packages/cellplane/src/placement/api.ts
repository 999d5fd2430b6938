import { endpoint, handler, type Handler } from "../http/contract.ts";
import { NewTenant, PlacementExplanation } from "../tenant/model.ts";
import type { Admission } from "../tenant/store.ts";

export const explainPlacement = endpoint({
  id: "explainPlacement", method: "POST", path: "/v1/placement:explain", role: "viewer", summary: "Says where a tenant would go now, why, and what speaks against every other cell",
  body: NewTenant, returns: PlacementExplanation,
});

export const placementHandlers = ({ admission }: { admission: Pick<Admission, "explain"> }): Handler[] => [handler(explainPlacement, ({ body }) => admission.explain(body))];
