import { useState } from "react";
import type { Tenant } from "../../../cellplane/src/tenant/model.ts";
import { Icon } from "../draw/icon.tsx";
import { formatCount } from "../draw/number.ts";
import { Part } from "../draw/part.tsx";
import { ProblemNote } from "../draw/problem.tsx";
import { useReading } from "../live/reading.ts";

const perPage = 10;

/** The tenants that live in a cell, a page at a time. */
export function TenantList({ cell, count }: { cell: string; count: number }) {
  // The cursors of the pages before this one: an API with cursors only goes forward.
  const [cursors, setCursors] = useState<readonly string[]>([]);
  const { value, problem } = useReading<{ items: Tenant[]; nextCursor: string | null }>("v1/tenants", { cell, limit: perPage, cursor: cursors.at(-1) }, count);
  const first = cursors.length * perPage;
  return (
    <Part title="Tenants" aside={formatCount(count)} busy={value === null}>
      {problem && <ProblemNote problem={problem} />}
      {value && value.items.length > 0 && (
        <>
          <table className="tenants">
            <thead><tr><th scope="col">Name</th><th scope="col">Tier</th><th scope="col">State</th><th scope="col" className="numeric">Epoch</th></tr></thead>
            <tbody>
              {value.items.map((tenant) => (
                <tr key={tenant.name}>
                  <th scope="row">{tenant.name}</th>
                  <td>{tenant.tier}</td>
                  <td>{tenant.state}</td>
                  <td className="numeric">{tenant.epoch}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {(cursors.length > 0 || value.nextCursor) && (
            <nav className="pager" aria-label="Pages of tenants">
              <button type="button" className="icon-button" aria-label="Previous page" disabled={cursors.length === 0} onClick={() => setCursors(cursors.slice(0, -1))}><Icon name="previous" /></button>
              <span>{formatCount(first + 1)}–{formatCount(first + value.items.length)} of {formatCount(Math.max(count, first + value.items.length))}</span>
              <button type="button" className="icon-button" aria-label="Next page" disabled={!value.nextCursor} onClick={() => setCursors([...cursors, value.nextCursor ?? ""])}><Icon name="next" /></button>
            </nav>
          )}
        </>
      )}
      {value && value.items.length === 0 && cursors.length === 0 && <p className="none">No tenant lives here.</p>}
    </Part>
  );
}
