import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["packages/*/src/**/*.test.{ts,tsx}", "examples/*/src/**/*.test.ts", "tests/**/*.test.ts"],
    // One PostgreSQL server for the whole run; each test file makes databases of its own in it.
    globalSetup: ["tests/setup.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
