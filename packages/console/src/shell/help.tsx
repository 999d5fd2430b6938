import type { Ref } from "react";
import { Icon } from "../draw/icon.tsx";

const keys: readonly [string, string][] = [
  ["/", "Search and filter"],
  ["← ↑ ↓ →", "From cell to cell"],
  ["Enter", "Look into the cell"],
  ["Esc", "Close, or leave the search"],
  ["t", "Map or table"],
  ["c", "Colour by the next thing"],
  ["s", "Size by the next thing"],
  ["a", "To what needs attention"],
  ["?", "These keys"],
];

const terms: readonly [string, string][] = [
  ["eu-1", "name, region, version, blueprint or label contains it"],
  ["status:down", "also up, cordoned, draining, unknown …"],
  ["region:eu", "likewise version, class, blueprint, state, name"],
  ["load:75-90", "percent of the fullest dimension"],
  ["drift:yes", "differs from its spec"],
  ["label:team=x", "or just label:team"],
];

export function KeysHelp({ ref }: { ref: Ref<HTMLDialogElement> }) {
  return (
    <dialog ref={ref} className="dialog" aria-labelledby="keys-title" closedby="any">
      <form method="dialog" className="dialog-head">
        <h2 id="keys-title">Keys</h2>
        <button className="icon-button" aria-label="Close">
          <Icon name="close" />
        </button>
      </form>
      <dl className="keys">
        {keys.map(([key, what]) => (
          <div key={key}>
            <dt><kbd>{key}</kbd></dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <h3>Search</h3>
      <dl className="keys">
        {terms.map(([term, what]) => (
          <div key={term}>
            <dt><code>{term}</code></dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </dialog>
  );
}
