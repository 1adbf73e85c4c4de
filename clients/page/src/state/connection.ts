/** Whether the server answers; when it is tried again, at growing distances. */
import { signal } from "@preact/signals";

const FIRST_MILLISECONDS = 500;
const LONGEST_MILLISECONDS = 15_000;

/** The server does not answer. why: as a sentence; retryAt: when it is asked again. */
export interface Lost {
  why: string;
  retryAt: number;
}

export const lost = signal<Lost | null>(null);

const sleepers = new Set<() => void>();

/** Something came from the server. */
export function reached(): void {
  if (lost.value !== null) lost.value = null;
}

/** Asks at once, whatever waits. */
export function tryNow(): void {
  for (const wake of [...sleepers]) wake();
}

window.addEventListener("online", tryNow);

/** Waits before the server is asked again. attempt: how many failed before, from 0 on. */
export async function beforeRetry(attempt: number, why: string, signal?: AbortSignal): Promise<void> {
  const wait = Math.min(FIRST_MILLISECONDS * 2 ** attempt, LONGEST_MILLISECONDS);
  lost.value = { why, retryAt: Date.now() + wait };
  await sleep(wait, signal);
}

/** Waits so long, or until somebody wants to try now, or until the signal. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      sleepers.delete(wake);
      signal?.removeEventListener("abort", wake);
      resolve();
    };
    const timer = window.setTimeout(wake, milliseconds);
    sleepers.add(wake);
    signal?.addEventListener("abort", wake);
    if (signal?.aborted) wake();
  });
}
