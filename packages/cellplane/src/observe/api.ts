import { z } from "zod";
import { fail } from "../base/errors.ts";
import { endpoint, type Handler, handler, page, PageQuery, type RawHandler } from "../http/contract.ts";
import { beginSse } from "../http/sse.ts";
import { check } from "../http/validate.ts";
import type { LiveEvents, Message } from "./live.ts";
import { type Cursor, type EventFilter, EventItem, parseCursor } from "./model.ts";
import type { EventStore } from "./store.ts";

const filterQuery = z.object({
  /** Beginnings of kinds, separated by commas, as in "cell.,tenant.created". */
  kinds: z.string().max(500).optional(),
  /** As in "cell/eu-1"; with a "/" at its end, all below it. */
  subject: z.string().max(500).optional(),
});

export const listEvents = endpoint({
  id: "listEvents", method: "GET", path: "/v1/events", role: "viewer", summary: "What happened, newest first; or a stream of it",
  description:
    "With `accept: text/event-stream` the answer is a stream that never ends by itself. Each message's data is one item as listed here. " +
    "A client that comes back with `Last-Event-ID` (or `?after=`) misses nothing; an `event: reset` says that the events since then are no longer kept. " +
    "An `event: hello` comes first, with the place the stream starts from as its id.",
  query: PageQuery.extend(filterQuery.shape),
  returns: page(EventItem),
});

/** `after` for those who cannot send Last-Event-ID at first. */
const streamQuery = filterQuery.extend({ after: z.string().optional() }).strict();

const asFilter = ({ kinds, subject }: z.infer<typeof filterQuery>): EventFilter => ({ kinds: kinds?.split(",").filter(Boolean) ?? [], subject: subject ?? null });

function cursorIn(path: string, text: string | null | undefined): Cursor | null {
  if (!text) return null;
  const cursor = parseCursor(text);
  if (!cursor) throw fail("invalid_input", { issues: [{ path, message: "not a cursor of the event log" }] });
  return cursor;
}

export const eventHandlers = ({ events }: { events: EventStore }): Handler[] => [
  handler(listEvents, async ({ query }) => {
    const items = await events.before(cursorIn("query.cursor", query.cursor), asFilter(query), query.limit + 1);
    const more = items.length > query.limit;
    if (more) items.pop();
    return { items, nextCursor: more ? (items.at(-1)?.cursor ?? null) : null };
  }),
];

export function eventStream({ live }: { live: LiveEvents }): RawHandler {
  /** The same event goes to many clients, so its text is made once. */
  const encoded = new WeakMap<EventItem, string>();
  function encode(message: Message): string {
    if (message.kind === "beat") return `id: ${message.cursor}\n\n`;
    if (message.kind === "hello") return `retry: 1000\nevent: ${message.reset ? "reset" : "hello"}\nid: ${message.cursor}\ndata: {}\n\n`;
    const text = encoded.get(message.event) ?? `id: ${message.event.cursor}\ndata: ${JSON.stringify(message.event)}\n\n`;
    encoded.set(message.event, text);
    return text;
  }
  return {
    method: "GET", path: "/v1/events", role: "viewer", accept: "text/event-stream",
    async handle(request) {
      const query = check(streamQuery, Object.fromEntries(new URL(request.url).searchParams), "query");
      const after = cursorIn("header.last-event-id", request.headers.get("last-event-id")) ?? cursorIn("query.after", query.after);
      const filter = asFilter(query);
      return beginSse((signal) => live.follow({ after, filter, signal }), encode, request.signal);
    },
  };
}
