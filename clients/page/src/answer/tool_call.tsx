import { partsText } from "../state/texts";
import type { CallOutputItem } from "../wire/types";
import { type CallItem, callInput, readable } from "./items";

interface ToolCallProps {
  call: CallItem;
  output: CallOutputItem | null;
  isRunning: boolean;
}

/** A call of a tool with what it was given and what it gave. */
export function ToolCall({ call, output, isRunning }: ToolCallProps) {
  const input = isRunning ? rawInput(call) : callInput(call);
  return (
    <details class="tool-call" open>
      <summary>
        <span class="tool-name">{call.namespace ? `${call.namespace}.${call.name}` : call.name}</span>{" "}
        <span class="quiet">{stateOf(output, isRunning)}</span>
      </summary>
      <CallText label={`What ${call.name} is given`} text={input} />
      {output && <ToolResult output={output} name={call.name} />}
    </details>
  );
}

/** What a tool gave. */
export function ToolResult({ output, name }: { output: CallOutputItem; name: string }) {
  return (
    <div class="tool-result">
      <div class="quiet">Result</div>
      <CallText label={`What ${name} gave`} text={readable(partsText(output.output))} />
    </div>
  );
}

function CallText({ label, text }: { label: string; text: string }) {
  return (
    <pre tabIndex={0} role="group" aria-label={label}>
      <code>{text}</code>
    </pre>
  );
}

function rawInput(call: CallItem): string {
  return call.type === "function_call" ? call.arguments : call.input;
}

function stateOf(output: CallOutputItem | null, isRunning: boolean): string {
  if (output) return "called";
  return isRunning ? "is being called" : "waits for its result";
}
