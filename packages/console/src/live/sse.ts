/** One message of an event stream. */
export interface Message {
  /** The id in force, which an earlier message may have set; "" before the first. */
  id: string;
  event: string;
  /** "" for messages that only move the id: they say that all is well, and from where to resume. */
  data: string;
}

/**
 * Reads an event stream (WHATWG HTML §9.2.6) from chunks of text cut anywhere. EventSource itself can't send the Authorization header, and not
 * every browser can loop over a stream yet, so this takes text and gives messages. `retry` fields are ignored: how long to wait is decided in stream.ts.
 */
export function messageReader(): (chunk: string) => Message[] {
  let rest = "";
  let started = false;
  let [id, event, data] = ["", "", [] as string[]];

  const line = (text: string): Message | null => {
    if (text === "") {
      const message = { id, event: event || "message", data: data.join("\n") };
      [event, data] = ["", []];
      return message;
    }
    const colon = text.indexOf(":");
    const field = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? "" : text.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "event") event = value;
    else if (field === "id" && !value.includes("\0")) id = value;
    return null;
  };

  return (chunk) => {
    rest += chunk;
    if (!started && rest !== "") {
      started = true;
      rest = rest.replace(/^\uFEFF/, "");
    }
    const messages: Message[] = [];
    for (;;) {
      const end = rest.search(/[\r\n]/);
      // A CR at the very end may be the first half of CR LF.
      if (end < 0 || (end === rest.length - 1 && rest[end] === "\r")) return messages;
      const message = line(rest.slice(0, end));
      rest = rest.slice(end + (rest.startsWith("\r\n", end) ? 2 : 1));
      if (message) messages.push(message);
    }
  };
}
