import type { Problem } from "../live/client.ts";

/** What went wrong, and what to do. */
export function ProblemNote({ problem, retry }: { problem: Problem; retry?: () => void }) {
  return (
    <div className="problem" role="alert">
      <p className="problem-what">{problem.message}</p>
      <p className="problem-fix">{problem.fix}</p>
      <p className="problem-code">
        <code>{problem.code}</code>
        {problem.trace && <> · trace <code>{problem.trace}</code></>}
      </p>
      {retry && <button type="button" className="button" onClick={retry}>Try again</button>}
    </div>
  );
}
