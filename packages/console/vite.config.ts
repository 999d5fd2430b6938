import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig(({ command }) => {
  // Whatever NODE_ENV a shell or a test run happens to have: what is built is what is shipped.
  if (command === "build") process.env["NODE_ENV"] = "production";
  return {
    plugins: [react()],
    // Relative, so that the control plane can serve it under any path.
    base: "./",
    build: {
      target: "es2022",
      // Nothing inline and no data: URLs, so that it runs under `default-src 'none'` with only 'self' allowed.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
    },
  };
});
