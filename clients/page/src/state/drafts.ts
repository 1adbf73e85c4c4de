/**
 * What was typed and not sent yet, for each chat, over reloads. What is being sent stays a draft
 * until the server has taken it, with a note of where it was to go: after a reload that note tells
 * whether it got there.
 */
import type { Chat, Message } from "../wire/types";
import { ofTab } from "../wire/kept";
import { previousOf, textOf } from "./texts";

/** The name of the chat that is not on the server yet. */
export const NEW = "new";

/**
 * parent: the response after which it was to come; null for none. known: responses that were there
 * before, among which it is not.
 */
export interface Departed {
  text: string;
  parent: string | null;
  known: string[];
}

export function draftOf(chat: string): string {
  return ofTab.get(`millstream.draft.${chat}`) ?? "";
}

export function keepDraft(chat: string, text: string): void {
  ofTab.put(`millstream.draft.${chat}`, text || null);
}

export function departed(chat: string): Departed | null {
  return ofTab.getJson<Departed>(`millstream.departed.${chat}`);
}

export function noteDeparture(chat: string, departure: Departed | null): void {
  ofTab.put(`millstream.departed.${chat}`, departure && JSON.stringify(departure));
}

/** The draft without what was sent of it: one may have typed on. */
export function withoutSent(draft: string, sent: string): string {
  return draft.startsWith(sent) ? draft.slice(sent.length).trimStart() : draft;
}

/** Whether what departed has arrived: the chat has this question at this place. */
export function hasArrived(chat: Chat, { text, parent, known }: Departed): boolean {
  const isIt = (message: Message) =>
    message.role === "user" &&
    !known.includes(message.response_id) &&
    textOf(message.items) === text &&
    previousOf(chat.messages, message) === parent;
  return chat.messages.some(isIt);
}
