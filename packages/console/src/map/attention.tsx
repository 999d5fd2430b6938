import { useState, type Ref } from "react";
import { Icon } from "../draw/icon.tsx";
import { Mark } from "../draw/mark.tsx";
import { formatAgo, formatCount } from "../draw/number.ts";
import { useNow } from "../live/clock.ts";
import type { Concern } from "./concern.ts";

const shownFirst = 4;

/** What needs a person, worst first. It says so as well when nothing does. */
export function Attention({ ref, concerns, open }: { ref: Ref<HTMLElement>; concerns: readonly Concern[]; open: (concern: Concern) => void }) {
  const [all, setAll] = useState(false);
  const nowMs = useNow(5000);
  const shown = all ? concerns : concerns.slice(0, shownFirst);
  return (
    <section ref={ref} className="attention" aria-labelledby="attention-title">
      <h2 id="attention-title">
        Needs attention {concerns.length > 0 && <span className="count">{formatCount(concerns.length)}</span>}
      </h2>
      <div aria-live="polite">
        {concerns.length === 0 ? (
          <p className="calm"><Mark sign="up" /> Nothing. Every cell is as it should be.</p>
        ) : (
          <ul>
            {shown.map((concern) => (
              <li key={concern.id}>
                <button type="button" className={`concern concern-${concern.kind}`} onClick={() => open(concern)}>
                  <Mark sign={concern.sign} />
                  <strong>{concern.subject}</strong>
                  <span className="concern-text" title={concern.text}>{concern.text}</span>
                  <span className="concern-at">{concern.at && formatAgo(nowMs - Date.parse(concern.at))}</span>
                  <Icon name="next" />
                </button>
              </li>
            ))}
          </ul>
        )}
      </div>
      {concerns.length > shownFirst && (
        <button type="button" className="more" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? "Show fewer" : `${formatCount(concerns.length - shownFirst)} more`}
        </button>
      )}
    </section>
  );
}
