/** The box in which one types: its text for each chat, and when it is sent. */
import { computed, effect, signal, untracked } from "@preact/signals";
import { cancelAnswer, continueAnswer, regenerate } from "../wire/chats";
import { told } from "../wire/errors";
import { NEW, departed, draftOf, hasArrived, keepDraft, noteDeparture, withoutSent } from "./drafts";
import { isLoading, openChat, refresh, runningAnswer } from "./open";
import { openId } from "./router";
import { deliver, knownResponses, sendMessage, sending, stopSending } from "./sending";

const LOOK_AGAIN_MILLISECONDS = 2000;

export const draft = signal(draftOf(openId.value ?? NEW));
/** Whether there is something to be stopped. */
export const isAnswering = computed(() => runningAnswer.value !== null);
/** What was to be done with an answer and failed, and why. */
export const actionFailure = signal<string | null>(null);

/** Does something, and says so if it fails. what: as a sentence. */
export async function attempt(what: string, work: () => Promise<void>): Promise<void> {
  actionFailure.value = null;
  try {
    await work();
  } catch (error) {
    actionFailure.value = `${what} ${told(error)}`;
  }
}

export function type(text: string): void {
  draft.value = text;
  keepDraft(openId.value ?? NEW, text);
}

/** Sends what is in the box, after the answer that is being made, if there is one. */
export async function submit(): Promise<void> {
  const text = draft.value.trim();
  if (!text || isLoading.value || sending.value.state === "under way") return;
  if (isAnswering.value) {
    sending.value = { state: "later" };
    return;
  }
  await sendMessage(text);
  draft.value = draftOf(openId.value ?? NEW);
}

/** What is to wait for the end of the answer is not sent after all. */
export function dontSend(): void {
  if (sending.value.state === "later") sending.value = { state: "idle" };
  else stopSending();
}

/** Stops the answer, or what asks for one. What was said until now is kept. */
export async function stop(): Promise<void> {
  if (document.activeElement?.matches(".composer button")) focusBox();
  if (sending.value.state !== "idle") dontSend();
  const running = runningAnswer.value;
  if (running === null) return;
  await attempt("The answer could not be stopped.", () => cancelAnswer(running));
  await refresh();
}

/** What was pressed goes away with what it did. */
function focusBox(): void {
  document.querySelector<HTMLElement>(".composer textarea")?.focus({ preventScroll: true });
}

export function answerAgain(response: string): Promise<boolean> {
  focusBox();
  return another((chat, signal) => regenerate(chat, response, signal));
}

export function answerOn(response: string): Promise<boolean> {
  focusBox();
  return another((chat, signal) => continueAnswer(chat, response, signal));
}

function another(attempt: Parameters<typeof deliver>[1]): Promise<boolean> {
  const id = openId.value;
  if (id === null) return Promise.resolve(false);
  const known = knownResponses();
  return deliver(id, attempt, () => !known.includes(openChat.value?.leaf ?? known[0] ?? ""));
}

effect(() => {
  const id = openId.value;
  untracked(() => {
    draft.value = draftOf(id ?? NEW);
    // What waits is of the chat that was open; its text is there when one comes back.
    const { state } = sending.value;
    if (state === "failed" || state === "later") sending.value = { state: "idle" };
    else if (state === "busy") stopSending();
  });
});

effect(() => {
  if (sending.value.state !== "later" || isAnswering.value) return;
  queueMicrotask(() => {
    sending.value = { state: "idle" };
    void submit();
  });
});

// After a reload: did it get there?
let lookedFor = "";
effect(() => {
  const chat = openChat.value;
  const departure = chat && departed(chat.id);
  if (!chat || !departure || sending.value.state !== "idle") return;
  if (hasArrived(chat, departure)) {
    noteDeparture(chat.id, null);
    untracked(() => type(withoutSent(draft.value, departure.text)));
  } else if (lookedFor !== chat.id) {
    lookedFor = chat.id;
    setTimeout(() => void refresh(), LOOK_AGAIN_MILLISECONDS);
  }
});
