/** A process that takes runs in hand and is killed. */
import { z } from "zod";
import { openStore } from "../../packages/cellplane/src/store/store.ts";
import { workflow } from "../../packages/cellplane/src/workflow/model.ts";
import { createRunner } from "../../packages/cellplane/src/workflow/runner.ts";

const [url = "", runs] = process.argv.slice(2);
let begun = 0;
const hanging = workflow({
  name: "hanging", version: 1, input: z.object({}), subject: () => "bench",
  steps: [{
    name: "hang",
    run: () => {
      if (++begun === Number(runs)) console.log("busy");
      return new Promise<never>(() => undefined);
    },
  }],
});
createRunner({
  store: openStore(url), workflows: [hanging], build: "bench", slots: 100,
  log: (event) => {
    if (event.kind === "worker" && event.what === "born") console.log("ready");
  },
}).start();
