import { setTimeout as sleep } from "node:timers/promises";
import { CellplaneError } from "../../base/errors.ts";
import { startKeeper } from "./keeper.ts";

/** A keeper as a process of its own, started by a driver when nobody kept the state directory. */
const idleIntervalMs = 5000;

async function main(stateDirectory: string): Promise<void> {
  // It outlives terminals and whoever started it; only a signal meant for it, or having nothing to keep, ends it.
  for (const signal of ["SIGHUP", "SIGPIPE"] as const) process.on(signal, () => undefined);
  const keeper = await startKeeper(stateDirectory, { yields: true, onYield: () => process.exit(0) });
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void keeper.close().then(() => process.exit(0)));
  for (;;) {
    await sleep(idleIntervalMs);
    if ((await keeper.status()).every((service) => service.state === "stopped")) break;
  }
  await keeper.close();
}

await main(process.argv[2] ?? ".").catch((error: unknown) => {
  if (error instanceof CellplaneError && error.code === "state_dir_in_use") return;
  console.error(error);
  process.exitCode = 1;
});
