/** Server-sent events of an answer: https://html.spec.whatwg.org/multipage/server-sent-events.html */
import { Unreachable, isAbort } from "./errors";
import type { StreamEvent } from "./types";

/** Servers say something every 15 seconds, be it a comment, unless told otherwise. */
const SILENCE_MILLISECONDS = 60_000;

/** An event, and its number; null for those that are not kept. */
export interface NumberedEvent {
  number: number | null;
  event: StreamEvent;
}

/**
 * The events of a stream, in lists as they arrive together. Ends where the stream ends; what was cut
 * in the middle of an event is dropped, since it comes again. Throws Unreachable if it breaks.
 */
export async function* readEvents(answer: Response): AsyncGenerator<NumberedEvent[]> {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read());
      if (done) return;
      // Line ends of a server: "\n", or "\r\n" behind some proxies.
      const text = (rest + value).replaceAll("\r\n", "\n");
      const end = text.lastIndexOf("\n\n");
      rest = end < 0 ? text : text.slice(end + 2);
      if (end < 0) continue;
      const events = text.slice(0, end).split("\n\n").map(parseEvent).filter((one) => one !== null);
      if (events.length) yield events;
    }
  } catch (error) {
    if (isAbort(error) || error instanceof Unreachable) throw error;
    throw new Unreachable("the connection was cut");
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** One event; null for a comment, and for what is no JSON. */
export function parseEvent(block: string): NumberedEvent | null {
  let number: number | null = null;
  const data: string[] = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    else if (line.startsWith("id:")) number = Number(line.slice(3));
  }
  if (!data.length) return null;
  try {
    return { number, event: JSON.parse(data.join("\n")) as StreamEvent };
  } catch {
    return null;
  }
}

async function withinSilence<T>(reading: Promise<T>): Promise<T> {
  let timer = 0;
  const silence = new Promise<never>((_, reject) => {
    timer = window.setTimeout(
      () => reject(new Unreachable("the server has gone silent")),
      SILENCE_MILLISECONDS,
    );
  });
  try {
    return await Promise.race([reading, silence]);
  } finally {
    clearTimeout(timer);
  }
}
