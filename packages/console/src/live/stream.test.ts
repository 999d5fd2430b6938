import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Refused } from "./client.ts";
import { delayMaxMs, delayMs, firstDelayMs, follow, type StreamOptions } from "./stream.ts";

/** A server under the test's hand: `cursors` are what it was asked to resume after. */
function scripted(options: Partial<StreamOptions> = {}) {
  const cursors: string[] = [];
  const opened: boolean[] = [];
  const messages: string[] = [];
  const lost: number[] = [];
  const bodies: ReadableStreamDefaultController<Uint8Array>[] = [];
  let refusal: Refused | null = null;
  const stream = follow({
    open: async (cursor) => {
      cursors.push(cursor);
      if (refusal) throw refusal;
      return new ReadableStream<Uint8Array>({ start: (controller) => void bodies.push(controller) });
    },
    onOpen: (resumed) => void opened.push(resumed),
    onMessage: (message) => void messages.push(message.data),
    onLost: (_, retryInMs) => void lost.push(retryInMs),
    random: () => 1,
    ...options,
  });
  return {
    stream, cursors, opened, messages, lost,
    send: (text: string) => bodies.at(-1)?.enqueue(new TextEncoder().encode(text)),
    end: () => bodies.at(-1)?.close(),
    refuse: (status: number | null) => void (refusal = status === null ? null : new Refused({ status, code: "x", message: "", fix: "", trace: null })),
  };
}

const settle = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

describe("C2: following the event stream", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
  afterEach(() => void vi.useRealTimers());

  test("resumes after the last id, also one that came without an event", async () => {
    const { stream, cursors, opened, messages, lost, send, end } = scripted();
    await settle();
    send("event: hello\nid: 1.0\ndata: {}\n\nid: 1.1\ndata: a\n\nid: 1.5\n\n");
    await settle();
    end();
    await settle();
    expect(messages).toEqual(["a"]);
    expect(lost).toEqual([firstDelayMs]);
    await settle(firstDelayMs);
    expect(cursors).toEqual(["", "1.5"]);
    expect(opened).toEqual([false, true]);
    stream.stop();
  });

  test("reads everything again when the server says reset, or does not know the cursor", async () => {
    const { stream, cursors, opened, send, end, refuse } = scripted();
    await settle();
    send("event: reset\nid: 2.0\ndata: {}\n\n");
    await settle();
    expect(opened).toEqual([false, false]);
    end();
    refuse(400);
    await settle(firstDelayMs);
    refuse(null);
    await settle(delayMaxMs);
    expect(cursors).toEqual(["", "2.0", ""]);
    expect(opened).toEqual([false, false, false]);
    stream.stop();
  });

  test("a stream that the server ends in due time is opened again without a word", async () => {
    const { stream, cursors, lost, end } = scripted();
    await settle(6000);
    end();
    await settle();
    expect(cursors).toHaveLength(2);
    expect(lost).toEqual([]);
    stream.stop();
  });

  test("silence counts as lost", async () => {
    const { stream, lost, send } = scripted({ silenceMaxMs: 1000 });
    await settle(900);
    send(": beat\n\n");
    await settle(900);
    expect(lost).toEqual([]);
    await settle(200);
    expect(lost).toHaveLength(1);
    stream.stop();
  });

  test("waits longer and longer between attempts, at once when asked to, and not at all once stopped", async () => {
    const { stream, cursors, lost, refuse } = scripted();
    refuse(503);
    await settle(60_000);
    // The first stream was opened before it could be refused, and counts as lost by its silence.
    expect(lost.slice(0, 6)).toEqual([500, 1000, 2000, 4000, 8000, delayMaxMs]);
    const before = cursors.length;
    stream.retry();
    await settle();
    expect(cursors).toHaveLength(before + 1);
    stream.stop();
    await settle(delayMaxMs * 2);
    expect(cursors).toHaveLength(before + 1);
  });

  test("the delay doubles up to its maximum, and half of it is chance", () => {
    expect([0, 1, 2, 10].map((attempt) => delayMs(attempt, 1))).toEqual([500, 1000, 2000, delayMaxMs]);
    expect(delayMs(3, 0)).toBe(delayMs(3, 1) / 2);
  });
});
