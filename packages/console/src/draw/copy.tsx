import { useEffect, useState } from "react";
import { Icon } from "./icon.tsx";

/** Puts text on the clipboard. The API for it exists on secure origins only, so there is the old way too. */
async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  // oxlint-disable-next-line typescript/no-deprecated
  document.execCommand("copy");
  field.remove();
}

/** A command of the CLI that does what stands beside it, ready to be taken along. */
export function Command({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <span className="command">
      <code title={text}>{text}</code>
      <button type="button" className="icon-button" aria-label={`Copy as command: ${text}`} title="Copy as command" onClick={() => void copyText(text).then(() => setCopied(true))}>
        <Icon name={copied ? "check" : "copy"} />
      </button>
      <span className="unseen" role="status">{copied ? "Copied" : ""}</span>
    </span>
  );
}
