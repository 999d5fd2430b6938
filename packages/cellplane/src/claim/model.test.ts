import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ClaimValue, normalised } from "./model.ts";

describe("values", () => {
  test("C5: spellings that people take for one are one", () => {
    for (const [one, other] of [["Straße", "STRASSE".replace("SS", "ß")], ["ＡＣＭＥ", "acme"], ["ﬁx", "FIX"], ["É", "e\u0301"], ["K", "\u212a"]]) expect(normalised(one ?? "")).toBe(normalised(other ?? ""));
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(normalised(normalised(text))).toBe(normalised(text));
      }),
    );
  });
  test.each([
    { kind: "login", value: "" }, { kind: "login", value: "a\u0000" }, { kind: "login", value: "a\u200bb" }, { kind: "login", value: "\u202eab" }, { kind: "login", value: " a" }, { kind: "login", value: "a  b" }, { kind: "login", value: "a\n" },
    { kind: "login", value: "x".repeat(321) }, { kind: "Login", value: "a" }, { kind: "email", value: "a" }, { kind: "email", value: "a@b" }, { kind: "email", value: "a@b@c.d" }, { kind: "email", value: "a b@c.example" },
  ])("%j is none", (claim) => expect(ClaimValue.safeParse(claim).success).toBe(false));
  test("a name may have spaces within", () => expect(ClaimValue.safeParse({ kind: "company", value: "Müller & Söhne" }).success).toBe(true));
});
