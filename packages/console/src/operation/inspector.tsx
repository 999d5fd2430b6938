import { Command } from "../draw/copy.tsx";
import { formatAgo, formatCount } from "../draw/number.ts";
import { Part } from "../draw/part.tsx";
import { useNow } from "../live/clock.ts";
import { isInWork } from "../live/fleet.ts";
import { useFleet } from "../live/live.tsx";
import { OperationList } from "./list.tsx";

const eventsShown = 20;
const finishedShown = 6;

/** What goes on in the fleet as a whole: shown while no cell is selected. `missing` names one that was selected and is not there. */
export function FleetInspector({ missing, select }: { missing: string | null; select: (cell: string) => void }) {
  const { operations, events } = useFleet();
  const nowMs = useNow(5000);
  const working = operations.filter(isInWork);
  const finished = operations.filter((operation) => !isInWork(operation)).slice(0, finishedShown);
  return (
    <aside className="inspector" aria-label="Activity">
      <header className="inspector-head">
        <h2>Activity</h2>
      </header>
      {missing && (
        <div className="problem" role="status">
          <p className="problem-what">There is no cell {missing}.</p>
          <p className="problem-fix">It may have been destroyed; the audit log knows.</p>
        </div>
      )}
      <Part title="In work" aside={working.length === 0 ? "nothing" : formatCount(working.length)}>
        {working.length > 0 && <OperationList operations={working} select={select} />}
      </Part>
      <Part title="Finished">
        {finished.length > 0 ? <OperationList operations={finished} select={select} /> : <p className="none">No operation yet.</p>}
        <Command text="cellplane operation list" />
      </Part>
      <Part title="Events">
        {events.length === 0 ? (
          <p className="none">Quiet so far.</p>
        ) : (
          <ol className="events">
            {events.slice(0, eventsShown).map((event, i) => (
              <li key={event.cursor || i}>
                <span className="event-at">{event.at && formatAgo(nowMs - Date.parse(event.at))}</span>
                <code>{event.kind}</code>
                <span className="event-subject">{event.subject}</span>
              </li>
            ))}
          </ol>
        )}
      </Part>
    </aside>
  );
}
