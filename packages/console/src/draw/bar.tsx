import { levelOf } from "./level.ts";
import { formatRatio } from "./number.ts";

/** A share of a whole; what is beyond 1 fills the bar and says so in its colour. */
export function Bar({ ratio, label }: { ratio: number; label: string }) {
  return (
    <span className={`bar bar-${levelOf(ratio)}`} role="meter" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(ratio * 100)} aria-valuetext={formatRatio(ratio)}>
      <span className="bar-fill" style={{ transform: `scaleX(${Math.min(1, ratio)})` }} />
    </span>
  );
}
