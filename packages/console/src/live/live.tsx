import { createContext, use, useSyncExternalStore } from "react";
import type { Caller } from "../../../cellplane/src/http/contract.ts";
import type { Client } from "./client.ts";
import type { Fleet, LiveFleet } from "./fleet.ts";

/** What every page draws from and acts through. */
export interface Live {
  client: Client;
  fleet: LiveFleet;
  /** Whose token it is; null until that was read. */
  caller: Caller | null;
}

export const LiveContext = createContext<Live | null>(null);

export function useLive(): Live {
  const live = use(LiveContext);
  if (!live) throw new Error("a page stands inside the shell, which knows the token");
  return live;
}

export function useFleet(): Fleet {
  const { fleet } = useLive();
  return useSyncExternalStore(fleet.subscribe, fleet.get);
}
