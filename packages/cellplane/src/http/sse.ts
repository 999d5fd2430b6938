/** Server-sent events (HTML Living Standard, §9.2), both ends. */

/**
 * A response that streams what `source` yields. The first message is waited for, so that a failure before it is an
 * ordinary error with a status. The source is asked for more only when the client has taken what was sent.
 */
export async function beginSse<M>(source: (signal: AbortSignal) => AsyncGenerator<M>, encode: (message: M) => string, signal: AbortSignal): Promise<Response> {
  const ended = new AbortController();
  const end = () => ended.abort();
  signal.addEventListener("abort", end);
  const messages = source(ended.signal);
  const first = await messages.next();
  const bytes = new TextEncoder();
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        if (!first.done) controller.enqueue(bytes.encode(encode(first.value)));
      },
      async pull(controller) {
        const next = await messages.next().catch(() => null);
        if (next && !next.done) controller.enqueue(bytes.encode(encode(next.value)));
        else {
          signal.removeEventListener("abort", end);
          // Also after a failure: the client comes back by its last id, and is then told what is wrong.
          if (!ended.signal.aborted) controller.close();
        }
      },
      async cancel() {
        end();
        await messages.return(undefined);
      },
    },
    { highWaterMark: 1 },
  );
  return new Response(body, { headers: { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", "x-accel-buffering": "no" } });
}

export interface SseMessage {
  /** "message" unless the server named another. */
  event: string;
  /** The id in force, which an earlier message may have set; null before the first. */
  id: string | null;
  /** "" for messages that only move the id. */
  data: string;
}

/**
 * Reads a stream of messages; ends when the stream does, or with the signal. The signal given to `fetch` is not enough:
 * undici holds its link to a running body weakly, and an abort after a garbage collection goes nowhere.
 */
export async function* readSse(body: ReadableStream<Uint8Array>, signal: AbortSignal | undefined): AsyncGenerator<SseMessage> {
  let id: string | null = null;
  let event = "message";
  let data: string[] = [];
  let rest = "";
  const reader = body.getReader();
  const utf8 = new TextDecoder();
  const cancel = () => void reader.cancel().catch(() => undefined);
  signal?.addEventListener("abort", cancel);
  try {
    if (signal?.aborted) return;
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      const lines = (rest + utf8.decode(read.value, { stream: true })).split(/\r?\n/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          yield { event, id, data: data.join("\n") };
          event = "message";
          data = [];
          continue;
        }
        const [, name = "", value = ""] = /^([^:]*)(?:: ?)?(.*)$/.exec(line) ?? [];
        if (name === "data") data.push(value);
        else if (name === "event") event = value;
        else if (name === "id") id = value;
      }
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    cancel();
  }
}
