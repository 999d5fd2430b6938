import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CellSpec } from "../../cell/model.ts";
import { readText, writeWhole } from "../files.ts";
import { CellResources } from "./resources.ts";

/** A spec and what it came to on this machine. */
export const Made = z.object({
  spec: CellSpec,
  resources: CellResources,
  /** Schema steps it has or wants, in order. */
  schema: z.array(z.object({ name: z.string(), checksum: z.string() })),
});
export type Made = z.infer<typeof Made>;

/** What the driver knows of a cell, in `cells/<cell>/cell.json`. It is the truth of who may do what; resources follow it. */
export const CellRecord = z.object({
  cell: z.string(),
  /** The highest epoch seen. */
  epoch: z.int(),
  /** What was ready last; null before that and after destruction. */
  made: Made.nullable(),
  /** What is being made: written before anything is touched, so that whoever comes after a crash knows. Null when at rest. */
  intent: z.object({
    opKey: z.string(),
    target: Made,
    /** Not null once the target has failed and the former cell is being brought back. */
    reverting: z.string().nullable(),
  }).nullable(),
  /** What the last finished effect answered. */
  last: z.object({ opKey: z.string(), error: z.object({ code: z.string(), data: z.json() }).nullable() }).nullable(),
  /** "kept": stopped for good, its data are still there. */
  destroyed: z.enum(["kept", "purged"]).nullable(),
});
export type CellRecord = z.infer<typeof CellRecord>;

export const cellDirectory = (stateDirectory: string, cell: string): string => join(stateDirectory, "cells", cell);
const recordFile = (stateDirectory: string, cell: string): string => join(cellDirectory(stateDirectory, cell), "cell.json");

/** Null when this driver never made the cell. */
export async function readRecord(stateDirectory: string, cell: string): Promise<CellRecord | null> {
  const text = await readText(recordFile(stateDirectory, cell));
  return text === null ? null : CellRecord.parse(JSON.parse(text));
}

export async function writeRecord(stateDirectory: string, record: CellRecord): Promise<void> {
  // The servers' own users have to pass.
  await mkdir(cellDirectory(stateDirectory, record.cell), { recursive: true, mode: 0o711 });
  await writeWhole(recordFile(stateDirectory, record.cell), JSON.stringify(record), { durable: true });
}
