// One instance of the API with the tokens alone, from the built package: for tests that kill it.
import { pino } from "pino";
import { createApp, startServer } from "../../../dist/http/server.js";
import { openStore } from "../../../dist/store/store.js";
import { tokenHandlers } from "../../../dist/token/api.js";
import { openTokenStore } from "../../../dist/token/store.js";

const [databaseUrl, port] = process.argv.slice(2);
const store = openStore(databaseUrl);
const tokens = openTokenStore(store);
const server = await startServer(createApp({ store, tokens, handlers: tokenHandlers({ tokens }), log: pino({ level: "silent" }) }), { port: Number(port) });
process.stdout.write(`${server.port}\n`);
