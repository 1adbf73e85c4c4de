import { useLayoutEffect, useRef } from "preact/hooks";
import { MarkdownView } from "./markdown_view";

/** Markdown of a text that may still grow. What is in the element is not Preact's. */
export function Markdown({ text, isRunning }: { text: string; isRunning: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<MarkdownView>(null);
  useLayoutEffect(() => {
    view.current ??= new MarkdownView(place.current!);
    view.current.update(text, isRunning);
  }, [text, isRunning]);
  return <div class="markdown" ref={place} />;
}
