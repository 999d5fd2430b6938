import { expect, test } from "vitest";
import { prng } from "../base/prng.ts";
import { readSse, type SseMessage } from "./sse.ts";

/** The text in pieces of any size, also through the middle of a character. */
const inPieces = (text: string, random: () => number): ReadableStream<Uint8Array> => {
  let rest = new TextEncoder().encode(text);
  return new ReadableStream({
    pull(controller) {
      const size = 1 + Math.floor(random() * 7);
      if (rest.length === 0) return controller.close();
      controller.enqueue(rest.slice(0, size));
      rest = rest.slice(size);
    },
  });
};

async function all(body: ReadableStream<Uint8Array>, signal?: AbortSignal): Promise<SseMessage[]> {
  const messages: SseMessage[] = [];
  for await (const message of readSse(body, signal)) messages.push(message);
  return messages;
}

const seed = Date.now() % 1e9;
test(`messages are read whole, however they are cut (SEED=${seed})`, async () => {
  const random = prng(seed);
  const text = 'retry: 1000\nevent: hello\nid: 1.0\ndata: {}\n\n: a comment\n\nid: 2.7\ndata: {"é":"後"}\n\nid: 3.0\n\ndata: two\r\ndata: lines\r\n\r\ndata: cut off';
  for (let i = 0; i < 50; i++) {
    expect((await all(inPieces(text, random))).filter((message) => message.data || message.id !== "1.0")).toEqual([
      { event: "hello", id: "1.0", data: "{}" },
      { event: "message", id: "2.7", data: '{"é":"後"}' },
      { event: "message", id: "3.0", data: "" },
      { event: "message", id: "3.0", data: "two\nlines" },
    ]);
  }
});

test("H11: a stream that says nothing ends with the signal, and its source is told", async () => {
  const stop = new AbortController();
  let cancelled = false;
  const silent = new ReadableStream<Uint8Array>({ cancel: () => void (cancelled = true) });
  const reading = all(silent, stop.signal);
  stop.abort();
  expect([await reading, cancelled]).toEqual([[], true]);
});
