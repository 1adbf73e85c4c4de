/** Calls of tools that wait for their results, under the last answer. */
import { liveAnswers } from "../state/open";
import { isRunning } from "../state/texts";
import type { Message } from "../wire/types";

export function Calls({ messages }: { messages: Message[] }) {
  const last = messages.at(-1);
  if (last?.role !== "assistant" || isRunning(last.status) || liveAnswers.value.has(last.response_id)) return null;
  return null;
}
