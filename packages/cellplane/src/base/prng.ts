/** A seeded generator of uniform numbers in [0, 1): the same seed, the same sequence, on every machine. */
export type Prng = () => number;

/** sfc32 (Chris Doty-Humphrey, PractRand): small, fast, passes BigCrush. Not for secrets. */
export function prng(seed: number): Prng {
  let a = 0x9e3779b9;
  let b = 0x243f6a88;
  let c = seed >>> 0;
  let counter = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 2 ** 32;
  };
  for (let warm = 0; warm < 12; warm++) next();
  return next;
}

/** FNV-1a over the UTF-16 code units: a stable 32-bit number for tie-breaks and seeds. Not for secrets, not for untrusted keys. */
export function stableHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
