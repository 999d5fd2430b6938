// The smallest app a cell can have: says who it is, and is ready unless it was told to be broken.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const { PORT, CELLPLANE_CELL, CELLPLANE_VERSION, CONFIG, BROKEN } = process.env;
if (BROKEN === "crash") {
  console.error("told to crash");
  process.exit(3);
}
const config = JSON.parse(readFileSync(CONFIG, "utf8"));
createServer((request, response) => {
  if (request.url === "/ready") response.statusCode = BROKEN === "unready" ? 503 : 200;
  response.end(JSON.stringify({ cell: CELLPLANE_CELL, version: CELLPLANE_VERSION, config, pid: process.pid }));
}).listen(Number(PORT), "127.0.0.1");
