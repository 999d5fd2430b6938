/** A broken promise of our own code. Nothing may catch, retry or undo it: the process reports it and stops. */
export class AssertionFailure extends Error {
  override name = "AssertionFailure";
}

/** States what must hold here. `what` is a sentence that is true when all is well. */
export function assert(holds: unknown, what: string): asserts holds {
  if (!holds) throw new AssertionFailure(`this does not hold: ${what}`);
}

/** For the branch a type says cannot be reached. */
export function unreachable(value: never): never {
  throw new AssertionFailure(`unexpected case: ${JSON.stringify(value)}`);
}
