/** Quantities as people write them in files and flags ("512MiB", "2.5s") and as tables show them. */

const bytesPerUnit: Record<string, number> = {
  B: 1,
  KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12,
  KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40,
};

/** Bytes in "512MiB", "20 GB" or "1024"; null when the text is no such quantity. */
export function parseBytes(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)?$/.exec(text.trim());
  if (!match) return null;
  return Math.round(Number(match[1]) * (bytesPerUnit[match[2] ?? "B"] ?? 1));
}

const msPerUnit: Record<string, number> = { ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };

/** Milliseconds in "250ms", "2.5s", "10m", "1h" or "7d"; null when the text is no such quantity. */
export function parseDurationMs(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(text.trim());
  if (!match) return null;
  return Math.round(Number(match[1]) * (msPerUnit[match[2] ?? "ms"] ?? 1));
}

/** "12.3 MiB" for 12_897_485: three significant digits, binary units. */
export function formatBytes(bytes: number): string {
  for (const unit of ["TiB", "GiB", "MiB", "KiB"] as const) {
    const size = bytesPerUnit[unit] ?? 1;
    if (bytes >= size) return `${Number((bytes / size).toPrecision(3))} ${unit}`;
  }
  return `${bytes} B`;
}

/** "1.2s", "3m20s", "2d4h" for a span in milliseconds: two units at the most, as kubectl shows ages. */
export function formatDurationMs(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`;
  if (ms < 60e3) return `${Number((ms / 1000).toPrecision(3))}s`;
  const seconds = Math.floor(ms / 1000);
  const [d, h, m, s] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  if (d > 0) return h > 0 ? `${d}d${h}h` : `${d}d`;
  if (h > 0) return m > 0 ? `${h}h${m}m` : `${h}h`;
  return s > 0 ? `${m}m${s}s` : `${m}m`;
}
