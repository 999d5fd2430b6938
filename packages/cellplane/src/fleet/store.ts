import { fail } from "../base/errors.ts";
import type { CellSpec, NewCell } from "../cell/model.ts";
import type { PlacementPolicy } from "../placement/model.ts";
import type { Queryable, Tx } from "../store/model.ts";
import type { Fleet, StoredFleet } from "./model.ts";
import { specOf } from "./plan.ts";

export type FleetStore = ReturnType<typeof createFleetStore>;

export function createFleetStore(store: Queryable) {
  /** The fleet file applied last; null before the first. */
  async function current(at: Queryable = store): Promise<StoredFleet | null> {
    const [row] = await at.query<{ generation: number; document: Fleet; file: string; base_directory: string; applied_at: Date }>("select generation, document, file, base_directory, applied_at from fleet");
    return row ? { fleet: row.document, generation: row.generation, file: row.file, baseDirectory: row.base_directory, appliedAt: row.applied_at.toISOString() } : null;
  }

  return {
    current,

    /** @param generation of the fleet it was decided from, 0 for none. @throws CellplaneError generation_stale */
    async save(tx: Tx, { fleet, file, baseDirectory }: Pick<StoredFleet, "fleet" | "file" | "baseDirectory">, generation: number): Promise<void> {
      const [saved] = await tx.query(
        `insert into fleet (generation, document, file, base_directory) select $1 + 1, $2, $3, $4 where $1 = 0 or exists (select from fleet)
         on conflict (only_row) do update set generation = fleet.generation + 1, document = excluded.document, file = excluded.file, base_directory = excluded.base_directory, applied_at = clock_timestamp()
           where fleet.generation = $1
         returning generation`,
        [generation, fleet, file, baseDirectory],
      );
      if (!saved) throw fail("generation_stale", { what: "fleet", name: fleet.fleet, expected: generation, actual: (await current(tx))?.generation ?? 0 });
    },

    /** What placement goes by. Before the first apply there is no region, so nothing can be placed. */
    async settings(at: Queryable = store): Promise<{ policy: PlacementPolicy; regions: string[] }> {
      const [row] = await at.query<{ policy: PlacementPolicy; regions: string[] }>("select document->'placement' as policy, array(select jsonb_object_keys(document->'regions')) as regions from fleet");
      if (!row) throw fail("fleet_missing", {});
      return row;
    },

    /** What a cell of this fleet would be made from. @throws CellplaneError fleet_missing, invalid_input */
    async specOf(at: Queryable | undefined, cell: Pick<NewCell, "name" | "region" | "blueprint" | "overrides">): Promise<CellSpec> {
      const stored = await current(at);
      if (!stored) throw fail("fleet_missing", {});
      const spec = specOf(stored, cell);
      if (Array.isArray(spec)) throw fail("invalid_input", { issues: spec });
      return spec;
    },
  };
}
