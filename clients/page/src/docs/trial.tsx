/** A box to try a route: its address and body, what is sent as a command, and what comes back. */
import { useEffect, useRef, useState } from "preact/hooks";
import { AnswerText, parsed } from "./answer_text";
import { asCommand } from "./command";
import type { Operation } from "./document";
import { locate, send } from "./sending";
import { GrowingBox } from "./growing_box";

const EXAMPLES: Record<string, unknown> = {
  "/v1/chat/completions": { messages: [{ role: "user", content: "Count to 10" }], stream: true },
  "/v1/completions": { prompt: "Once upon a time", max_tokens: 64, stream: true },
  "/v1/responses": { input: "Count to 10", stream: true },
  "/tokenize": { prompt: "Hello" },
};

interface Props {
  path: string;
  method: string;
  operation: Operation;
  apiKey: string;
}

interface Outcome {
  state: string;
  said: string;
  raw: string | null;
  isStream: boolean;
}

const NOTHING: Outcome = { state: "", said: "", raw: null, isStream: false };

export function Trial({ path, method, operation, apiKey }: Props) {
  const names = [...path.matchAll(/{(\w+)}/g)].map((found) => found[1] ?? "");
  const [given, setGiven] = useState<Record<string, string>>({});
  const [address, setAddress] = useState(() => locate(path));
  const [body, setBody] = useState(() => JSON.stringify(EXAMPLES[path] ?? {}, null, 2));
  const { outcome, isRunning, run, stop } = useRequest();
  const sent = operation.requestBody ? body : undefined;
  const begin = () => run({ address, method, body: sent, key: apiKey });
  const fill = (name: string, value: string) => {
    const now = { ...given, [name]: value };
    setGiven(now);
    setAddress(locate(names.reduce((at, one) => (now[one] ? at.replace(`{${one}}`, encodeURIComponent(now[one])) : at), path)));
  };
  return (
    <section class="trial">
      <h3>Try it</h3>
      {names.map((name) => (
        <label key={name}>
          <code>{name}</code> <input value={given[name] ?? ""} onInput={(event) => fill(name, event.currentTarget.value)} />
        </label>
      ))}
      <GrowingBox label="address" value={address} onInput={setAddress} onSend={begin} isOneLine />
      {sent !== undefined && <GrowingBox label="body" value={body} onInput={setBody} onSend={begin} />}
      <details>
        <summary>As a command</summary>
        <pre>{asCommand({ address, method, body: sent, hasKey: Boolean(apiKey) })}</pre>
      </details>
      <div class="buttons">
        <button type="button" class="primary" disabled={isRunning} onClick={begin}>Send</button>
        <button type="button" disabled={!isRunning} onClick={stop}>Stop</button>
        <p class="quiet" role="status">{outcome.state}</p>
      </div>
      {outcome.said && <div class="said">{outcome.said}</div>}
      {outcome.raw !== null && (
        <details open={!outcome.isStream}>
          <summary>As it came</summary>
          <pre tabIndex={0}>{outcome.raw}</pre>
        </details>
      )}
    </section>
  );
}

interface Wanted {
  address: string;
  method: string;
  body: string | undefined;
  key: string;
}

/** One request at a time, and what has come of the last. */
function useRequest() {
  const [outcome, setOutcome] = useState(NOTHING);
  const running = useRef<AbortController | null>(null);
  const [isRunning, setRunning] = useState(false);
  useEffect(() => () => running.current?.abort(), []);
  const run = async (wanted: Wanted) => {
    if (running.current) return;
    const controller = (running.current = new AbortController());
    setRunning(true);
    setOutcome({ ...NOTHING, state: "waiting" });
    const tell = oncePerFrame(setOutcome);
    try {
      await show(await send(wanted, controller.signal), tell);
    } catch (error) {
      const isStopped = error instanceof DOMException && error.name === "AbortError";
      tell({ state: isStopped ? "stopped" : String(error) });
    }
    running.current = null;
    setRunning(false);
  };
  return { outcome, isRunning, run: (wanted: Wanted) => void run(wanted), stop: () => running.current?.abort() };
}

/** Takes news as they come, and lets them be seen once for each picture that is drawn. */
function oncePerFrame(see: (change: (now: Outcome) => Outcome) => void): (news: Partial<Outcome>) => void {
  let waiting: Partial<Outcome> | null = null;
  return (news) => {
    if (waiting) {
      Object.assign(waiting, news);
      return;
    }
    const mine = (waiting = { ...news });
    requestAnimationFrame(() => {
      waiting = null;
      see((now) => ({ ...now, ...mine }));
    });
  };
}

/** Tells of an answer while it comes. */
async function show(answer: Response, tell: (news: Partial<Outcome>) => void): Promise<void> {
  const status = `${answer.status} ${answer.statusText}`.trim();
  const isStream = (answer.headers.get("content-type") ?? "").startsWith("text/event-stream");
  const said = new AnswerText();
  let raw = "";
  tell({ state: status + (isStream ? ", events come" : ""), raw, isStream });
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    raw += part.value;
    tell(isStream ? { raw, said: said.read(part.value) } : { raw });
  }
  if (isStream) {
    tell({ state: `${status}, complete` });
    return;
  }
  const value = parsed(raw);
  tell({ raw: value === null ? raw : JSON.stringify(value, null, 2), said: said.take(value), state: status });
}
