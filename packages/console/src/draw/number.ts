import type { dimensions } from "../../../cellplane/src/cell/model.ts";
import { formatBytes } from "../../../cellplane/src/base/units.ts";

export type Dimension = (typeof dimensions)[number];

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 950 → "950", 12_345 → "12,345". */
export const formatCount = (count: number): string => whole.format(count);
/** 950 → "950", 12_345 → "12.3K": where room is short. */
export const formatShort = (count: number): string => short.format(count);
/** 0.624 → "62 %". Not rounded up to 100 while there is room, nor down to 0 while there is use. */
export function formatRatio(ratio: number): string {
  const percent = ratio > 0.99 && ratio < 1 ? 99 : ratio > 0 && ratio < 0.01 ? 1 : Math.round(ratio * 100);
  return `${percent} %`;
}
export const formatRate = (perSecond: number): string => (perSecond >= 1000 ? formatShort(perSecond) : perSecond >= 10 || perSecond === 0 ? whole.format(perSecond) : perSecond.toFixed(1));

export const dimensionWords: Record<Dimension, string> = { tenants: "tenants", connections: "connections", requestsPerSecond: "requests/s", diskBytes: "disk" };
export const formatQuantity = (dimension: Dimension, quantity: number): string => (dimension === "diskBytes" ? formatBytes(quantity) : formatCount(quantity));

/** "12s ago" style spans for people, in the coarsest unit that still says something. */
export function formatAgo(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** A version that begins with a figure is told from other figures by its "v". */
export const formatVersion = (version: string): string => (/^\d/.test(version) ? `v${version}` : version);

/** "1 cell", "2 cells". */
export const plural = (count: number, noun: string, nouns = `${noun}s`): string => `${formatCount(count)} ${count === 1 ? noun : nouns}`;
