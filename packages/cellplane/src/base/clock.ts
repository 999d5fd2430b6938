/** Time as a value handed in, so that plans stay pure and the simulator owns the clock. Milliseconds since the Unix epoch. */
export interface Clock {
  nowMs(): number;
}

// The one place where pure code meets the real clock.
// oxlint-disable-next-line no-restricted-globals
export const systemClock: Clock = { nowMs: () => Date.now() };
