/**
 * The key of a server that wants one: asked for once, kept for the session of this tab, and given
 * to further tabs of the same page that ask for it.
 */
import { signal } from "@preact/signals";
import { ofTab } from "./kept";

const PLACE = "millstream.key";

export interface Wanted {
  isWrong: boolean;
}

/** Whether a key is to be asked for now, and why. */
export const wantedKey = signal<Wanted | null>(null);

let known: string | null = sendable(ofTab.get(PLACE));
let waiting: ((key: string) => void)[] = [];
let askTabs: () => void = () => undefined;

export function currentKey(): string | null {
  return known;
}

/** The key if a header can have it: printable letters of ASCII, no blanks; else null. */
export function sendable(key: string | null): string | null {
  return key !== null && /^[\x21-\x7e]+$/.test(key) ? key : null;
}

/** Keeps a key that can be sent, and lets everything go on that waits for one. */
export function giveKey(key: string): void {
  known = key;
  ofTab.put(PLACE, key);
  wantedKey.value = null;
  const all = waiting;
  waiting = [];
  for (const go of all) go(key);
}

/** A key other than the one that was refused (null: none was sent); whoever waits is many. */
export function anotherKey(refused: string | null): Promise<string> {
  if (known !== null && known !== refused) return Promise.resolve(known);
  wantedKey.value = { isWrong: refused !== null };
  if (refused === null) askTabs();
  return new Promise((resolve) => waiting.push(resolve));
}

/** How other tabs are asked for their key. */
export function keysComeFrom(ask: () => void): void {
  askTabs = ask;
}
