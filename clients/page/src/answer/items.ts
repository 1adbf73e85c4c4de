/** What the items of an answer say. Pure. */

import type { CallOutputItem, CustomCallItem, FunctionCallItem, OutputItem } from "../wire/types";

export type CallItem = FunctionCallItem | CustomCallItem;

export function isCall(item: OutputItem): item is CallItem {
  return item.type === "function_call" || item.type === "custom_tool_call";
}

export function isOutput(item: OutputItem): item is CallOutputItem {
  return item.type === "function_call_output" || item.type === "custom_tool_call_output";
}

/** What a call gives its tool: JSON written out over lines, or the text that it is. */
export function callInput(call: CallItem): string {
  return call.type === "function_call" ? readable(call.arguments) : call.input;
}

/** JSON over lines with two spaces a level; any other text as it is. */
export function readable(text: string): string {
  if (!/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
