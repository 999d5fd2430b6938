import { useEffect, useState, type FormEvent } from "react";
import type { Cell, CellDetail } from "../../../cellplane/src/cell/model.ts";
import { Bar } from "../draw/bar.tsx";
import { Command } from "../draw/copy.tsx";
import { Icon } from "../draw/icon.tsx";
import { StatusWord } from "../draw/mark.tsx";
import { dimensionWords, formatAgo, formatQuantity, formatRate, formatRatio, plural } from "../draw/number.ts";
import { Part } from "../draw/part.tsx";
import { ProblemNote } from "../draw/problem.tsx";
import { Sparkline } from "../draw/sparkline.tsx";
import { statusOf } from "../draw/status.ts";
import { asProblem, type Problem } from "../live/client.ts";
import { useNow } from "../live/clock.ts";
import type { Rates } from "../live/fleet.ts";
import { useFleet, useLive } from "../live/live.tsx";
import { useReading } from "../live/reading.ts";
import { OperationList } from "../operation/list.tsx";
import { TenantList } from "../tenant/list.tsx";
import { actionsOf, sharedRefusal, type CellAction } from "./actions.ts";
import { usesOf } from "./load.ts";

const rereadEveryMs = 10_000;

/** Everything about one cell that is needed to decide what to do with it: wanted against seen, room, who lives there, what is in work. */
export function CellInspector({ cell, rates, close }: { cell: Cell; rates: Rates | undefined; close: () => void }) {
  const { caller, fleet } = useLive();
  const { operations, link } = useFleet();
  const nowMs = useNow(1000);
  const detail = useReading<CellDetail>(`v1/cells/${encodeURIComponent(cell.name)}`, {}, `${cell.generation} ${cell.state} ${cell.used.tenants}`);
  // No event tells that a cell was looked at and found as before.
  useEffect(() => {
    const timer = setInterval(() => fleet.reread(cell.name), rereadEveryMs);
    return () => clearInterval(timer);
  }, [fleet, cell.name]);
  const own = operations.filter((operation) => operation.subject === `cell/${cell.name}`);
  const actions = actionsOf(cell, { detail: detail.value, caller, isLive: link.state === "live" });
  const shared = sharedRefusal(actions);
  return (
    <aside className="inspector" aria-label={`Cell ${cell.name}`}>
      <header className="inspector-head">
        <h2>{cell.name}</h2>
        <StatusWord status={statusOf(cell)} />
        <button type="button" className="icon-button" aria-label="Close" title="Close (Esc)" onClick={close}><Icon name="close" /></button>
      </header>
      <dl className="facts">
        <div><dt>Region</dt><dd>{cell.region}</dd></div>
        <div><dt>Version</dt><dd><code>{cell.version}</code></dd></div>
        <div><dt>Blueprint</dt><dd>{cell.blueprint}</dd></div>
        <div><dt>Class</dt><dd>{cell.class}</dd></div>
        <div><dt>State</dt><dd>{cell.state}</dd></div>
        <div><dt>Driver</dt><dd>{cell.driver}</dd></div>
        <div><dt>Generation</dt><dd>{cell.generation}</dd></div>
        <div><dt>From</dt><dd>{cell.origin}</dd></div>
        <div className="fact-wide"><dt>Endpoint</dt><dd>{cell.endpoint ? <code>{cell.endpoint}</code> : "none yet"}</dd></div>
      </dl>
      {rates && rates.length > 1 && (
        <Part title="Requests" aside={`${formatRate(rates.at(-1) ?? 0)}/s`}>
          <div className="inspector-rate"><Sparkline values={rates} /></div>
        </Part>
      )}
      <Part title="Health" aside={cell.health.observedAt ? `seen ${formatAgo(nowMs - Date.parse(cell.health.observedAt))}` : "not looked at yet"}>
        <ul className="checks">
          {cell.health.checks.map((check) => (
            <li key={check.name} className={check.ok ? "check-ok" : "check-broken"}>
              <Icon name={check.ok ? "check" : "close"} />
              <span>{check.name}</span>
              <span className="check-detail">{check.ok ? "well" : check.detail || "broken"}</span>
            </li>
          ))}
          {cell.health.checks.length === 0 && <li className="none">No check has reported.</li>}
        </ul>
      </Part>
      <Part title="Capacity">
        <ul className="uses">
          {usesOf(cell).map(({ dimension, used, capacity, ratio }) => (
            <li key={dimension}>
              <span>{dimensionWords[dimension]}</span>
              <span className="use-figures">{formatQuantity(dimension, used)}{capacity === null ? ", no limit" : ` of ${formatQuantity(dimension, capacity)}`}</span>
              {ratio !== null && <Bar ratio={ratio} label={dimensionWords[dimension]} />}
              {ratio !== null && <span className="use-ratio">{formatRatio(ratio)}</span>}
            </li>
          ))}
          {usesOf(cell).length === 0 && <li className="none">Nothing is limited.</li>}
        </ul>
      </Part>
      <Part title="Drift" aside={cell.drift.length === 0 ? "as specified" : plural(cell.drift.length, "difference")}>
        {cell.drift.length > 0 && (
          <table className="drift">
            <thead><tr><th scope="col">Path</th><th scope="col">Spec</th><th scope="col">Observed</th></tr></thead>
            <tbody>
              {cell.drift.map(({ path, expected, actual }) => (
                <tr key={path}>
                  <th scope="row"><code>{path}</code></th>
                  <td><code>{expected === undefined ? "–" : JSON.stringify(expected)}</code></td>
                  <td><code>{actual === undefined ? "–" : JSON.stringify(actual)}</code></td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Part>
      <Part title="Actions">
        {shared && <p className="refusal" id="shared-refusal">{shared}</p>}
        <ul className="actions">
          {actions.map((action) => <Action key={action.verb} cell={cell} action={action} shared={shared !== null} />)}
        </ul>
      </Part>
      <Part title="Operations" aside={own.length === 0 ? "none" : ""}>
        {own.length > 0 && <OperationList operations={own.slice(0, 8)} />}
      </Part>
      <TenantList cell={cell.name} count={cell.used.tenants ?? 0} />
    </aside>
  );
}

function Action({ cell, action, shared }: { cell: Cell; action: CellAction; shared: boolean }) {
  const { client, fleet } = useLive();
  const [asking, setAsking] = useState(false);
  const [reason, setReason] = useState("");
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const send = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setSending(true);
    try {
      await client.post(`v1/cells/${encodeURIComponent(cell.name)}/${action.verb}`, {}, reason.trim());
      setAsking(false);
      setProblem(null);
    } catch (error) {
      setProblem(asProblem(error));
    }
    setSending(false);
    fleet.reread(cell.name);
  };
  const refusalId = shared ? "shared-refusal" : `${action.verb}-refusal`;
  return (
    <li className="action">
      <div className="action-head">
        {action.here ? (
          // aria-disabled, since a disabled button can't be reached, and its reason not be read.
          <button type="button" className="button" aria-disabled={action.refusal !== null} aria-describedby={action.refusal ? refusalId : undefined} aria-expanded={asking} onClick={() => setAsking(action.refusal === null && !asking)}>
            {action.verb}
          </button>
        ) : (
          <span className="action-verb">{action.verb}</span>
        )}
        <Command text={action.command} />
      </div>
      <p className="hint">{action.effect}</p>
      {action.refusal && !shared && <p className="refusal" id={refusalId}>{action.refusal}</p>}
      {asking && action.refusal === null && (
        <form className="ask" onSubmit={(event) => void send(event)}>
          <label>
            Reason, for the audit log
            <input autoFocus value={reason} maxLength={200} onChange={(event) => setReason(event.target.value)} />
          </label>
          <button type="submit" className="button button-main" disabled={sending}>{sending ? "Sending…" : `${action.verb} ${cell.name}`}</button>
          <button type="button" className="button" onClick={() => setAsking(false)}>Leave it</button>
        </form>
      )}
      {problem && <ProblemNote problem={problem} />}
    </li>
  );
}
