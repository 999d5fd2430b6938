import { Icon } from "../draw/icon.tsx";
import { Mark } from "../draw/mark.tsx";
import { formatCount } from "../draw/number.ts";
import type { Colouring, Shade } from "./colour.ts";
import { hasTerm } from "./filter.ts";

const shadesMax = 12;

interface LegendProps {
  legend: readonly Shade[];
  colouring: Colouring;
  filter: string;
  toggle: (term: string) => void;
  shown: number;
  all: number;
  clear: () => void;
}

/** What the colours mean, how many cells have each, and the filter for it in one. */
export function Legend({ legend, colouring, filter, toggle, shown, all, clear }: LegendProps) {
  return (
    <div className="legend" role="group" aria-label={`Cells by ${colouring}`}>
      {legend.slice(0, shadesMax).map(({ key, token, term, count, status }) => (
        <button key={key} type="button" className="legend-shade" aria-pressed={hasTerm(filter, term)} onClick={() => toggle(term)} title={`Filter: ${term}`}>
          {status ? <Mark sign={status} /> : <svg className={`swatch band-${token}`} viewBox="0 0 12 12" aria-hidden><rect width="12" height="12" rx="3" /></svg>}
          {key}
          <span className="legend-count">{formatCount(count)}</span>
        </button>
      ))}
      {legend.length > shadesMax && <span className="legend-rest">and {formatCount(legend.length - shadesMax)} more</span>}
      <span className="legend-space" />
      {filter !== "" && (
        <button type="button" className="legend-shade" onClick={clear}>
          {formatCount(shown)} of {formatCount(all)} shown <Icon name="close" />
        </button>
      )}
    </div>
  );
}
