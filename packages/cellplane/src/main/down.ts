import { join } from "node:path";
import { CellplaneError } from "../base/errors.ts";
import { callKeeper } from "../drivers/keeper/channel.ts";
import { startKeeper } from "../drivers/keeper/keeper.ts";
import { servicesIn } from "../drivers/keeper/unit.ts";
import { readStatus } from "../drivers/local/drift.ts";
import { isRunning } from "../drivers/process.ts";
import { stateLayout } from "./state.ts";

/** Stops what is kept in the state directory, also what a killed keeper has left behind. @returns false when nothing runs */
export async function stopEverything(stateDirectory: string): Promise<boolean> {
  const { directory } = stateLayout(stateDirectory);
  if (!(await somethingRuns(directory))) return false;
  try {
    await callKeeper(directory, "stopAll", {});
  } catch (error) {
    if (!(error instanceof CellplaneError) || error.code !== "keeper_gone") throw error;
    // Nobody keeps it any more: we do, for as long as stopping takes.
    const keeper = await startKeeper(directory);
    await keeper.stopAll();
    await keeper.close();
  }
  return true;
}

async function somethingRuns(directory: string): Promise<boolean> {
  for (const name of await servicesIn(join(directory, "services")).catch(() => [])) {
    const process = (await readStatus(directory, name))?.process;
    if (process && (await isRunning(process))) return true;
  }
  return false;
}
