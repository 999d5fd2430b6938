import { fail } from "../base/errors.ts";
import { formatDurationMs } from "../base/units.ts";
import { type Cli, flag } from "../cli/command.ts";
import { cancelOperation, getOperation, listOperations, pauseOperation, readOperationLog, resumeOperation, retryOperation, signalOperation } from "./api.ts";
import { type Json, type Operation, runStates } from "./model.ts";

const one = { operation: "Its id, as in op-…" };
const columns = {
  ID: (o: Operation) => o.id,
  WORKFLOW: (o: Operation) => o.workflow,
  SUBJECT: (o: Operation) => o.subject,
  STATE: (o: Operation) => (o.asked === null ? o.state : `${o.state} (asked to ${o.asked})`),
  DONE: (o: Operation) => `${Math.round(o.ratio * 100)}%`,
  MESSAGE: (o: Operation) => o.waitsFor ?? o.error?.message ?? o.message,
};
const wide = {
  STEP: (o: Operation) => o.step,
  CREATED: (o: Operation) => o.createdAt,
  TOOK: (o: Operation) => (o.finishedAt === null ? null : formatDurationMs(Date.parse(o.finishedAt) - Date.parse(o.createdAt))),
  PARENT: (o: Operation) => o.parent,
};

export function registerOperation(cli: Cli): void {
  const operation = cli.noun("operation");

  cli.verb(operation, "list", {
    summary: "List the operations, newest first",
    flags: {
      state: flag.choice(["open", ...runStates], "Only those in this state; open: whatever is not final"),
      subject: flag.text("Only those about this, as in cell/eu-1"),
      workflow: flag.text("Only those of this kind, as in cell.create"),
      parent: flag.text("Only those that this operation started"),
    },
    run: ({ flags, pages }) => pages(listOperations, { query: flags }),
    columns,
    wide,
  });

  cli.verb(operation, "describe", {
    summary: "Show an operation, its steps and its log",
    args: one,
    run: async ({ args, call }) => {
      const found = await call(getOperation, { params: args });
      const log = [];
      for (let cursor: string | undefined; ; ) {
        const { items } = await call(readOperationLog, { params: args, query: { limit: 1000, ...(cursor === undefined ? {} : { cursor }) } });
        log.push(...items);
        cursor = items.at(-1)?.cursor;
        if (items.length < 1000) return { ...found, log };
      }
    },
    columns: {
      ...columns, ...wide,
      ERROR: (o) => (o.error === null ? null : `${o.error.code}: ${o.error.message}. ${o.error.fix}`),
      STEPS: (o) => o.steps.map((step) => `${step.name} ${step.state}${step.attempts > 1 ? ` at attempt ${step.attempts}` : ""}`),
      LOG: (o) => o.log.map((line) => `\n${line.at} ${line.message}`).join(""),
    },
  });

  cli.verb(operation, "watch", {
    summary: "Show an operation's progress until it ends",
    help: "Ctrl-C stops the watching, not the operation.",
    args: one,
    run: ({ args, follow }) => follow(args.operation),
    columns,
    wide,
  });

  const verbs = [
    { name: "pause", endpoint: pauseOperation, summary: "Begin no further step, and tell the one in work to stop" },
    { name: "resume", endpoint: resumeOperation, summary: "Let a paused operation go on" },
    { name: "cancel", endpoint: cancelOperation, summary: "Take back what an operation has done" },
    { name: "retry", endpoint: retryOperation, summary: "Try the step of a parked or waiting operation now, or the undo that failed" },
  ] as const;
  for (const { name, endpoint, summary } of verbs) {
    cli.verb(operation, name, {
      summary,
      args: one,
      mutates: true,
      before: ({ args, call }) => call(getOperation, { params: args }),
      run: ({ args, call }) => call(endpoint, { params: args }),
      // A paused one ends only when someone resumes it.
      operation: (answer) => (name === "pause" ? null : answer.id),
      columns,
      wide,
    });
  }

  cli.verb(operation, "signal", {
    summary: "Tell an operation something that it waits for",
    args: { ...one, signal: "What it waits for, as in approve" },
    flags: { payload: flag.text("JSON that goes with it") },
    mutates: true,
    run: ({ args, flags, call }) => call(signalOperation, { params: args, body: { payload: parsePayload(flags.payload) } }),
    operation: (answer) => answer.id,
    columns,
    wide,
  });
}

function parsePayload(text: string | undefined): Json {
  if (text === undefined) return null;
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    throw fail("bad_usage", { command: "operation signal", why: `--payload is no JSON: ${(error as Error).message}` }, { cause: error });
  }
}
