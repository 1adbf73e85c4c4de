/**
 * Answers that are being made, read as they come.
 *
 * Rules: an answer goes on whoever reads it, so a stream that breaks, or that a hidden page has let
 * go, is read on after the last event that arrived; events of a frame are shown together; what a
 * reload has shown from the server's copy stays until the events have come as far.
 */
import { signal } from "@preact/signals";
import { readAgain } from "../wire/chats";
import { Refused, Unreachable, isAbort, sentence, told } from "../wire/errors";
import { readEvents, type NumberedEvent } from "../wire/events";
import type { AnswerStatus, Failure, Message, OutputItem, StreamEvent, Usage } from "../wire/types";
import { beforeRetry, reached } from "./connection";
import { GrowingAnswer } from "./growing";
import { lengthOf } from "./texts";
import { isShown, untilShown } from "./visible";

/** What the page shows of an answer that is being made, or just was. */
export interface Shown {
  items: OutputItem[];
  status: AnswerStatus;
  position: number | null;
  usage: Usage | null;
  error: Failure | null;
}

export class LiveAnswer {
  readonly shown = signal<Shown>({
    items: [],
    status: "queued",
    position: null,
    usage: null,
    error: null,
  });
  #answer = new GrowingAnswer();
  #waiting: StreamEvent[] = [];
  #frame = 0;
  #last = -1;
  /** Letters that a reloaded page shows already. */
  #ahead = 0;
  #isLeft = false;
  #stream = new AbortController();

  /** onOver: called once when it has ended, or is no longer there. */
  constructor(
    readonly id: string,
    private readonly onOver: (id: string) => void,
  ) {}

  get isOver(): boolean {
    return this.#answer.isOver;
  }

  /** Shows what the server has of it. */
  begin(message: Message): void {
    this.#ahead = lengthOf(message.items);
    const { items, status, usage, error } = message;
    this.shown.value = { items, status: status ?? "queued", position: null, usage, error };
  }

  /** Nobody wants to see it any more; it goes on. */
  leave(): void {
    this.#isLeft = true;
    cancelAnimationFrame(this.#frame);
    this.#stream.abort();
  }

  take(events: NumberedEvent[]): void {
    for (const { number, event } of events) {
      if ("error" in event) {
        const failure = event.error as Failure;
        throw new Unreachable(failure.message);
      }
      if (number !== null) this.#last = number;
      this.#waiting.push(event);
    }
    if (this.#waiting.some((event) => "response" in event)) this.#show();
    else if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#show());
  }

  #show(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#answer.take(this.#waiting);
    this.#waiting = [];
    const { items, status, position, usage, error, isOver } = this.#answer;
    if (!isOver && this.#ahead > 0 && lengthOf(items) < this.#ahead) return;
    this.#ahead = 0;
    this.shown.value = { items, status, position, usage, error };
  }

  /** Reads until the end. begun: a stream that is open already. */
  async follow(begun?: { events: AsyncGenerator<NumberedEvent[]>; abort: AbortController }): Promise<void> {
    let attempt = 0;
    let open = begun;
    while (!this.isOver && !this.#isLeft) {
      if (!isShown.value) {
        open?.abort.abort();
        open = undefined;
        await untilShown();
      }
      this.#stream = open?.abort ?? new AbortController();
      const stop = isShown.subscribe((shown) => {
        if (!shown) this.#stream.abort();
      });
      try {
        const events = open?.events ?? readEvents(await readAgain(this.id, this.#last, this.#stream.signal));
        open = undefined;
        reached();
        for await (const some of events) {
          attempt = 0;
          this.take(some);
          if (this.isOver) break;
        }
        if (!this.isOver) throw new Unreachable("the connection was cut");
      } catch (error) {
        open = undefined;
        if (!isAbort(error) && !(await this.#recovers(error, attempt++))) return;
      } finally {
        stop();
      }
    }
    if (this.isOver) this.onOver(this.id);
  }

  /** Waits after a failure; false if there is nothing to read any more. */
  async #recovers(error: unknown, attempt: number): Promise<boolean> {
    if (error instanceof Refused && [400, 404].includes(error.status)) {
      this.#answer.isOver = true;
      const lost = { code: error.code, message: sentence(error.message) };
      this.shown.value = { ...this.shown.value, status: "failed", error: lost };
      this.onOver(this.id);
      return false;
    }
    await beforeRetry(attempt, told(error));
    return true;
  }
}
