/** The address names the chat that is open: `#/c/ID`, or nothing for a new one. */
import { signal } from "@preact/signals";

/** The id of the open chat; null for a new one. */
export const openId = signal<string | null>(idOf(location.hash));

window.addEventListener("hashchange", () => (openId.value = idOf(location.hash)));

export function idOf(hash: string): string | null {
  const found = /^#\/c\/([A-Za-z0-9_-]+)$/.exec(hash);
  return found?.[1] ?? null;
}

export function hashOf(id: string | null): string {
  return id === null ? "#/" : `#/c/${id}`;
}

/** Opens a chat. replaces: the chat that was new has got an id, so going back leads past it. */
export function goTo(id: string | null, options: { replaces?: boolean } = {}): void {
  if (options.replaces) history.replaceState(null, "", hashOf(id));
  else if (location.hash !== hashOf(id)) history.pushState(null, "", hashOf(id));
  openId.value = id;
}
