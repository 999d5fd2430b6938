import type { RequestHead } from "./model.ts";

/** A request as a person describes it. */
export interface AskedRequest {
  /** As in a Host header. */
  host?: string | undefined;
  /** With or without a query. */
  path?: string | undefined;
  /** Lines as in `x-tenant: acme`. */
  headers?: readonly string[] | undefined;
}

/** The head of that request, as a router would have read it. */
export function headOf({ host = "", path = "/", headers = [] }: AskedRequest): RequestHead {
  const name = host.toLowerCase().replace(/:\d*$/, "");
  const [plain = "/"] = path.split("?", 1);
  const fields = headers.map((line) => ({ name: line.slice(0, Math.max(0, line.indexOf(":"))).trim().toLowerCase(), value: line.slice(line.indexOf(":") + 1).trim() }));
  const head = {
    host: Buffer.from(name, "latin1"), hostLength: Buffer.byteLength(name, "latin1"), bytes: Buffer.from(plain, "latin1"),
    pathStart: 0, pathEnd: plain.length, valueStart: 0, valueEnd: 0,
    count(wanted: string) {
      const found = fields.filter((field) => field.name === wanted);
      head.bytes = Buffer.from(plain + (found[0]?.value ?? ""), "latin1");
      head.valueStart = plain.length;
      head.valueEnd = head.bytes.length;
      return found.length;
    },
  };
  return head;
}
