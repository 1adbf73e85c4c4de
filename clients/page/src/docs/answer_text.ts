/** What an answer says, joined from its events or taken from the whole of it, for people. */

interface Call {
  index?: number;
  function: { name?: string; arguments?: string };
}

interface Said {
  content?: string | null;
  reasoning_content?: string | null;
  tool_calls?: Call[];
}

interface Choice {
  index: number;
  delta?: Said;
  message?: Said;
  text?: string;
}

interface Item {
  type: string;
  content?: { text?: string }[];
  name?: string;
  arguments?: string;
}

/** An answer of any route, or one of its events. */
interface News {
  error?: { message?: string } | null;
  choices?: Choice[];
  type?: string;
  delta?: string;
  output?: Item[];
  item?: Item;
}

interface Shown {
  reasoning: string;
  content: string;
  calls: { name: string; arguments: string }[];
}

export class AnswerText {
  private rest = "";
  private problem = "";
  private readonly choices: Shown[] = [];

  /** The text so far, after some more characters of a stream. */
  read(characters: string): string {
    const events = (this.rest + characters).split("\n\n");
    this.rest = events.pop() ?? "";
    for (const event of events) {
      const lines = event.split("\n").filter((line) => line.startsWith("data: "));
      const data = lines.map((line) => line.slice(6)).join("\n");
      if (data && data !== "[DONE]") this.take(parsed(data));
    }
    return this.text();
  }

  /** The text so far, after one more event or a whole answer. */
  take(value: unknown): string {
    if (typeof value !== "object" || value === null) return this.text();
    const news = value as News;
    if (news.error) this.problem = `Error: ${news.error.message ?? ""}`;
    for (const choice of Array.isArray(news.choices) ? news.choices : []) this.takeChoice(choice);
    this.takeOfResponse(news);
    return this.text();
  }

  text(): string {
    const shown = this.choices.map((choice, index) => [
      this.choices.length > 1 ? `Answer ${index + 1}` : "",
      choice.reasoning ? `(thinks: ${choice.reasoning.trim()})` : "",
      choice.content,
      ...choice.calls.map((call) => `calls ${call.name}(${call.arguments})`),
    ]);
    return [...shown.flat(), this.problem].filter((part) => part).join("\n\n");
  }

  private takeChoice(choice: Choice): void {
    const said = choice.delta ?? choice.message ?? { content: choice.text ?? "" };
    const shown = this.at(choice.index);
    shown.reasoning += said.reasoning_content ?? "";
    shown.content += said.content ?? "";
    for (const [place, call] of (said.tool_calls ?? []).entries()) {
      const known = (shown.calls[call.index ?? place] ??= { name: "", arguments: "" });
      known.name += call.function.name ?? "";
      known.arguments += call.function.arguments ?? "";
    }
  }

  /** Events and objects of the Responses API. */
  private takeOfResponse(news: News): void {
    if (news.type === "response.output_text.delta") this.at(0).content += news.delta ?? "";
    else if (news.type === "response.reasoning_text.delta") this.at(0).reasoning += news.delta ?? "";
    else if (news.type === "response.output_item.done") this.takeCall(news.item);
    for (const item of Array.isArray(news.output) ? news.output : []) {
      const text = (item.content ?? []).map((part) => part.text ?? "").join("");
      if (item.type === "message") this.at(0).content += text;
      else if (item.type === "reasoning") this.at(0).reasoning += text;
      else this.takeCall(item);
    }
  }

  private takeCall(item: Item | undefined): void {
    if (item?.type !== "function_call") return;
    this.at(0).calls.push({ name: item.name ?? "", arguments: item.arguments ?? "" });
  }

  private at(index: number): Shown {
    return (this.choices[index] ??= { reasoning: "", content: "", calls: [] });
  }
}

/** A text as the JSON that it is; null for what is none. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
