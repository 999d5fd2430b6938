// `npm start`: a real fleet on this machine, from a fresh clone, in one command. Arguments go to `cellplane up`.
import { ready, root } from "./ready.mjs";

ready();
process.argv.splice(2, 0, "up", "--demo");
await import(`${root}packages/cellplane/bin/cellplane.mjs`);
