import { request } from "node:http";
import { connect } from "node:net";
import { runningServer } from "../postgres/server.ts";
import type { ReadyWhen } from "./model.ts";

/** Looks once. @returns "" when ready, else why not */
export async function whyNotReady(when: ReadyWhen, timeoutMs = 2000): Promise<string> {
  switch (when.kind) {
    case "http":
      return httpStatus(when.url, timeoutMs).then((status) => (status >= 200 && status < 300 ? "" : `${when.url} answers ${status}`), (error: Error) => `${when.url} does not answer: ${error.message}`);
    case "tcp":
      return tryConnect(when.host, when.port, timeoutMs).then(() => "", (error: Error) => `${when.host}:${when.port} does not accept connections: ${error.message}`);
    case "postgres": {
      const server = await runningServer(when.dataDirectory);
      return server?.ready ? "" : server ? "PostgreSQL is starting" : "PostgreSQL does not run";
    }
  }
}

/** Without keep-alive, so that a probe leaves nothing behind in the service. */
function httpStatus(url: string, timeoutMs: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const call = request(url, { agent: false, signal: AbortSignal.timeout(timeoutMs), headers: { connection: "close", "user-agent": "cellplane-probe" } }, (answer) => {
      answer.resume();
      resolve(answer.statusCode ?? 0);
    });
    call.on("error", (error) => reject(error.name === "AbortError" || error.name === "TimeoutError" ? new Error(`nothing within ${timeoutMs} ms`) : error));
    call.end();
  });
}

function tryConnect(host: string, port: number, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, timeout: timeoutMs });
    socket.once("connect", () => resolve(void socket.destroy()));
    socket.once("timeout", () => socket.destroy(new Error(`nothing within ${timeoutMs} ms`)));
    socket.once("error", reject);
  });
}
