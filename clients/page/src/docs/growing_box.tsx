/** A box for text that is as high as what is in it. */
import { useLayoutEffect, useRef } from "preact/hooks";

const TALLEST = 500;

interface Props {
  label: string;
  value: string;
  onInput: (value: string) => void;
  onSend: () => void;
  /** Enter sends; else only with Ctrl or Cmd. */
  isOneLine?: boolean;
}

export function GrowingBox({ label, value, onInput, onSend, isOneLine = false }: Props) {
  const box = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const grow = () => fit(box.current);
    grow();
    // What is folded away has no height to grow to.
    const around = box.current?.closest("details");
    addEventListener("resize", grow);
    around?.addEventListener("toggle", grow);
    return () => {
      removeEventListener("resize", grow);
      around?.removeEventListener("toggle", grow);
    };
  }, [value]);
  return (
    <textarea
      ref={box}
      rows={1}
      class={isOneLine ? "address" : "body"}
      spellcheck={false}
      aria-label={label}
      value={value}
      onInput={(event) => onInput(event.currentTarget.value)}
      onKeyDown={(event) => {
        if (event.key !== "Enter" || !(isOneLine || event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        onSend();
      }}
    />
  );
}

function fit(box: HTMLTextAreaElement | null): void {
  if (!box) return;
  box.style.height = "auto";
  if (box.scrollHeight) box.style.height = `${Math.min(box.scrollHeight + 2, TALLEST)}px`;
}
