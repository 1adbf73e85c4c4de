/** Calls of tools that wait for their results, under the last answer. */
import { isCall } from "../answer/items";
import { CallResults } from "../developer/results";
import { liveAnswers } from "../state/open";
import { sendOutputs } from "../state/sending";
import { isRunning } from "../state/texts";
import type { Message } from "../wire/types";

export function Calls({ messages }: { messages: Message[] }) {
  const last = messages.at(-1);
  if (last?.role !== "assistant" || isRunning(last.status) || liveAnswers.value.has(last.response_id)) return null;
  const calls = last.items.filter(isCall);
  if (!calls.length) return null;
  return <CallResults key={last.response_id} calls={calls} onSend={sendOutputs} />;
}
