/**
 * Ends this process as `kill -9` would when CELLPLANE_FAILPOINT names the point, so that tests can kill it at each
 * instruction that matters.
 */
export function failpoint(name: string): void {
  if (process.env["CELLPLANE_FAILPOINT"] === name) process.kill(process.pid, "SIGKILL");
}
