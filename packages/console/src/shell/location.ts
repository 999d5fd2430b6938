import { useCallback, useSyncExternalStore } from "react";
import { formatAddress, parseAddress, type Address } from "./address.ts";

/** Typing replaces the entry in the history; what a person would want to come back from (a selection, another page) adds one. */
type Go = (change: Readonly<Record<string, string>>, how?: "add" | "replace") => void;

/** What every page is given. */
export interface PageProps {
  /** Its parameters in the URL. */
  search: Readonly<Record<string, string>>;
  go: Go;
}

const subscribe = (changed: () => void): (() => void) => {
  addEventListener("hashchange", changed);
  addEventListener("popstate", changed);
  return () => {
    removeEventListener("hashchange", changed);
    removeEventListener("popstate", changed);
  };
};
const current = (): string => location.hash;

export function useAddress(): [Address, Go] {
  const address = parseAddress(useSyncExternalStore(subscribe, current));
  const go = useCallback<Go>((change, how = "replace") => {
    const { page, search } = parseAddress(current());
    const hash = formatAddress({ page, search: { ...search, ...change } });
    if (hash === current()) return;
    history[how === "add" ? "pushState" : "replaceState"](null, "", hash);
    // The history's methods change the URL silently.
    dispatchEvent(new PopStateEvent("popstate"));
  }, []);
  return [address, go];
}
