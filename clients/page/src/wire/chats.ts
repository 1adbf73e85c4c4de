/** The routes of chats and responses that the page uses: docs/api.md, "Chats". */
import { ask, askJson } from "./ask";
import type { Chat, ChatSummary, Listed, OutputItem, ResponseObject, Settings } from "./types";

export const PAGE = 40;
const LARGEST_PAGE = 100;

/** A page of chats; of so many, if that many are allowed. */
export function listChats(query: string, after: string | null, limit = PAGE): Promise<Listed<ChatSummary>> {
  const page = new URLSearchParams({ limit: String(Math.min(limit, LARGEST_PAGE)) });
  if (query) page.set("query", query);
  if (after !== null) page.set("after", after);
  return askJson(`v1/chats?${page}`);
}

export function createChat(settings: Settings): Promise<Chat> {
  return askJson("v1/chats", { method: "POST", body: { settings } });
}

export function readChat(id: string, signal?: AbortSignal): Promise<Chat> {
  return askJson(chatPath(id), signal ? { signal } : {});
}

export interface ChatChanges {
  title?: string | null;
  settings?: Settings;
  leaf?: string;
}

export function changeChat(id: string, changes: ChatChanges): Promise<Chat> {
  return askJson(chatPath(id), { method: "POST", body: changes });
}

export async function deleteChat(id: string): Promise<void> {
  await ask(chatPath(id), { method: "DELETE" });
}

/** What is sent. parent: the response that it follows; null for none, undefined for the last. */
export interface Said {
  content?: string;
  input?: Partial<OutputItem>[];
  parent?: string | null;
}

export function say(id: string, said: Said, signal: AbortSignal): Promise<Response> {
  const body = { ...said, stream: true };
  return ask(`${chatPath(id)}/messages`, { method: "POST", body, signal });
}

/** Answers the question of this response once more. */
export function regenerate(id: string, response: string, signal: AbortSignal): Promise<Response> {
  const body = { response, stream: true };
  return ask(`${chatPath(id)}/regenerate`, { method: "POST", body, signal });
}

/** Lets the answer go on that was cut. */
export function continueAnswer(id: string, response: string, signal: AbortSignal): Promise<Response> {
  const body = { response, stream: true };
  return ask(`${chatPath(id)}/continue`, { method: "POST", body, signal });
}

/** The events of an answer after this one; -1 for all. */
export function readAgain(response: string, after: number, signal: AbortSignal): Promise<Response> {
  const from = after < 0 ? "" : `&starting_after=${after}`;
  return ask(`v1/responses/${encodeURIComponent(response)}?stream=true${from}`, { signal });
}

export function readResponse(response: string, signal: AbortSignal): Promise<ResponseObject> {
  return askJson(`v1/responses/${encodeURIComponent(response)}`, { signal });
}

/** Ends an answer; what was said until now is kept. */
export async function cancelAnswer(response: string): Promise<void> {
  await ask(`v1/responses/${encodeURIComponent(response)}/cancel`, { method: "POST" });
}

/** The whole chat, with all branches, as a file is to have it. */
export async function exportChat(id: string): Promise<Blob> {
  return (await ask(`${chatPath(id)}/export`)).blob();
}

export function importChat(exported: unknown): Promise<Chat> {
  return askJson("v1/chats/import", { method: "POST", body: exported });
}

function chatPath(id: string): string {
  return `v1/chats/${encodeURIComponent(id)}`;
}
