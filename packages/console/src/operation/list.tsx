import type { Operation, RunState } from "../../../cellplane/src/workflow/model.ts";
import { Mark } from "../draw/mark.tsx";
import { formatAgo } from "../draw/number.ts";
import type { Status } from "../draw/status.ts";
import { useNow } from "../live/clock.ts";
import { isInWork } from "../live/fleet.ts";

/** The shape that says how an operation stands; the word beside it is its state. */
const marks: Record<RunState, Status> = {
  pending: "unknown", running: "provisioning", waiting: "provisioning", paused: "cordoned", parked: "cordoned", undoing: "draining",
  succeeded: "up", failed: "failed", undone: "retired", undo_failed: "failed",
};

/** Operations with how far each is, or how it ended. */
export function OperationList({ operations, select }: { operations: readonly Operation[]; select?: (cell: string) => void }) {
  const nowMs = useNow(5000);
  return (
    <ul className="operations">
      {operations.map((operation) => {
        const cell = operation.subject.startsWith("cell/") ? operation.subject.slice("cell/".length) : null;
        return (
          <li key={operation.id} className={`operation operation-${operation.state}`}>
            <Mark sign={marks[operation.state]} />
            <span className="operation-what">
              {operation.workflow}{" "}
              {select && (cell ? <button type="button" className="text-button" onClick={() => select(cell)}>{cell}</button> : operation.subject)}
            </span>
            <span className="operation-state">{operation.state.replace("_", " ")}</span>
            {isInWork(operation) && <progress max={1} value={operation.ratio} aria-label={`${operation.workflow} progress`} />}
            <span className="operation-message">{operation.error?.message ?? operation.waitsFor ?? (operation.message || operation.step) ?? ""}</span>
            <span className="operation-at" title={operation.id}>{formatAgo(nowMs - Date.parse(operation.finishedAt ?? operation.createdAt))}</span>
          </li>
        );
      })}
    </ul>
  );
}
