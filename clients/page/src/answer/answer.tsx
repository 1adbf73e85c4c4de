import { partsText } from "../state/texts";
import type { CallOutputItem, OutputItem, Timing } from "../wire/types";
import "./answer.css";
import { isCall, isOutput } from "./items";
import { Said } from "./said";
import { Thinking } from "./thinking";
import { ToolCall, ToolResult } from "./tool_call";

interface AnswerProps {
  items: OutputItem[];
  isRunning: boolean;
  timing: Timing | null;
}

/** What an answer says: texts, thoughts, calls of tools. Only the last item grows while it runs. */
export function Answer({ items, isRunning, timing }: AnswerProps) {
  const outputs = new Map(items.filter(isOutput).map((item) => [item.call_id, item]));
  const called = new Set(items.filter(isCall).map((item) => item.call_id));
  const last = items.findLastIndex((item) => !isOutput(item));
  return (
    <div class="answer">
      {items.map((item, place) => {
        if (isOutput(item) && called.has(item.call_id)) return null;
        const isGrowing = isRunning && place === last && item.status !== "completed";
        const output = isCall(item) ? (outputs.get(item.call_id) ?? null) : null;
        const seconds = timing?.reasoning_seconds ?? null;
        return <Item key={place} item={item} isRunning={isGrowing} output={output} seconds={seconds} />;
      })}
    </div>
  );
}

interface ItemProps {
  item: OutputItem;
  output: CallOutputItem | null;
  isRunning: boolean;
  seconds: number | null;
}

function Item({ item, output, isRunning, seconds }: ItemProps) {
  switch (item.type) {
    case "message":
      return <Said text={partsText(item.content)} isRunning={isRunning} />;
    case "reasoning":
      return <Thinking text={partsText(item.content ?? item.summary)} isRunning={isRunning} seconds={seconds} />;
    case "function_call":
    case "custom_tool_call":
      return <ToolCall call={item} output={output} isRunning={isRunning} />;
    default:
      return <ToolResult output={item} name="a tool" />;
  }
}
