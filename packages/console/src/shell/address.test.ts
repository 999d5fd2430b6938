import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatAddress, parseAddress, tokenIn } from "./address.ts";

describe("C5: the fragment", () => {
  test("is short and readable", () => {
    expect(formatAddress({ page: "map", search: { view: "", filter: "status:down region:eu", cell: "eu-1" } })).toBe("#/map?cell=eu-1&filter=status:down+region:eu");
    expect(formatAddress({ page: "map", search: {} })).toBe("#/map");
  });

  test("gives back what was put in", () => {
    const search = fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), fc.string({ minLength: 1, unit: "grapheme" }));
    fc.assert(fc.property(fc.stringMatching(/^[a-z-]{1,10}$/), search, (page, search) => {
      expect(parseAddress(formatAddress({ page, search }))).toEqual({ page, search });
    }));
  });

  test.each(["", "#", "#nonsense", "#token=x", "#/"])("%j is the map", (hash) => expect(parseAddress(hash)).toEqual({ page: "map", search: {} }));

  test("a token is one only where it was printed", () => {
    expect(tokenIn("#token=cp_abc%2B1")).toBe("cp_abc+1");
    expect(tokenIn("#/map?token=x")).toBeNull();
  });
});
