import { shapes, type Sign, type Status } from "./status.ts";

/** A status, or what is the matter, as shape and colour; its word stands beside it, or in `label` where there is no room. */
export function Mark({ sign, label }: { sign: Sign; label?: string }) {
  return (
    <svg className={`mark mark-${sign}`} viewBox="0 0 12 12" role={label ? "img" : undefined} aria-label={label} aria-hidden={label ? undefined : true}>
      <path d={shapes[sign]} fillRule="evenodd" />
    </svg>
  );
}

/** The same with its word. */
export function StatusWord({ status }: { status: Status }) {
  return (
    <span className={`status status-${status}`}>
      <Mark sign={status} />
      {status}
    </span>
  );
}
