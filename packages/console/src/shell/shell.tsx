import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Caller } from "../../../cellplane/src/http/contract.ts";
import { Icon } from "../draw/icon.tsx";
import { client, type Problem } from "../live/client.ts";
import { liveFleet, type LiveFleet } from "../live/fleet.ts";
import { LiveContext } from "../live/live.tsx";
import { KeysHelp } from "./help.tsx";
import { useKeys } from "./keys.ts";
import { useAddress } from "./location.ts";
import { Login } from "./login.tsx";
import { pages } from "./pages.ts";
import { forgetToken, keepToken, takeToken } from "./session.ts";
import { themes, useTheme } from "./theme.ts";

/** The control plane serves the console one folder below its own root. */
const apiBase = new URL("../", document.baseURI).href;

/** Holds what outlives a page: who is there, the connection, the rail. */
export function Shell() {
  const [token, setToken] = useState(takeToken);
  const [refusal, setRefusal] = useState<Problem | null>(null);
  const leave = useCallback((problem: Problem | null) => {
    forgetToken();
    setToken(null);
    setRefusal(problem);
  }, []);
  if (token === null) {
    const enter = (given: string): void => {
      keepToken(given);
      setRefusal(null);
      setToken(given);
    };
    return <Login refusal={refusal} enter={enter} tryToken={(given) => client(apiBase, given).get("v1/whoami")} />;
  }
  return <Inside key={token} token={token} leave={leave} />;
}

function Inside({ token, leave }: { token: string; leave: (problem: Problem | null) => void }) {
  const api = useMemo(() => client(apiBase, token), [token]);
  const [fleet, setFleet] = useState<LiveFleet | null>(null);
  const [caller, setCaller] = useState<Caller | null>(null);
  useEffect(() => {
    const started = liveFleet(api, { expired: leave });
    // In an effect, since it holds a connection that must be closed again.
    // oxlint-disable-next-line react/react-compiler
    setFleet(started);
    // Who it is matters to what may be done; the picture does not wait for it.
    api.get<Caller>("v1/whoami").then(setCaller, () => {});
    const changed = (): void => started.retry();
    addEventListener("online", changed);
    addEventListener("offline", changed);
    return () => {
      removeEventListener("online", changed);
      removeEventListener("offline", changed);
      started.stop();
    };
  }, [api, leave]);

  const [{ page, search }, go] = useAddress();
  const [theme, setTheme] = useTheme();
  const help = useRef<HTMLDialogElement>(null);
  useKeys({ "?": () => help.current?.showModal() });
  const live = useMemo(() => (fleet ? { client: api, fleet, caller } : null), [api, fleet, caller]);
  const { Page, title } = pages.find(({ id }) => id === page) ?? (pages[0] as (typeof pages)[number]);
  const nextTheme = themes[(themes.indexOf(theme) + 1) % themes.length] ?? "system";
  useEffect(() => {
    document.title = `${title} · Cellplane`;
  }, [title]);
  if (!live) return null;
  return (
    <LiveContext value={live}>
      <div className="shell">
        <nav className="rail" aria-label="Pages">
          <img className="logo" src="./cellplane.svg" alt="Cellplane" width="28" height="28" />
          {pages.map(({ id, title, icon }) => (
            <a key={id} href={`#/${id}`} className="rail-item" aria-current={id === page ? "page" : undefined}>
              <Icon name={icon} />
              {title}
            </a>
          ))}
          <span className="rail-space" />
          <button type="button" className="rail-item" onClick={() => setTheme(nextTheme)} title={`Theme: ${theme}; change to ${nextTheme}`}>
            <Icon name={theme === "light" ? "sun" : theme === "dark" ? "moon" : "system"} />
            {theme === "system" ? "Auto" : theme === "light" ? "Light" : "Dark"}
          </button>
          <button type="button" className="rail-item" onClick={() => help.current?.showModal()} title="Keys (?)">
            <Icon name="keys" />
            Keys
          </button>
          <button type="button" className="rail-item" onClick={() => leave(null)} title={`${caller ? `${caller.name}, ${caller.role}: ` : ""}forget the token of this tab`}>
            <Icon name="leave" />
            Sign out
          </button>
        </nav>
        <Page search={search} go={go} />
      </div>
      <KeysHelp ref={help} />
    </LiveContext>
  );
}
