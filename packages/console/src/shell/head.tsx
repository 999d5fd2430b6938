import type { ReactNode } from "react";
import { formatAgo } from "../draw/number.ts";
import { useNow } from "../live/clock.ts";
import type { Link } from "../live/fleet.ts";
import { useFleet, useLive } from "../live/live.tsx";

/** The head of every page: its title, its tools, and whether what it shows is live. */
export function PageHead({ title, children }: { title: string; children: ReactNode }) {
  const { link } = useFleet();
  return (
    <>
      <header className="page-head">
        <h1>{title}</h1>
        {children}
        <LinkBadge state={link.state} />
      </header>
      {link.state === "lost" && <LostNote link={link} />}
    </>
  );
}

const words: Record<Link["state"], string> = { connecting: "Connecting", live: "Live", lost: "Not live" };

function LinkBadge({ state }: { state: Link["state"] }) {
  return (
    <span className={`link link-${state}`} role="status">
      <svg viewBox="0 0 12 12" aria-hidden>
        {state === "live" ? <circle cx="6" cy="6" r="4" /> : state === "lost" ? <path d="M2 2L10 10M10 2L2 10" /> : <circle className="link-ring" cx="6" cy="6" r="3.5" />}
      </svg>
      {words[state]}
    </span>
  );
}

function LostNote({ link }: { link: Link & { state: "lost" } }) {
  const nowMs = useNow(1000);
  const { fleet } = useLive();
  const inSeconds = Math.ceil((link.retryAtMs - nowMs) / 1000);
  return (
    <div className="lost" role="alert">
      <strong>The connection to the control plane is lost.</strong>
      <span>
        This is how the fleet looked {formatAgo(nowMs - link.sinceMs)}; cells go on serving meanwhile. {inSeconds > 0 ? `Next try in ${inSeconds} s.` : "Trying…"}
      </span>
      <button type="button" className="button" onClick={() => fleet.retry()}>Try now</button>
    </div>
  );
}
