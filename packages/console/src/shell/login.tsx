import { useState, type FormEvent } from "react";
import { ProblemNote } from "../draw/problem.tsx";
import { asProblem, type Problem } from "../live/client.ts";

/** Asks for a token once per tab. It is tried before it is kept. */
export function Login({ refusal, enter, tryToken }: { refusal: Problem | null; enter: (token: string) => void; tryToken: (token: string) => Promise<unknown> }) {
  const [token, setToken] = useState("");
  const [trying, setTrying] = useState(false);
  const [problem, setProblem] = useState(refusal);
  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setTrying(true);
    try {
      await tryToken(token.trim());
      enter(token.trim());
    } catch (error) {
      setProblem(asProblem(error));
      setTrying(false);
    }
  };
  return (
    <main className="login">
      <form className="login-card" onSubmit={(event) => void submit(event)}>
        <img src="./cellplane.svg" alt="" width="36" height="36" />
        <h1>Cellplane</h1>
        <label htmlFor="token">API token</label>
        <input id="token" type="password" autoComplete="off" spellCheck={false} autoFocus required value={token} onChange={(event) => setToken(event.target.value)} />
        <p className="hint">
          <code>npm start</code> prints a link that brings its token along. The token is kept for this tab only.
        </p>
        {problem && <ProblemNote problem={problem} />}
        <button type="submit" className="button button-main" disabled={trying || token.trim() === ""}>
          {trying ? "Signing in…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
