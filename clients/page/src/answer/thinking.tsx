import { useState } from "preact/hooks";
import { Markdown } from "./markdown/markdown";

interface ThinkingProps {
  text: string;
  isRunning: boolean;
  seconds: number | null;
}

/** What the model thought, folded away. Nothing is made of it before somebody unfolds it. */
export function Thinking({ text, isRunning, seconds }: ThinkingProps) {
  const [wasOpened, setWasOpened] = useState(false);
  return (
    <details
      class={isRunning ? "thinking running" : "thinking"}
      onToggle={(event) => {
        if (event.currentTarget.open) setWasOpened(true);
      }}
    >
      <summary>{isRunning ? "Thinking" : thoughtFor(seconds)}</summary>
      {wasOpened && <Markdown text={text} isRunning={isRunning} />}
    </details>
  );
}

/** How long it took, in words. */
export function thoughtFor(seconds: number | null): string {
  if (seconds === null) return "Thought";
  if (seconds < 1) return "Thought for less than a second";
  if (seconds < 60) return `Thought for ${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  return `Thought for ${Math.floor(whole / 60)} min ${whole % 60} s`;
}
