import { useState } from "preact/hooks";
import { Check, Copy } from "../look/icons";
import { textOf } from "../state/texts";
import type { OutputItem } from "../wire/types";
import { copyText } from "./copying";

const SHOWN_MILLISECONDS = 2_000;

/** Copies what an answer says, as Markdown. Nothing, where it says nothing. */
export function CopyAnswer({ items }: { items: OutputItem[] }) {
  const [isCopied, setIsCopied] = useState<boolean | null>(null);
  const text = textOf(items);
  if (!text) return null;
  const copy = async () => {
    setIsCopied(await copyText(text));
    setTimeout(() => setIsCopied(null), SHOWN_MILLISECONDS);
  };
  const label = isCopied === null ? "Copy answer" : isCopied ? "Copied" : "Not copied";
  return (
    <button type="button" class="plain icon" aria-label={label} title={label} onClick={() => void copy()}>
      {isCopied ? <Check /> : <Copy />}
    </button>
  );
}
