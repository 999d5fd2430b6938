import { readFileSync, statSync } from "node:fs";

export interface ConfigOptions {
  /** The cell's JSON file; undefined: the defaults, always. */
  file: string | undefined;
  /** How old an answer may be before the file is looked at again. Default: 1000 */
  staleMs?: number;
  /** Told when a changed file cannot be read; the last good values stay in force. Default: one line on stderr */
  onError?: (error: Error) => void;
}

/** Tells a file that was replaced or written from one that was not. */
function stampOf(file: string): string {
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat ? `${stat.ino} ${stat.mtimeMs} ${stat.size}` : "gone";
}

function read(file: string): object {
  const values: unknown = JSON.parse(readFileSync(file, "utf8"));
  if (typeof values !== "object" || values === null || Array.isArray(values)) throw new TypeError("the configuration is not a JSON object");
  return values;
}

/**
 * Reads the cell's configuration. The function returned gives the values of now, the file's over the defaults, and needs
 * no timer or watcher: it looks at the file's stamp when asked, at most once each `staleMs`.
 *
 * @throws what reading the file throws, because an app must not start on half a configuration
 */
export function cellConfig<C extends object>(defaults: C, options: ConfigOptions): () => C {
  const { file, staleMs = 1000, onError = (error) => console.error(`${file}: ${error.message}; the former values stay`) } = options;
  if (file === undefined) return () => defaults;
  let stamp = stampOf(file);
  let current: C = { ...defaults, ...read(file) };
  let lookedAtMs = performance.now();

  return () => {
    const nowMs = performance.now();
    if (nowMs - lookedAtMs < staleMs) return current;
    lookedAtMs = nowMs;
    const newStamp = stampOf(file);
    if (newStamp === stamp) return current;
    // Remembered before the file is read, so that a broken one is told of once and not at each look.
    stamp = newStamp;
    try {
      current = { ...defaults, ...read(file) };
    } catch (error) {
      onError(error as Error);
    }
    return current;
  };
}
