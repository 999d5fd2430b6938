/** From this share of its capacity on a cell takes attention. */
export const nearlyFull = 0.9;

export type Level = "fine" | "high" | "over";
export const levelOf = (ratio: number): Level => (ratio >= 1 ? "over" : ratio >= nearlyFull ? "high" : "fine");
