import type { Cell } from "../../../cellplane/src/cell/model.ts";

/** What a cell looks like from outside: what was decided about it (`state`) and what was seen (`health`) in one word. Worst first. */
export const statuses = ["down", "failed", "unknown", "draining", "cordoned", "empty", "provisioning", "up", "retired"] as const;
export type Status = (typeof statuses)[number];

export function statusOf({ state, health }: Pick<Cell, "state" | "health">): Status {
  switch (state) {
    case "failed":
      return "failed";
    case "requested":
    case "provisioning":
      return "provisioning";
    case "retired":
    case "destroyed":
      return "retired";
    case "active":
      return health.ok === null ? "unknown" : health.ok ? "up" : "down";
    case "cordoned":
    case "draining":
    case "empty":
      return health.ok === false ? "down" : state;
  }
}

/** What may be the matter with a cell beside its status. */
export type Sign = Status | "full" | "drift";

/** A shape for each in a square of 12, told apart without colour: outlines of what is filled by the even-odd rule. */
export const shapes: Record<Sign, string> = {
  up: "M6 1a5 5 0 1 1 0 10A5 5 0 1 1 6 1Z",
  down: "M3 .8 6 3.8 9 .8 11.2 3 8.2 6 11.2 9 9 11.2 6 8.2 3 11.2.8 9 3.8 6 .8 3Z",
  failed: "M6 .6 11.8 11.2H.2ZM5.2 4.4V7.6H6.8V4.4ZM5.2 8.5V10H6.8V8.5Z",
  unknown: "M6 1a5 5 0 1 1 0 10A5 5 0 1 1 6 1ZM6 3a3 3 0 1 0 0 6A3 3 0 1 0 6 3Z",
  provisioning: "M6 1a5 5 0 1 1 0 10A5 5 0 1 1 6 1ZM6 2.6a3.4 3.4 0 0 1 0 6.8Z",
  draining: "M.4 1.4H11.6L6 11.2Z",
  cordoned: "M1.4 1.2H4.8V10.8H1.4ZM7.2 1.2H10.6V10.8H7.2Z",
  empty: "M1.2 1.2H10.8V10.8H1.2ZM3 3V9H9V3Z",
  retired: "M1 4.9H11V7.1H1Z",
  full: "M1 8H3.6V11H1ZM4.7 5H7.3V11H4.7ZM8.4 1H11V11H8.4Z",
  drift: "M1 3H7.2L8.4 .6 10.2 1.5 9.4 3H11V5.2H8.3L7.5 6.8H11V9H6.4L5.3 11.2 3.5 10.3 4.1 9H1V6.8H5.2L6 5.2H1Z",
};
