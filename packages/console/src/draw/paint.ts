import { useEffect, useMemo, useState } from "react";

/** The colour (or font) a custom property holds in the theme of the moment, for what is painted rather than styled. */
export type Paint = (token: string) => string;

/** A new function whenever the theme changes, so that what was painted is painted again. */
export function usePaint(): Paint {
  const [theme, setTheme] = useState(0);
  useEffect(() => {
    const observer = new MutationObserver(() => setTheme((count) => count + 1));
    observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => observer.disconnect();
  }, []);
  return useMemo(() => {
    const style = getComputedStyle(document.documentElement);
    const known = new Map<string, string>();
    return (token) => {
      const value = known.get(token) ?? style.getPropertyValue(`--${token}`).trim();
      known.set(token, value);
      return value;
    };
    // oxlint-disable-next-line react/exhaustive-deps
  }, [theme]);
}
