import { useEffect, useRef } from "react";

/** Keys of a page and what they do; the shell lists them under `?`. Arrows are listed by their names. */
export type Keys = Readonly<Record<string, () => void>>;

/** Where keys have a meaning of their own. */
const inDialog = (target: EventTarget | null): boolean => target instanceof Element && target.closest("dialog") !== null;
const writes = (target: EventTarget | null): boolean => target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");

/** Listens to single keys on the whole page, but not while somebody writes (Escape is heard there too). */
export function useKeys(keys: Keys): void {
  const latest = useRef(keys);
  useEffect(() => {
    latest.current = keys;
  });
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || inDialog(event.target)) return;
      if (writes(event.target) && event.key !== "Escape") return;
      const act = Object.hasOwn(latest.current, event.key) ? latest.current[event.key] : undefined;
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}
