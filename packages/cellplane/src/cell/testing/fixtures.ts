import { Blueprint, type CellSpec } from "../model.ts";

/** A spec that any fake engine makes. */
export const specNamed = (cell: string, over: Partial<CellSpec> = {}): CellSpec => ({
  ...Blueprint.parse({ driver: "fake", services: { app: { command: ["app"], ports: { http: "auto" } } }, capacity: { tenants: 10 } }),
  cell, region: "eu", blueprint: "shop", baseDirectory: "/srv",
  ...over,
});
