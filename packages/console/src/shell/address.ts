/**
 * What is looked at, as the fragment of the URL holds it, so that a link shows a colleague the same: `#/map?cell=eu-1&filter=status:down`.
 * A fragment is never sent to a server, needs no rewriting by one, and leaves relative paths alone.
 */
export interface Address {
  page: string;
  /** Parameters that differ from their defaults. */
  search: Readonly<Record<string, string>>;
}

/** Reads a fragment with or without "#"; what makes no sense is the first page. */
export function parseAddress(hash: string): Address {
  const match = /^#?\/([a-z-]+)(?:\?(.*))?$/.exec(hash);
  return { page: match?.[1] ?? "map", search: Object.fromEntries(new URLSearchParams(match?.[2] ?? "")) };
}

/** The fragment with "#"; parameters in the order of their names, and colons and slashes left readable. */
export function formatAddress({ page, search }: Address): string {
  const pairs = Object.entries(search)
    .filter(([, value]) => value !== "")
    .sort(([a], [b]) => (a < b ? -1 : 1));
  const query = new URLSearchParams(pairs).toString().replaceAll("%3A", ":").replaceAll("%2F", "/");
  return `#/${page}${query && `?${query}`}`;
}

/** The token in a fragment `#token=…`, as printed at the start of a fleet; null when there is none. */
export const tokenIn = (hash: string): string | null => (hash.startsWith("#token=") ? new URLSearchParams(hash.slice(1)).get("token") : null);
