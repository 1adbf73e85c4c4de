/** Whether anybody sees the page. Browsers open six connections to a host, for all tabs together. */
import { signal } from "@preact/signals";

export const isShown = signal(!document.hidden);

document.addEventListener("visibilitychange", () => (isShown.value = !document.hidden));
// A page that comes back from the browser's cache of pages was asleep.
window.addEventListener("pageshow", () => (isShown.value = !document.hidden));

/** Waits until the page is seen. */
export function untilShown(): Promise<void> {
  if (isShown.value) return Promise.resolve();
  return new Promise((resolve) => {
    const stop = isShown.subscribe((shown) => {
      if (shown) queueMicrotask(() => (stop(), resolve()));
    });
  });
}
