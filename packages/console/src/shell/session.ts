import { tokenIn } from "./address.ts";

const place = "cellplane.token";

/** The token of this tab: from the fragment `#token=…`, which is taken out of the URL at once, else from the tab's session. */
export function takeToken(): string | null {
  const given = tokenIn(location.hash);
  if (given) {
    history.replaceState(null, "", "#/map");
    keepToken(given);
  }
  return sessionStorage.getItem(place);
}

/** Kept for the tab only: it outlives a reload, not the tab. */
export const keepToken = (token: string): void => sessionStorage.setItem(place, token);
export const forgetToken = (): void => sessionStorage.removeItem(place);
