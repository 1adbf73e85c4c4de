/** What a screen reader is told of answers: that one began and how it ended, not each word. */
import { useEffect, useRef, useState } from "preact/hooks";
import { liveAnswers, openChat, runningAnswer } from "../state/open";
import { openId } from "../state/router";
import { textOf } from "../state/texts";

const ENDS: Record<string, string> = {
  completed: "The answer is complete.",
  incomplete: "The answer was cut off at its limit.",
  cancelled: "The answer was stopped.",
  failed: "The answer failed.",
};

export function Announcer() {
  const [said, say] = useState("");
  const before = useRef<string | null>(null);
  const running = runningAnswer.value;
  const chat = openId.value;
  useEffect(() => {
    say("");
    before.current = null;
  }, [chat]);
  useEffect(() => {
    if (running !== null) say("The model is answering.");
    else if (before.current !== null) say(endOf(before.current));
    before.current = running;
  }, [running]);
  return <p class="for-readers" role="status" aria-live="polite">{said}</p>;
}

function endOf(response: string): string {
  const message = openChat.value?.messages.find((one) => one.response_id === response && one.role === "assistant");
  const live = liveAnswers.value.get(response)?.shown.value;
  const status = live?.status ?? message?.status ?? "";
  const words = textOf(live?.items ?? message?.items ?? []).slice(0, 200);
  return `${ENDS[status] ?? ""} ${words}`.trim();
}
