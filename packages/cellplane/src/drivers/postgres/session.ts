import pg from "pg";

/** A connection of its own for the work; an aborted signal ends it, and with it what the server is doing for it. */
export async function withSession<T>(url: string, signal: AbortSignal, work: (session: pg.Client) => Promise<T>): Promise<T> {
  signal.throwIfAborted();
  const session = new pg.Client({ connectionString: url, application_name: "cellplane", connectionTimeoutMillis: 5000 });
  session.on("error", () => undefined);
  const abort = (): void => void session.end().catch(() => undefined);
  signal.addEventListener("abort", abort);
  try {
    await session.connect();
    return await work(session);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
    await session.end().catch(() => undefined);
  }
}
