import { useEffect, useState } from "react";

export const themes = ["system", "light", "dark"] as const;
export type Theme = (typeof themes)[number];

const place = "cellplane.theme";

/** The theme chosen, kept for the next visit. The document always says which of both it is drawn in, so that styles need one rule for it. */
export function useTheme(): [Theme, (theme: Theme) => void] {
  const [theme, setTheme] = useState<Theme>(() => themes.find((known) => known === localStorage.getItem(place)) ?? "system");
  useEffect(() => {
    localStorage.setItem(place, theme);
    const system = matchMedia("(prefers-color-scheme: dark)");
    const apply = (): void => void (document.documentElement.dataset["theme"] = theme === "dark" || (theme === "system" && system.matches) ? "dark" : "light");
    apply();
    system.addEventListener("change", apply);
    return () => system.removeEventListener("change", apply);
  }, [theme]);
  return [theme, setTheme];
}
