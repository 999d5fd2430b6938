/** Public ids: a prefix that names the kind and 20 characters of Crockford's base 32, the first 9 of them the time in ms, so ids sort by age. */

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";

/**
 * @param prefix the kind, as in "op" for an operation
 * @param nowMs milliseconds since the Unix epoch
 * @param random a source of uniform numbers in [0, 1)
 */
export function newId(prefix: string, nowMs: number, random: () => number): string {
  let time = "";
  for (let rest = Math.floor(nowMs), i = 0; i < 9; i++, rest = Math.floor(rest / 32)) time = alphabet.charAt(rest % 32) + time;
  let tail = "";
  for (let i = 0; i < 11; i++) tail += alphabet.charAt(Math.floor(random() * 32));
  return `${prefix}-${time}${tail}`;
}
