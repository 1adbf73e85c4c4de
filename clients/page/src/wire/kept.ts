/** What a tab, or the browser, keeps over reloads. Where it may keep nothing, it is kept as long as the page lives. */

class Kept {
  readonly #here = new Map<string, string>();

  /** open: gives the storage; throws where the browser allows none. */
  constructor(private readonly open: () => Storage) {}

  get(name: string): string | null {
    const here = this.#here.get(name);
    if (here !== undefined) return here;
    try {
      return this.open().getItem(name);
    } catch {
      return null;
    }
  }

  /** What was put as JSON; null if there is nothing, or something else. */
  getJson<T>(name: string): T | null {
    try {
      return JSON.parse(this.get(name) ?? "null") as T | null;
    } catch {
      return null;
    }
  }

  /** Keeps the text; nothing for null. */
  put(name: string, text: string | null): void {
    this.#here.delete(name);
    try {
      if (text === null) this.open().removeItem(name);
      else this.open().setItem(name, text);
    } catch {
      // Not allowed, or full.
      if (text !== null) this.#here.set(name, text);
    }
  }
}

/** Of this tab, until it is closed. */
export const ofTab = new Kept(() => sessionStorage);
/** Of this browser. */
export const ofBrowser = new Kept(() => localStorage);
