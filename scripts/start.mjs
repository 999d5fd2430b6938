// `npm start`: a real fleet on this machine, from a fresh clone, in one command: the shop in four cells, its tenants, and
// their traffic. Further arguments go to `cellplane up`.
import { ready, root } from "./ready.mjs";

ready();
const traffic = "node examples/shop/dist/traffic.js --target {router} --api {api} --journal {state}/traffic --rate 50 --retry";
process.chdir(root);
process.argv.splice(2, 0, "up", "--file", "examples/shop/cellplane.yaml", "--import", "examples/shop/tenants.ndjson", "--also", `traffic=${traffic}`);
await import(`${root}packages/cellplane/bin/cellplane.mjs`);
