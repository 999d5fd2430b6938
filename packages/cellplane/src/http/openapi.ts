import { z } from "zod";
import { errorKinds } from "../base/errors.ts";
import { type Endpoint, isMutation } from "./contract.ts";
import { problemType } from "./problem.ts";

type Json = Record<string, unknown>;

/** The OpenAPI 3.1 document of these endpoints. Schemas with a `.meta({ id })` become components; the same endpoints, the same text. */
export function openApi(endpoints: Endpoint[], version = "1"): Json {
  const components: Json = {};
  const paths: Record<string, Json> = {};
  for (const endpoint of [...endpoints].sort((a, b) => (a.path === b.path ? order(a) - order(b) : a.path < b.path ? -1 : 1))) {
    (paths[endpoint.path] ??= {})[endpoint.method.toLowerCase()] = operationOf(endpoint, components);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Cellplane", version, license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      description: "The control plane's API. Every failure is a problem document (RFC 9457) with a stable `code`, what to do (`fix`) and a trace id.",
    },
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer", description: "A token with a role: viewer, operator or admin; each may do what the ones before it may." } },
      parameters: {
        DryRun: { name: "dryRun", in: "query", description: "Do everything, answer, and take it back.", schema: { type: "boolean", default: false } },
        IdempotencyKey: { name: "Idempotency-Key", in: "header", description: "A repeat with the same key is answered with the first answer and does nothing. Kept for a day.", schema: { type: "string", maxLength: 128 } },
        IfMatch: { name: "If-Match", in: "header", description: "The ETag the change was decided from; refused with 412 when it is another now.", schema: { type: "string" } },
        Reason: { name: "Cellplane-Reason", in: "header", description: "Why, for the audit log; percent-encoded UTF-8.", schema: { type: "string", maxLength: 1000 } },
      },
      responses: { Problem: { description: "What happened, why, and what to do.", content: { [problemType]: { schema: { $ref: "#/components/schemas/Problem" } } } } },
      schemas: { ...Object.fromEntries(Object.entries(components).sort(([a], [b]) => (a < b ? -1 : 1))), Problem: problemSchema },
    },
  };
}

const order = (e: Endpoint): number => ["GET", "POST", "PUT", "PATCH", "DELETE"].indexOf(e.method);

const problemSchema: Json = {
  type: "object",
  required: ["type", "title", "status", "detail", "code", "fix", "retry", "instance"],
  properties: {
    type: { type: "string", format: "uri" }, title: { type: "string" }, status: { type: "integer" }, detail: { type: "string" },
    code: { type: "string", examples: Object.keys(errorKinds).slice(0, 3), description: "Stable; never reused for something else." },
    fix: { type: "string", description: "What to do." },
    retry: { enum: ["same", "later", "never"], description: "Whether the same call may be sent again, at once or after a pause." },
    instance: { type: "string", description: "Holds the trace id." },
    data: { description: "What the detail was made of; the issues of `invalid_input` stand here with their paths." },
  },
};

function operationOf(endpoint: Endpoint, components: Json): Json {
  const tag = endpoint.path.split("/")[2] ?? "";
  const mutation = isMutation(endpoint) ? ["DryRun", "IdempotencyKey", "IfMatch", "Reason"].map((name) => ({ $ref: `#/components/parameters/${name}` })) : [];
  const parameters = [...parametersOf("path", endpoint.params, components), ...parametersOf("query", endpoint.query, components), ...mutation];
  const body = schemaOf(endpoint.body, "input", components);
  const takesBody = isMutation(endpoint) && Object.keys((body["properties"] as Json | undefined) ?? { other: true }).length > 0;
  return {
    operationId: endpoint.id,
    tags: [tag],
    summary: endpoint.summary,
    ...(endpoint.description ? { description: endpoint.description } : {}),
    "x-role": endpoint.role,
    ...(endpoint.role === "public" ? { security: [] } : {}),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(takesBody ? { requestBody: { required: true, content: { "application/json": { schema: body } } } } : {}),
    responses: {
      [endpoint.status]: endpoint.status === 204 ? { description: "Done." } : { description: "Done.", content: { "application/json": { schema: schemaOf(endpoint.returns, "output", components) } } },
      default: { $ref: "#/components/responses/Problem" },
    },
  };
}

function parametersOf(where: "path" | "query", schema: z.ZodType, components: Json): Json[] {
  const { properties = {}, required = [] } = schemaOf(schema, "input", components) as { properties?: Record<string, Json>; required?: string[] };
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    name, in: where, required: where === "path" || required.includes(name), ...(description ? { description } : {}), schema: rest,
  }));
}

/** A schema in JSON Schema 2020-12; what it shares with others is moved to the components. Inputs differ from outputs by their defaults, so they have components of their own. */
function schemaOf(schema: z.ZodType, io: "input" | "output", components: Json): Json {
  const { $schema: _, $defs = {}, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" }) as Json & { $defs?: Record<string, Json> };
  // The one recursive schema is zod's own for any JSON; it has no name, and no use for one in a document that is JSON.
  const nameless = new Set(Object.keys($defs).filter((id) => id.startsWith("__")));
  const relink = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(relink);
    if (value === null || typeof value !== "object") return value;
    const { id, pattern, $ref, ...fields } = value as Json;
    // Answers may gain fields: clients must not refuse what they do not know.
    if (io === "output" && fields["additionalProperties"] === false) delete fields["additionalProperties"];
    const linked: Json = Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, relink(field)]));
    // A property may be called `id` or `pattern`: then it is a schema. A component's own id is a name, and a date's pattern says nothing that its format does not.
    if (id !== undefined && typeof id !== "string") linked["id"] = relink(id);
    if (pattern !== undefined && (typeof pattern !== "string" || fields["format"] === undefined)) linked["pattern"] = relink(pattern);
    const target = typeof $ref === "string" ? ($ref.split("/").at(-1) ?? "") : "";
    return target === "" ? linked : nameless.has(target) ? { ...linked, description: "Any JSON." } : { ...linked, $ref: `#/components/schemas/${target}${io === "input" ? "Input" : ""}` };
  };
  for (const [id, definition] of Object.entries($defs)) if (!nameless.has(id)) components[`${id}${io === "input" ? "Input" : ""}`] = relink(definition);
  return relink(rest) as Json;
}
