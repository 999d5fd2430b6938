import type { ComponentType } from "react";
import type { IconName } from "../draw/icon.tsx";
import { MapPage } from "../map/page.tsx";
import type { Go } from "./location.ts";

export interface PageProps {
  /** The page's parameters in the URL. */
  search: Readonly<Record<string, string>>;
  go: Go;
}

/** Every page of the console, in the order of the rail: one folder, one line here. */
export const pages: readonly { id: string; title: string; icon: IconName; Page: ComponentType<PageProps> }[] = [{ id: "map", title: "Cells", icon: "map", Page: MapPage }];
