import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { messageReader } from "./sse.ts";

describe("C2: the reader of the event stream", () => {
  test("reads ids, events and data, and lets go what is a comment", () => {
    const read = messageReader();
    expect(read("\uFEFF: hello\n\nid: 700.1\nevent: cell\ndata: {\ndata: }\n\n")).toEqual([
      { id: "", event: "message", data: "" },
      { id: "700.1", event: "cell", data: "{\n}" },
    ]);
  });

  test("an id alone moves the place to resume from", () => {
    expect(messageReader()("id: 700.9\n\n")).toEqual([{ id: "700.9", event: "message", data: "" }]);
  });

  test("the id stays in force, the event's name does not; an id with NUL is none", () => {
    expect(messageReader()("id: 1\nevent: a\ndata\n\nid: 2\0\ndata:b\n\n")).toEqual([
      { id: "1", event: "a", data: "" },
      { id: "1", event: "message", data: "b" },
    ]);
  });

  test("the same text gives the same messages however it is cut, with any line end", () => {
    const line = fc.oneof(fc.constantFrom("", "id: 1.2", ": beat", "event: x", "data: ä {}", "data:", "retry: 9", "nonsense"), fc.string({ maxLength: 6 }).filter((text) => !/[\r\n\uFEFF]/.test(text)));
    const stream = fc.array(fc.tuple(line, fc.constantFrom("\n", "\r\n", "\r")), { maxLength: 20 }).map((lines) => lines.map(([text, end]) => text + end).join(""));
    fc.assert(
      fc.property(stream, fc.array(fc.nat({ max: 120 }), { maxLength: 8 }), (text, cuts) => {
        // A final CR waits for what follows, so both get a line that means nothing.
        const whole = `${text}: end\n`;
        const places = [0, ...cuts.map((cut) => cut % (whole.length + 1)), whole.length].sort((a, b) => a - b);
        const read = messageReader();
        const inPieces = places.slice(1).flatMap((to, i) => read(whole.slice(places[i], to)));
        expect(inPieces).toEqual(messageReader()(whole));
      }),
    );
  });
});
