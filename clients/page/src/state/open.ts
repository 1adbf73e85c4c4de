/**
 * The chat that is open: what the server has of it, and its answers that are being made.
 *
 * Rules: the server's copy is read again whenever something may have changed: an answer began or
 * ended here or in another tab, the page was asleep. Of two readings the one that was asked for last
 * holds. While an answer is read as it comes, what the server's copy says of it is passed over.
 */
import { batch, computed, effect, signal, untracked } from "@preact/signals";
import { isGone } from "../wire/ask";
import { changeChat, readChat, type ChatChanges } from "../wire/chats";
import { Refused, Unreachable, isAbort, told } from "../wire/errors";
import { ofTab } from "../wire/kept";
import type { Chat, Message, Settings } from "../wire/types";
import { beforeRetry, reached } from "./connection";
import { isFollowing } from "./following";
import { LiveAnswer } from "./live";
import { goTo, openId } from "./router";
import { tellTabs } from "./tabs";
import { isRunning, shared } from "./texts";
import { isShown } from "./visible";

const NEW_SETTINGS = "millstream.settings.new";

/** Why there is nothing to show. */
export interface Trouble {
  kind: "gone" | "off" | "other";
  message: string;
}

/** The server's copy; null while a chat is loaded, and for a new one. */
export const openChat = signal<Chat | null>(null);
export const trouble = signal<Trouble | null>(null);
export const liveAnswers = signal<ReadonlyMap<string, LiveAnswer>>(new Map());
/** What a new chat will be made with. */
export const newSettings = signal<Settings>(ofTab.getJson<Settings>(NEW_SETTINGS) ?? {});

export const isLoading = computed(
  () => openId.value !== null && openChat.value?.id !== openId.value && trouble.value === null,
);
export const openSettings = computed(() => openChat.value?.settings ?? newSettings.value);

/** The answer of the open branch that is being made, if there is one. */
export const runningAnswer = computed<string | null>(() => {
  const messages = openChat.value?.messages ?? [];
  const running = messages.findLast((message) => message.role === "assistant");
  if (!running || !isRunning(running.status)) return null;
  const live = liveAnswers.value.get(running.response_id);
  return live && !isRunning(live.shown.value.status) ? null : running.response_id;
});

let reading = new AbortController();
let onChanged: () => void = () => undefined;

/** Calls when the open chat has another title or another place in the list. */
export function whenChanged(call: () => void): void {
  onChanged = call;
}

/** Reads the open chat again, as often as it takes. */
export async function refresh(): Promise<void> {
  const id = openId.value;
  if (id === null) return;
  reading.abort();
  const mine = (reading = new AbortController());
  for (let attempt = 0; !mine.signal.aborted; attempt++) {
    try {
      const chat = await readChat(id, mine.signal);
      reached();
      if (!mine.signal.aborted) show(chat);
      return;
    } catch (error) {
      if (isAbort(error) || mine.signal.aborted) return;
      const isPassing = error instanceof Unreachable || (error instanceof Refused && error.isPassing);
      if (!isPassing) return fail(error);
      await beforeRetry(attempt, told(error), mine.signal);
    }
  }
}

/** Shows what the server says of the open chat. */
export function show(chat: Chat): void {
  if (chat.id !== openId.value) return;
  const before = openChat.value;
  const messages = shared(before?.id === chat.id ? before.messages : [], chat.messages);
  batch(() => {
    trouble.value = null;
    openChat.value = { ...chat, messages };
    followThose(messages);
  });
  if (before?.title !== chat.title || before.leaf !== chat.leaf) onChanged();
}

/** An answer that was just begun here; its stream is read already. */
export function addLive(live: LiveAnswer): void {
  liveAnswers.value = new Map(liveAnswers.value).set(live.id, live);
}

export function makeLive(id: string, chat: string): LiveAnswer {
  return new LiveAnswer(id, () => {
    tellTabs({ kind: "changed", chat });
    if (openId.value === chat) void refresh();
  });
}

/** Changes the open chat, on the server or, if it is new, here. Throws as requests do. */
export async function change(changes: ChatChanges): Promise<void> {
  const id = openId.value;
  if (id === null) {
    newSettings.value = changes.settings ?? newSettings.value;
    ofTab.put(NEW_SETTINGS, JSON.stringify(newSettings.value));
    return;
  }
  const chat = await changeChat(id, changes);
  reading.abort();
  show(chat);
  tellTabs({ kind: "changed", chat: id });
}

/** A new chat that starts out with the settings of nothing. */
export function openNew(): void {
  newSettings.value = {};
  ofTab.put(NEW_SETTINGS, null);
  goTo(null);
}

/** Nothing can be said here any more. */
export function closeOpen(message: string): void {
  if (trouble.value?.kind === "gone") return;
  trouble.value = { kind: "gone", message };
  followThose([]);
}

function fail(error: unknown): void {
  if (isGone(error)) closeOpen("This chat is not on the server, or not yours. It may have been deleted.");
  else if (error instanceof Refused && error.code === "store_off") trouble.value = OFF;
  else trouble.value = { kind: "other", message: told(error) };
}

/** What is said where chats cannot be kept. */
export const OFF: Trouble = {
  kind: "off",
  message:
    "This server keeps no chats, because it was started with --store off. Start it without that flag to chat here.",
};

/** Reads those answers as they come that are being made, and lets go of the others. */
function followThose(messages: Message[]): void {
  const answers = messages.filter((message) => message.role === "assistant");
  const wanted = new Map<string, LiveAnswer>();
  for (const message of answers) {
    const known = liveAnswers.value.get(message.response_id);
    if (!isRunning(message.status)) continue;
    wanted.set(message.response_id, known ?? follow(message));
  }
  for (const [id, live] of liveAnswers.value) if (!wanted.has(id)) live.leave();
  liveAnswers.value = wanted;
}

function follow(message: Message): LiveAnswer {
  const live = makeLive(message.response_id, openId.value ?? "");
  live.begin(message);
  void live.follow();
  return live;
}

effect(() => {
  const id = openId.value;
  untracked(() => {
    if (openChat.value?.id === id) return;
    batch(() => {
      reading.abort();
      openChat.value = null;
      trouble.value = null;
      isFollowing.value = true;
      followThose([]);
    });
    void refresh();
  });
});

let wasShown = isShown.peek();
effect(() => {
  const isAwake = isShown.value && !wasShown;
  wasShown = isShown.value;
  if (isAwake) void untracked(refresh);
});
