/** The request that the chat stands for, as one to `v1/responses` with all settings in it. Pure. */

import { partsText } from "../state/texts";
import type { Message, OutputItem, Settings } from "../wire/types";

export interface ShownRequest {
  /** The address of the API, with `v1` at its end. */
  base: string;
  model: string;
  hasKey: boolean;
  body: Record<string, unknown>;
}

/**
 * What is asked: the draft after all that was said, or without one the last question once more. What was
 * said before stands in it, since responses of a visitor are known to that visitor's browser alone.
 */
export function bodyOf(messages: Message[], settings: Settings, draft: string): Record<string, unknown> {
  const text = draft.trim();
  const end = messages.findLastIndex((message) => message.role !== "assistant") + 1;
  const said = (text ? messages : messages.slice(0, end)).flatMap((message) => message.items.map(sendable));
  if (text || !said.length) said.push({ type: "message", role: "user", content: text || "Hello!" });
  const [only] = said.length === 1 && said[0]!["type"] === "message" ? said : [];
  return { input: only ? only["content"] : said, ...settings, stream: true };
}

/** An item as it is sent: without what the server gave it. */
function sendable(item: OutputItem): Record<string, unknown> {
  const { id: _, status: __, ...rest } = item;
  if (rest.type === "message") return { type: "message", role: rest.role, content: partsText(rest.content) };
  if (rest.type !== "reasoning") return rest;
  const content = [{ type: "reasoning_text", text: partsText(rest.content ?? rest.summary) }];
  return { type: "reasoning", summary: [], content };
}
