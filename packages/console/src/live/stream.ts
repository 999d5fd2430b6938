import { Refused, type Problem } from "./client.ts";
import { messageReader, type Message } from "./sse.ts";

export interface StreamOptions {
  /** Opens the stream after the event with this id; "" is "from now on". */
  open(cursor: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>>;
  /** It follows again. `resumed` is false when events may lie between what is known and what will come, so everything must be read again. */
  onOpen(resumed: boolean): void;
  /** Those with data only. */
  onMessage(message: Message): void;
  onLost(problem: Problem, retryInMs: number): void;
  random?: () => number;
  /** Longest time without a byte before the stream counts as dead; the server sends a comment every 15 s. */
  silenceMaxMs?: number;
}

export interface Stream {
  /** Connects anew at once, whether it waits for the next attempt or only believes itself connected. */
  retry(): void;
  stop(): void;
}

export const firstDelayMs = 500;
export const delayMaxMs = 10_000;

/** Half of a doubling delay is random, so that a hundred consoles do not all come back in one instant. */
export const delayMs = (attempt: number, random: number): number => Math.min(delayMaxMs, firstDelayMs * 2 ** attempt) * (0.5 + random / 2);

/** Longest time until the stream's head comes. */
const headMaxMs = 10_000;
/** A server ends a stream now and then, to check the token anew; after so long that is no failure, and the next one is opened silently. */
const regularEndMs = 5000;

const ended: Problem = { status: 0, code: "stream_ended", message: "The event stream ended.", fix: "It is opened again by itself.", trace: null };

/** Follows an event stream for good: reconnects when it is lost and resumes after the last event seen. */
export function follow({ open, onOpen, onMessage, onLost, random = Math.random, silenceMaxMs = 40_000 }: StreamOptions): Stream {
  let stopped = false;
  let cursor = "";
  let failures = 0;
  /** Ends whatever is waited for: an answer, the next bytes, the next attempt. */
  let wake = (): void => {};

  /** @returns why it ended, and whether it had been open for a while and was ended by the other side */
  async function once(): Promise<{ problem: Problem; regular: boolean }> {
    const gone = new AbortController();
    wake = () => gone.abort();
    let timer = setTimeout(wake, headMaxMs);
    let openedAtMs = Infinity;
    const end = (problem: Problem) => ({ problem, regular: !gone.signal.aborted && performance.now() - openedAtMs > regularEndMs });
    try {
      const reader = (await open(cursor, gone.signal)).getReader();
      gone.signal.addEventListener("abort", () => void reader.cancel().catch(() => {}), { once: true });
      openedAtMs = performance.now();
      failures = 0;
      onOpen(cursor !== "");
      const read = messageReader();
      const decoder = new TextDecoder();
      for (;;) {
        clearTimeout(timer);
        timer = setTimeout(wake, silenceMaxMs);
        const { done, value } = await reader.read();
        if (done) return end(ended);
        for (const message of read(decoder.decode(value, { stream: true }))) {
          if (message.id) cursor = message.id;
          // What followed our cursor is no longer kept.
          if (message.event === "reset") onOpen(false);
          else if (message.event !== "hello" && message.data !== "") onMessage(message);
        }
      }
    } catch (error) {
      return end(error instanceof Refused ? error.problem : ended);
    } finally {
      clearTimeout(timer);
    }
  }

  async function run(): Promise<void> {
    while (!stopped) {
      const { problem, regular } = await once();
      if (stopped) return;
      if (regular) continue;
      // A cursor the server can't read (its database is another one now): begin anew, which reads everything again.
      if (problem.status === 400) cursor = "";
      const waitMs = delayMs(failures++, random());
      onLost(problem, waitMs);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
  void run();
  return {
    retry: () => wake(),
    stop: () => {
      stopped = true;
      wake();
    },
  };
}
