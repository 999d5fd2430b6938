import type { ReactNode } from "react";

/** A part of an inspector under a title of its own; `aside` says the gist of it, so that an empty part needs no content. */
export function Part({ title, aside, busy, children }: { title: string; aside?: string; busy?: boolean; children?: ReactNode }) {
  return (
    <section className="part" aria-busy={busy}>
      <h3>
        {title}
        {aside && <span className="part-aside">{aside}</span>}
      </h3>
      {children}
    </section>
  );
}
