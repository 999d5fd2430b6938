// Holds a listening socket as a systemd socket unit would, and runs one router after the other on it: while there is none,
// clients wait in the kernel's queue instead of being refused. It never accepts itself: `spawnSync` blocks its loop.
//   node holder.mjs '<router config as JSON>' <times>
import { spawnSync } from "node:child_process";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

const [config, times] = process.argv.slice(2);
if (times !== undefined) {
  const server = createServer();
  server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
    console.log(`port ${server.address().port}`);
    for (let i = 0; i < Number(times); i++) spawnSync(process.execPath, [fileURLToPath(import.meta.url), config], { stdio: ["ignore", "inherit", "inherit", server._handle.fd] });
    process.exit(0);
  });
} else {
  const { startRouter } = await import("../../../dist/router/serve.js");
  const router = await startRouter({ ...JSON.parse(config), listen: { fd: 3 }, admin: { host: "127.0.0.1", port: 0 } });
  console.log(`pid ${process.pid} version ${router.version()}`);
  process.on("SIGTERM", () => void router.close().then(() => process.exit(0)));
}
