/** Reading messages and items. Pure. */
import type { AnswerStatus, Message, OutputItem, TextPart } from "../wire/types";

export function partsText(content: TextPart[] | string | null | undefined): string {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => part.text).join("");
}

/** What is said in messages among the items. */
export function textOf(items: OutputItem[]): string {
  const said = items.filter((item) => item.type === "message");
  return said.map((item) => partsText(item.content)).join("\n\n");
}

/** How many letters the items have, thoughts and calls too. */
export function lengthOf(items: OutputItem[]): number {
  let sum = 0;
  for (const item of items) {
    if (item.type === "message") sum += partsText(item.content).length;
    else if (item.type === "reasoning") sum += partsText(item.content).length;
    else if (item.type === "function_call") sum += item.arguments.length;
    else if (item.type === "custom_tool_call") sum += item.input.length;
  }
  return sum;
}

export function isRunning(status: AnswerStatus | null): boolean {
  return status === "queued" || status === "in_progress";
}

/** The response that the turn of this message follows; null for the first. */
export function previousOf(messages: Message[], message: Message): string | null {
  const place = messages.findIndex((one) => one.response_id === message.response_id);
  return messages[place - 1]?.response_id ?? null;
}

/** An answer whose calls have their results behind them, as far as they are there. */
export function withOutputs(items: OutputItem[], outputs: OutputItem[]): OutputItem[] {
  if (!outputs.length) return items;
  return items.flatMap((item) => {
    if (item.type !== "function_call" && item.type !== "custom_tool_call") return [item];
    const isIts = (one: OutputItem) => "output" in one && one.call_id === item.call_id;
    return [item, ...outputs.filter(isIts)];
  });
}

/** The old object where nothing has changed, so that it need not be shown again. */
export function shared<T extends { id: string }>(before: T[], now: T[]): T[] {
  const known = new Map(before.map((one) => [one.id, one]));
  return now.map((one) => {
    const old = known.get(one.id);
    return old && JSON.stringify(old) === JSON.stringify(one) ? old : one;
  });
}
