/**
 * What is on its way to the server: a message, another answer, the rest of one.
 *
 * Rules: what was typed stays in the box until the server has said that its answer has begun; a
 * server that is busy or away is asked again on its own, until the reader stops that; nothing is sent
 * twice if it may have arrived: the chat is looked at first.
 */
import { signal } from "@preact/signals";
import { isGone } from "../wire/ask";
import { createChat, say, type Said } from "../wire/chats";
import { Refused, Unreachable, isAbort, told } from "../wire/errors";
import { readEvents, type NumberedEvent } from "../wire/events";
import { sleep } from "./connection";
import { isFollowing } from "./following";
import { NEW, draftOf, hasArrived, keepDraft, noteDeparture, withoutSent } from "./drafts";
import { addLive, makeLive, newSettings, openChat, refresh, show } from "./open";
import { goTo, openId } from "./router";
import { tellTabs } from "./tabs";

export type Sending =
  | { state: "idle" }
  /** It waits for the answer before it. */
  | { state: "later" }
  | { state: "under way" }
  /** The server takes nothing now; it is asked again. */
  | { state: "busy"; why: string; retryAt: number }
  | { state: "failed"; why: string; param: string | null };

export const sending = signal<Sending>({ state: "idle" });

const FIRST_MILLISECONDS = 1000;
const LONGEST_MILLISECONDS = 30_000;
let current = new AbortController();

/** What is asked of the server for a chat; its answer is a stream. */
export type Attempt = (chat: string, signal: AbortSignal) => Promise<Response>;

/** Whether it has arrived, as far as the chat tells. */
export type Arrived = () => boolean;

/** Ends what is on its way; what may have arrived already shows in the chat. */
export function stopSending(): void {
  current.abort();
  sending.value = { state: "idle" };
  void refresh();
}

/**
 * Asks until it is taken. arrived: tells after a break whether it was. Resolves to whether an answer
 * has begun.
 */
export async function deliver(chat: string, attempt: Attempt, arrived: Arrived): Promise<boolean> {
  current.abort();
  const mine = (current = new AbortController());
  isFollowing.value = true;
  for (let tries = 0; ; tries++) {
    sending.value = { state: "under way" };
    try {
      await begin(chat, attempt, mine.signal);
      if (!mine.signal.aborted) sending.value = { state: "idle" };
      return true;
    } catch (error) {
      if (isAbort(error) || mine.signal.aborted) return false;
      if (!(await mayTryAgain(error, tries, mine.signal, chat))) return false;
      if (error instanceof Unreachable && (await isThere(chat, arrived))) {
        sending.value = { state: "idle" };
        return true;
      }
      if (mine.signal.aborted) return false;
    }
  }
}

/** Sends a message to the open chat, which is made if it is new. */
export async function sendMessage(text: string, place: { parent?: string | null } = {}): Promise<boolean> {
  const id = openId.value ?? (await newChat(text));
  if (id === null) return false;
  const parent = place.parent !== undefined ? place.parent : (openChat.value?.leaf ?? null);
  const departure = { text, parent, known: knownResponses() };
  if (place.parent === undefined) noteDeparture(id, departure);
  const said: Said = { content: text, parent };
  const isTaken = await deliver(
    id,
    (chat, signal) => say(chat, said, signal),
    () => openChat.value !== null && hasArrived(openChat.value, departure),
  );
  if (place.parent === undefined) {
    noteDeparture(id, null);
    if (isTaken) keepDraft(id, withoutSent(draftOf(id).trimStart(), text));
  }
  return isTaken;
}

/** The responses of the open chat, as far as it is shown. */
export function knownResponses(): string[] {
  const messages = openChat.value?.messages ?? [];
  return messages.flatMap((message) => [message.response_id, ...message.versions]);
}

/** Sends the results of calls, which the answer goes on from. */
export function sendOutputs(input: Said["input"] & object): Promise<boolean> {
  const id = openId.value;
  if (id === null) return Promise.resolve(false);
  const parent = openChat.value?.leaf ?? null;
  return deliver(
    id,
    (chat, signal) => say(chat, { input, parent }, signal),
    () => openChat.value?.leaf !== parent,
  );
}

async function begin(chat: string, attempt: Attempt, signal: AbortSignal): Promise<void> {
  const abort = new AbortController();
  const stop = () => abort.abort();
  signal.addEventListener("abort", stop);
  const events = readEvents(await attempt(chat, abort.signal));
  const first: NumberedEvent[] = [];
  for (;;) {
    const { done, value } = await events.next();
    if (done) throw new Unreachable("the connection was cut");
    first.push(...value);
    const created = first.find(({ event }) => event.type === "response.created")?.event;
    if (created && "response" in created) {
      signal.removeEventListener("abort", stop);
      tellTabs({ kind: "changed", chat });
      // Whoever has gone to another chat meanwhile comes back to an answer that went on.
      if (openId.value !== chat) return abort.abort();
      const live = makeLive(created.response.id, chat);
      live.take(first);
      addLive(live);
      void live.follow({ events, abort });
      return refresh();
    }
  }
}

/** Waits if the server may take it later, and says so; else says why not. */
async function mayTryAgain(
  error: unknown,
  tries: number,
  signal: AbortSignal,
  chat: string,
): Promise<boolean> {
  const isPassing = error instanceof Unreachable || (error instanceof Refused && error.isPassing);
  if (!isPassing) {
    if (isGone(error) && chat === openId.value) await refresh();
    const param = error instanceof Refused ? error.param : null;
    sending.value = { state: "failed", why: told(error), param };
    return false;
  }
  const asked = error instanceof Refused ? error.retryAfter : null;
  const backoff = Math.min(FIRST_MILLISECONDS * 2 ** tries, LONGEST_MILLISECONDS);
  const wait = asked === null ? backoff : asked * 1000;
  sending.value = { state: "busy", why: told(error), retryAt: Date.now() + wait };
  await sleep(wait, signal);
  return !signal.aborted;
}

async function isThere(chat: string, arrived: Arrived): Promise<boolean> {
  if (chat !== openId.value) return false;
  await refresh();
  return arrived();
}

/** Makes the chat on the server, under whose id it goes on; null if that fails. */
async function newChat(text: string): Promise<string | null> {
  current.abort();
  const mine = (current = new AbortController());
  for (let tries = 0; ; tries++) {
    sending.value = { state: "under way" };
    try {
      const chat = await createChat(newSettings.value);
      if (mine.signal.aborted) return null;
      keepDraft(chat.id, text);
      keepDraft(NEW, "");
      openChat.value = chat;
      goTo(chat.id, { replaces: true });
      show(chat);
      tellTabs({ kind: "listed" });
      return chat.id;
    } catch (error) {
      if (mine.signal.aborted || !(await mayTryAgain(error, tries, mine.signal, ""))) return null;
    }
  }
}
