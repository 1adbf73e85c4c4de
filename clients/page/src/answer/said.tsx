import { useEffect, useMemo, useRef } from "preact/hooks";
import { CodeView } from "./markdown/code_view";
import { Markdown } from "./markdown/markdown";

interface SaidProps {
  text: string;
  isRunning: boolean;
}

/** A message: Markdown, or JSON, in which stars and dashes are letters. */
export function Said({ text, isRunning }: SaidProps) {
  const isJson = useMemo(() => (isRunning ? mayBecomeJson(text) : parses(text)), [text, isRunning]);
  return isJson ? <JsonText text={text} isRunning={isRunning} /> : <Markdown text={text} isRunning={isRunning} />;
}

function JsonText({ text, isRunning }: SaidProps) {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<CodeView>(null);
  useEffect(() => {
    view.current ??= new CodeView();
    const code = { kind: "code", fence: null, indentation: 0, blanks: 0, language: "json" } as const;
    view.current.update({ ...code, text: text.trim(), isOpen: isRunning });
    place.current!.replaceChildren(view.current.element);
  }, [text, isRunning]);
  return <div class="markdown" ref={place} />;
}

function mayBecomeJson(text: string): boolean {
  return /^\s*(?:\{\s*(?:$|["}])|\[\s*(?:$|[{"]))/.test(text);
}

function parses(text: string): boolean {
  if (!mayBecomeJson(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
