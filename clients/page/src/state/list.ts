/** The list of chats: search, more pages, and what is done with a chat in it. */
import { effect, signal, untracked } from "@preact/signals";
import { changeChat, deleteChat, exportChat, importChat, listChats, PAGE } from "../wire/chats";
import { Refused, Unreachable, told } from "../wire/errors";
import type { ChatSummary, Listed } from "../wire/types";
import { beforeRetry, reached } from "./connection";
import { OFF, closeOpen, openChat, refresh, trouble, whenChanged } from "./open";
import { goTo, openId } from "./router";
import { hearTabs, tellTabs } from "./tabs";
import { isShown } from "./visible";

const REREAD_MILLISECONDS = 20_000;

export const chats = signal<ChatSummary[] | null>(null);
export const hasMore = signal(false);
/** The words that are searched. */
export const query = signal("");
/** Why something that was done with the list has failed. */
export const listFailure = signal<string | null>(null);

let newest = 0;

/** The words that the list was read with. */
let readWith = "";

/** Reads again what is shown, at least a page; what was asked for last holds. */
export async function readList(): Promise<void> {
  const mine = ++newest;
  for (let attempt = 0; mine === newest; attempt++) {
    try {
      const words = query.value.trim();
      const known = words === readWith ? (chats.value?.length ?? 0) : 0;
      const page = await listFirst(words, known);
      reached();
      if (mine !== newest) return;
      readWith = words;
      chats.value = page.data;
      hasMore.value = page.has_more;
      notice(page.data);
      return;
    } catch (error) {
      const isPassing = error instanceof Unreachable || (error instanceof Refused && error.isPassing);
      if (!isPassing) return listFailed(error);
      await beforeRetry(attempt, told(error));
    }
  }
}

/** The first so many, in as many pages as that takes. */
async function listFirst(words: string, number: number): Promise<Listed<ChatSummary>> {
  const found = await listChats(words, null, Math.max(number, PAGE));
  while (found.has_more && found.data.length < number) {
    const page = await listChats(words, found.data.at(-1)?.id ?? null, number - found.data.length);
    found.data.push(...page.data);
    found.has_more = page.has_more;
  }
  return found;
}

export async function readMore(): Promise<void> {
  const known = chats.value ?? [];
  const after = known.at(-1)?.id;
  if (after === undefined) return;
  const mine = ++newest;
  await done(async () => {
    const page = await listChats(query.value.trim(), after);
    if (mine !== newest) return;
    chats.value = [...known, ...page.data];
    hasMore.value = page.has_more;
  });
}

export function rename(id: string, title: string): Promise<boolean> {
  return done(async () => {
    // No title of one's own: the first words said.
    const changed = await changeChat(id, { title: title.trim() || null });
    chats.value = (chats.value ?? []).map((chat) => (chat.id === id ? { ...chat, ...changed } : chat));
    tellTabs({ kind: "changed", chat: id });
    if (openId.value === id) await refresh();
  });
}

export function remove(id: string): Promise<boolean> {
  return done(async () => {
    try {
      await deleteChat(id);
    } catch (error) {
      if (!(error instanceof Refused && error.status === 404)) throw error;
    }
    chats.value = (chats.value ?? []).filter((chat) => chat.id !== id);
    tellTabs({ kind: "deleted", chat: id });
    if (openId.value === id) goTo(null);
  });
}

export function exportFile(id: string, title: string): Promise<boolean> {
  return done(async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await exportChat(id));
    link.download = `${title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60) || "chat"}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

export function importFile(file: File): Promise<boolean> {
  return done(async () => {
    let content: unknown;
    try {
      content = JSON.parse(await file.text());
    } catch {
      throw new Error(`“${file.name}” is not a JSON file`);
    }
    const chat = await importChat(content).catch((error: unknown) => {
      if (!(error instanceof Refused && error.status === 400)) throw error;
      throw new Error(`“${file.name}” is not a chat that Millstream has exported (${error.message})`);
    });
    tellTabs({ kind: "listed" });
    goTo(chat.id);
    await readList();
  });
}

async function done(work: () => Promise<void>): Promise<boolean> {
  listFailure.value = null;
  try {
    await work();
    return true;
  } catch (error) {
    listFailure.value = told(error);
    return false;
  }
}

function listFailed(error: unknown): void {
  chats.value ??= [];
  if (error instanceof Refused && error.code === "store_off") trouble.value = OFF;
  else listFailure.value = told(error);
}

/** Another device may have gone on with the open chat. */
function notice(listed: ChatSummary[]): void {
  const open = openChat.value;
  const now = listed.find((chat) => chat.id === open?.id);
  if (open && now && (now.leaf !== open.leaf || now.title !== open.title)) void refresh();
}

hearTabs((heard) => {
  if (heard.kind === "deleted" && heard.chat === openId.value) {
    closeOpen("This chat was deleted in another tab.");
  }
  if (!isShown.value) return;
  if (heard.kind === "changed" && heard.chat === openId.value) void refresh();
  void readList();
});

effect(() => {
  // What went wrong with one chat is of no interest in another.
  void openId.value;
  listFailure.value = null;
});

whenChanged(() => void readList());

effect(() => {
  if (!isShown.value) return undefined;
  void untracked(readList);
  const timer = setInterval(() => void readList(), REREAD_MILLISECONDS);
  return () => clearInterval(timer);
});
