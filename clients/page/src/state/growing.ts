/** An answer that its events add up to. Costs what is new, whatever is there already. */
import type { AnswerStatus, Failure, OutputItem, StreamEvent, Usage } from "../wire/types";

export class GrowingAnswer {
  items: OutputItem[] = [];
  status: AnswerStatus = "queued";
  usage: Usage | null = null;
  error: Failure | null = null;
  /** The place at which it waits; null if it does not, or nobody said so. */
  position: number | null = null;
  isOver = false;

  /** Takes events, in their order. What has not changed stays the same object. */
  take(events: StreamEvent[]): void {
    const items = [...this.items];
    const own = new Set<number>();
    for (const event of events) this.#apply(event, items, own);
    this.items = this.isOver ? this.items : items;
  }

  #apply(event: StreamEvent, items: OutputItem[], own: Set<number>): void {
    switch (event.type) {
      case "queue.position":
        this.position = event.position;
        return;
      case "response.created":
      case "response.queued":
      case "response.in_progress":
        this.#turn(event.response.status);
        return;
      case "response.completed":
      case "response.incomplete":
      case "response.failed":
        this.#end(event.response);
        return;
      case "response.output_item.added":
      case "response.output_item.done":
        this.#turn("in_progress");
        items[event.output_index] = event.item;
        own.delete(event.output_index);
        return;
    }
    const item = ownItem(items, event.output_index, own);
    if (item) grow(item, event);
  }

  #turn(status: AnswerStatus): void {
    this.status = status;
    if (status !== "queued") this.position = null;
  }

  #end(response: { status: AnswerStatus; output: OutputItem[]; usage: Usage | null; error: Failure | null }): void {
    this.#turn(response.status);
    this.items = response.output;
    this.usage = response.usage;
    this.error = response.error;
    this.isOver = true;
  }
}

type Growth = Exclude<StreamEvent, { response: unknown } | { item: unknown } | { position: number }>;

/** A copy of the item that may be changed, made once for each list of events. */
function ownItem(items: OutputItem[], place: number, own: Set<number>): OutputItem | undefined {
  const item = items[place];
  if (!item || own.has(place)) return item;
  own.add(place);
  const copy = { ...item };
  if ("content" in copy && Array.isArray(copy.content)) {
    copy.content = copy.content.map((part) => ({ ...part }));
  }
  items[place] = copy;
  return copy;
}

function grow(item: OutputItem, event: Growth): void {
  switch (event.type) {
    case "response.content_part.added":
    case "response.content_part.done":
      if ("content" in item && Array.isArray(item.content)) {
        item.content[event.content_index] = { ...event.part };
      }
      return;
    case "response.output_text.delta":
    case "response.reasoning_text.delta": {
      const part = "content" in item && Array.isArray(item.content) && item.content[event.content_index];
      if (part) part.text += event.delta;
      return;
    }
    case "response.function_call_arguments.delta":
      if (item.type === "function_call") item.arguments += event.delta;
      return;
    case "response.custom_tool_call_input.delta":
      if (item.type === "custom_tool_call") item.input += event.delta;
      return;
  }
}
