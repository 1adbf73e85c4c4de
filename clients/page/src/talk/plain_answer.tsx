/** The items of an answer. */
import { partsText } from "../state/texts";
import type { OutputItem, Timing } from "../wire/types";

interface Props {
  items: OutputItem[];
  isRunning: boolean;
  timing: Timing | null;
}

export function Answer({ items }: Props) {
  return <>{items.map((item) => <p key={item.id} class="plain-text">{plain(item)}</p>)}</>;
}

function plain(item: OutputItem): string {
  if (item.type === "function_call") return `${item.name} ${item.arguments}`;
  if (item.type === "custom_tool_call") return `${item.name} ${item.input}`;
  return partsText("output" in item ? item.output : item.content);
}
