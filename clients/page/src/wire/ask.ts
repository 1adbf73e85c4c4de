/** Requests to the server: addresses relative to where this script is from, the key, sessions, refusals as errors. */
import { Refused, Unreachable, isAbort, refusalOf } from "./errors";
import { anotherKey, currentKey } from "./key";

/** Scripts are in a folder of the place where the server is. */
const BASE = new URL("..", import.meta.url);

export interface Wish {
  method?: "GET" | "POST" | "DELETE";
  body?: unknown;
  signal?: AbortSignal;
}

/** The address of a path of the API, which may stand behind a prefix. */
export function address(path: string): string {
  return new URL(path, BASE).href;
}

/** The answer, if it is 2xx. Throws Refused or Unreachable; waits while a key is asked for. */
export async function ask(path: string, wish: Wish = {}): Promise<Response> {
  let hasNewSession = false;
  for (;;) {
    const key = currentKey();
    const answer = await send(path, wish, key);
    if (answer.ok) return ofTheServer(answer);
    const refusal = await refusalOf(answer);
    if (refusal.code === "invalid_api_key") {
      await anotherKey(key);
    } else if (refusal.code === "invalid_session" && !hasNewSession) {
      hasNewSession = true;
      await renewSession(wish.signal);
    } else {
      throw refusal;
    }
  }
}

/** The answer, if the server itself can have given it. Throws Refused. */
function ofTheServer(answer: Response): Response {
  const type = answer.headers.get("content-type") ?? "";
  if (/^(application\/json|text\/event-stream)\b/.test(type)) return answer;
  const why = "something between here and the server answers in its place, perhaps a login page; reload the page";
  throw new Refused(answer.status, "not_the_server", why, null, null);
}

/** The answer's JSON. Throws as `ask` does. */
export async function askJson<T>(path: string, wish: Wish = {}): Promise<T> {
  const answer = await ask(path, wish);
  try {
    return (await answer.json()) as T;
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Unreachable("the server's answer was cut off");
  }
}

async function send(path: string, wish: Wish, key: string | null): Promise<Response> {
  const headers = new Headers({ Accept: "application/json, text/event-stream" });
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  const init: RequestInit = { method: wish.method ?? "GET", headers, cache: "no-store" };
  if (wish.body !== undefined) {
    headers.set("Content-Type", "application/json");
    init.body = JSON.stringify(wish.body);
  }
  if (wish.signal) init.signal = wish.signal;
  try {
    return await fetch(address(path), init);
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Unreachable("the server does not answer");
  }
}

/** A server that has forgotten what it signed cookies with knows no session from before. */
async function renewSession(signal: AbortSignal | undefined): Promise<void> {
  const answer = await send("v1/sessions", { method: "POST", ...(signal && { signal }) }, null);
  if (!answer.ok) throw await refusalOf(answer);
}

export function isGone(error: unknown): boolean {
  return error instanceof Refused && error.status === 404 && error.code !== "store_off";
}
