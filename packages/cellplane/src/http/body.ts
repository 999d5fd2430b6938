import { fail } from "../base/errors.ts";
import { unsafeJson } from "./validate.ts";

const bodyBytesMax = 1_000_000;

/**
 * The request's JSON; undefined when it has no body. Never reads more than the limit, whatever the headers say.
 * @throws CellplaneError body_too_large, wrong_media_type, invalid_input
 */
export async function readJson(request: Request): Promise<unknown> {
  const bytes = await readBytes(request);
  if (bytes.length === 0) return undefined;
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/([\w.+-]+\+)?json\b/i.test(type)) throw fail("wrong_media_type", { type });
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw fail("invalid_input", { issues: [{ path: "", message: error instanceof SyntaxError ? `the body is no JSON: ${error.message}` : "the body is no UTF-8" }] });
  }
  const issue = unsafeJson(value);
  if (issue) throw fail("invalid_input", { issues: [issue] });
  return value;
}

async function readBytes(request: Request): Promise<Uint8Array> {
  const declared = request.headers.get("content-length");
  if (declared !== null && Number(declared) > bodyBytesMax) throw fail("body_too_large", { bytesMax: bodyBytesMax });
  if (declared !== null) return new Uint8Array(await request.arrayBuffer());
  if (!request.headers.has("transfer-encoding") || !request.body) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body) {
    size += chunk.length;
    if (size > bodyBytesMax) throw fail("body_too_large", { bytesMax: bodyBytesMax });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
