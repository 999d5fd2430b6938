import type { ComponentType } from "react";
import type { IconName } from "../draw/icon.tsx";
import { MapPage } from "../map/page.tsx";
import type { PageProps } from "./location.ts";

/** Every page of the console, in the order of the rail: one folder, one line here. */
export const pages: readonly { id: string; title: string; icon: IconName; Page: ComponentType<PageProps> }[] = [{ id: "map", title: "Cells", icon: "map", Page: MapPage }];
