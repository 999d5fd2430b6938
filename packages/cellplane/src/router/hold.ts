import type { Decision } from "../routing/model.ts";
import type { Limits } from "./config.ts";

/** A request that waits for its tenant's route to change. Its body is not read meanwhile. */
export interface Waiting {
  readonly tenant: string;
  /** The entry it cannot go by: on hold, or refused by the cell as stale. */
  readonly entry: number;
  release(decision: Decision): void;
}

/**
 * Who waits, by tenant and in the order of arrival. Released when the route changes, not by polling, some at a time so
 * that the new cell is not met by all at once.
 */
export class Holds {
  readonly #limits: Limits;
  readonly #decide: (tenant: string) => Decision;
  readonly #lines = new Map<string, Waiting[]>();
  #total = 0;

  constructor(limits: Limits, decide: (tenant: string) => Decision) {
    this.#limits = limits;
    this.#decide = decide;
  }

  get waiting(): number {
    return this.#total;
  }

  /** @returns false when too many wait already */
  add(waiting: Waiting): boolean {
    const line = this.#lines.get(waiting.tenant);
    if (this.#total >= this.#limits.holdTotalMax || (line?.length ?? 0) >= this.#limits.holdMax) return false;
    if (line) line.push(waiting);
    else this.#lines.set(waiting.tenant, [waiting]);
    this.#total++;
    return true;
  }

  remove(waiting: Waiting): void {
    const line = this.#lines.get(waiting.tenant);
    const at = line?.indexOf(waiting) ?? -1;
    if (!line || at < 0) return;
    line.splice(at, 1);
    this.#total--;
    if (line.length === 0) this.#lines.delete(waiting.tenant);
  }

  /** The table has changed. */
  check(): void {
    for (const tenant of this.#lines.keys()) this.#release(tenant);
  }

  #release(tenant: string): void {
    const line = this.#lines.get(tenant);
    if (!line) return;
    const decision = this.#decide(tenant);
    const free = line.filter((waiting) => decision.kind === "refuse" || (decision.state !== "hold" && decision.entry !== waiting.entry)).slice(0, this.#limits.holdRelease);
    if (free.length === 0) return;
    for (const waiting of free) this.remove(waiting);
    for (const waiting of free) waiting.release(decision);
    setImmediate(() => this.#release(tenant));
  }
}
