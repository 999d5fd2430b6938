/** Settings of a server, as `postgresql.conf` names them. */
export type Settings = Record<string, string | number | boolean>;

/** Small enough that a machine holds dozens of servers, and ready for logical replication, which moves tenants. `own` come over ours. */
export const settingsFor = (majorVersion: number, port: number, own: Settings = {}): Settings => ({
  listen_addresses: "127.0.0.1",
  port,
  // Sockets would need short paths that several users can reach; one way in is enough.
  unix_socket_directories: "",
  max_connections: 60,
  shared_buffers: "16MB",
  work_mem: "4MB",
  maintenance_work_mem: "32MB",
  wal_level: "logical",
  max_wal_size: "256MB",
  min_wal_size: "32MB",
  max_wal_senders: 20,
  max_replication_slots: 20,
  // A forgotten slot must not fill the disk: it is lost instead, and what reads it starts anew.
  max_slot_wal_keep_size: "1GB",
  max_worker_processes: 4,
  max_parallel_workers: 2,
  jit: false,
  password_encryption: "scram-sha-256",
  timezone: "UTC",
  log_timezone: "UTC",
  log_line_prefix: "%m [%p] %q%u@%d ",
  // Background processes for reading ahead cost memory in every cell and bring nothing to small ones.
  ...(majorVersion >= 18 ? { io_method: "sync" } : {}),
  ...own,
});

export const settingText = (value: string | number | boolean): string => (typeof value === "boolean" ? (value ? "on" : "off") : String(value));

export const settingsText = (settings: Settings): string =>
  "# Written by Cellplane. A change made here is kept and shown as drift.\n" +
  Object.entries(settings).map(([name, value]) => `${name} = '${settingText(value).replaceAll("'", "''")}'\n`).join("");

/** What a file in the format of `postgresql.conf` sets: the last one counts, names are case-insensitive, `=` is optional. */
export function parseSettings(text: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const match = /^\s*([A-Za-z_][\w.]*)\s*=?\s*(?:'((?:[^']|'')*)'|([^#\s]*))/.exec(line);
    if (match?.[1]) found[match[1].toLowerCase()] = match[2]?.replaceAll("''", "'") ?? match[3] ?? "";
  }
  return found;
}
