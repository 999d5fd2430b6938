import { z } from "zod";
import { Name } from "../../base/names.ts";
import { fail } from "../../base/errors.ts";
import { eventSink } from "../../observe/events.ts";
import { insertEvents } from "../../observe/store.ts";
import type { Tx } from "../../store/model.ts";
import type { Store } from "../../store/store.ts";
import { endpoint, type Handler, handler, page, PageQuery } from "../contract.ts";

/** The smallest noun there can be, for tests of the border. */
const Note = z.object({ name: Name, text: z.string(), generation: z.int().min(1) });
type Note = z.infer<typeof Note>;
const OneNote = z.object({ note: Name });

export const listNotes = endpoint({ id: "listNotes", method: "GET", path: "/v1/notes", role: "viewer", summary: "List notes", query: PageQuery, returns: page(Note) });
export const getNote = endpoint({ id: "getNote", method: "GET", path: "/v1/notes/{note}", role: "viewer", summary: "Show a note", params: OneNote, returns: Note });
export const createNote = endpoint({
  id: "createNote", method: "POST", path: "/v1/notes", role: "operator", summary: "Create a note", status: 201,
  body: z.strictObject({ name: Name, text: z.string().default(""), lines: z.array(z.object({ at: z.int() })).default([]) }), returns: Note,
});
export const updateNote = endpoint({ id: "updateNote", method: "PATCH", path: "/v1/notes/{note}", role: "operator", summary: "Change a note", params: OneNote, body: z.object({ text: z.string() }), returns: Note });
export const deleteNote = endpoint({ id: "deleteNote", method: "DELETE", path: "/v1/notes/{note}", role: "admin", summary: "Remove a note", params: OneNote, status: 204, returns: z.unknown() });
const postFeed = endpoint({ id: "ackFeed", method: "POST", path: "/v1/feed/acks", role: "router", summary: "Say how far a router is", body: z.object({ version: z.int() }), returns: z.object({ version: z.int() }) });

export const createNoteTable = "create table note (name text primary key, text text not null, generation int not null default 1)";

export function noteHandlers(store: Store): Handler[] {
  const events = eventSink(insertEvents);
  const one = async (at: Pick<Tx, "query">, name: string, sql = "select * from note where name = $1"): Promise<Note> => {
    const [note] = await at.query<Note>(sql, [name]);
    if (!note) throw fail("not_found", { what: "note", name });
    return note;
  };
  return [
    handler(listNotes, async ({ query }) => {
      const items = await store.query<Note>("select * from note where name > $1 order by name limit $2", [query.cursor ?? "", query.limit + 1]);
      const more = items.length > query.limit;
      if (more) items.pop();
      return { items, nextCursor: more ? (items.at(-1)?.name ?? null) : null };
    }),
    handler(getNote, ({ params }) => one(store, params.note)),
    handler(createNote, ({ body, mutate }) =>
      mutate(async (tx) => {
        const [note] = await tx.query<Note>("insert into note (name, text) values ($1, $2) on conflict do nothing returning *", [body.name, body.text]);
        if (!note) throw fail("already_exists", { what: "note", name: body.name });
        events.emit(tx, "note.created", `note/${body.name}`, { text: body.text });
        return note;
      }),
    ),
    handler(updateNote, ({ params, body, ifMatch, mutate }) =>
      mutate(async (tx) => {
        const note = await one(tx, params.note, "select * from note where name = $1 for update");
        if (ifMatch !== null && ifMatch !== note.generation) throw fail("generation_stale", { what: "note", name: note.name, expected: ifMatch, actual: note.generation });
        const [changed] = await tx.query<Note>("update note set text = $2, generation = generation + 1 where name = $1 and generation = $3 returning *", [note.name, body.text, note.generation]);
        if (!changed) throw new Error("the row was locked");
        return changed;
      }),
    ),
    handler(deleteNote, ({ params, mutate }) =>
      mutate(async (tx) => {
        await one(tx, params.note, "delete from note where name = $1 returning *");
        return null;
      }),
    ),
    handler(postFeed, async ({ body }) => body),
  ];
}
