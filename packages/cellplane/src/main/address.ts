import { createServer } from "node:net";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { fail } from "../base/errors.ts";
import { writeWhole } from "../drivers/files.ts";

export interface Address {
  host: string;
  /** 0: any free one. */
  port: number;
}

/** "127.0.0.1:7070", ":7070" or "7070". @throws CellplaneError invalid_input */
export function parseAddress(text: string, flag: string): Address {
  const match = /^(?:(\[[0-9a-fA-F:]+\]|[^:]*):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (!match || port > 65535) throw fail("invalid_input", { issues: [{ path: flag, message: `${JSON.stringify(text)} is no address; expected host:port` }] });
  return { host: (match[1] || "127.0.0.1").replace(/^\[|\]$/g, ""), port };
}

export const formatAddress = ({ host, port }: Address): string => (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`);
export const httpUrl = ({ host, port }: Address): string => `http://${formatAddress({ host: host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host, port })}`;

/** The port listened on, chosen when it was 0. @throws CellplaneError port_in_use */
export function probeAddress({ host, port }: Address, purpose: string, flag: string): Promise<Address> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => reject(error.code === "EADDRINUSE" ? fail("port_in_use", { port, purpose, flag }) : error));
    server.listen({ host, port, exclusive: true }, () => {
      const bound = server.address();
      server.close(() => resolve({ host, port: typeof bound === "object" && bound ? bound.port : port }));
    });
  });
}

const Kept = z.record(z.string(), z.object({ host: z.string(), port: z.int() }));

/** Addresses by purpose that a former start has chosen. */
export async function keptAddresses(file: string): Promise<Record<string, Address>> {
  const text = await readFile(file, "utf8").catch(() => "{}");
  const parsed = Kept.safeParse(JSON.parse(text));
  return parsed.success ? parsed.data : {};
}

export const keepAddresses = (file: string, addresses: Record<string, Address>): Promise<void> => writeWhole(file, `${JSON.stringify(addresses, null, 2)}\n`, { mode: 0o644 });
