import { CellplaneError } from "../base/errors.ts";
import { callKeeper } from "../drivers/keeper/channel.ts";
import { connectKeeper } from "../drivers/keeper/client.ts";
import { servicesIn } from "../drivers/keeper/unit.ts";
import { stateLayout } from "./state.ts";
import { join } from "node:path";

/** Stops what is kept in the state directory, also what a killed keeper has left behind. @returns false when there is nothing */
export async function stopEverything(stateDirectory: string): Promise<boolean> {
  const { directory } = stateLayout(stateDirectory);
  if ((await servicesIn(join(directory, "services")).catch(() => [])).length === 0) return false;
  // A keeper that has let go meanwhile leaves its services to the next one, which is asked again.
  for (let tries = 0; tries < 3; tries++) {
    try {
      await connectKeeper(directory).status();
      await callKeeper(directory, "stopAll", {});
      return true;
    } catch (error) {
      if (!(error instanceof CellplaneError) || error.code !== "keeper_gone") throw error;
    }
  }
  return false;
}
