import { CellplaneError } from "../base/errors.ts";
import { traceOf } from "../http/problem.ts";

/** What happened, why, what to do, then the code and trace to search and report by. */
export function failureLines(error: unknown, { colour, debug }: { colour: boolean; debug: boolean }): string[] {
  const red = (text: string) => (colour ? `\x1b[31m${text}\x1b[39m` : text);
  const dim = (text: string) => (colour ? `\x1b[2m${text}\x1b[22m` : text);
  if (!(error instanceof CellplaneError)) {
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    return [`${red("error:")} ${message}`, "  fix: This is a defect of cellplane; report it with what CELLPLANE_DEBUG=1 adds.", dim("  code: defect"), ...(debug ? [stack ?? ""] : [])];
  }
  const trace = traceOf(error);
  const issues = (error.data as { issues?: { path: string; message: string; line?: number; column?: number }[]; file?: string } | undefined)?.issues ?? [];
  const what = issues.length > 1 ? issuesLines(issues, (error.data as { file?: string }).file) : [error.message];
  return [
    ...what.map((line, i) => (i === 0 ? `${red("error:")} ${printable(line)}` : `       ${printable(line)}`)),
    `  fix: ${error.kind.fix}`,
    dim(`  code: ${error.code}${trace ? `  trace: ${trace}` : ""}`),
    ...(debug ? [error.stack ?? ""] : []),
  ];
}

const issuesLines = (issues: { path: string; message: string; line?: number; column?: number }[], file?: string): string[] =>
  issues.map(({ path, message, line, column }) => [line === undefined ? file : `${file ?? "input"}:${line}:${column ?? 1}`, path, message].filter(Boolean).join(": "));

// oxlint-disable-next-line no-control-regex -- control characters are what it is about
const control = /\x1b\[\d*m|[\0-\x08\x0b-\x1f\x7f-\x9f]/g;

/** Without what would move the cursor or paint: text of others is shown, not obeyed. `colours` keeps those that a verb has put in. */
export const printable = (text: string, { colours = false } = {}): string => text.replaceAll(control, (found) => (colours && found.length > 1 ? found : "\uFFFD"));
