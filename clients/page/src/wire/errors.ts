/** Why something that was asked of the server did not happen. */

/** The server refused. retryAfter: seconds after which it may be asked again; null if it does not say. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly param: string | null,
    readonly retryAfter: number | null,
  ) {
    super(message);
  }

  /** Whether the same may well work later: too many requests, a server that starts or ends. */
  get isPassing(): boolean {
    const codes = ["engine_unavailable", "engine_dead", "shutting_down", "model_loading"];
    return this.status === 429 || this.status === 502 || codes.includes(this.code);
  }
}

/** No answer came: the server is down, or the network is. */
export class Unreachable extends Error {}

interface ErrorBody {
  error?: { message?: string; code?: string; param?: string | null };
}

/** The refusal that an answer other than 2xx is. */
export async function refusalOf(answer: Response): Promise<Refused> {
  const text = await answer.text().catch(() => "");
  let body: ErrorBody = {};
  try {
    body = JSON.parse(text) as ErrorBody;
  } catch {
    // A proxy answers with what it likes.
  }
  const wait = Number(answer.headers.get("retry-after") ?? NaN);
  const message = body.error?.message ?? `the server answered with status ${answer.status}`;
  const code = body.error?.code ?? "";
  const retryAfter = Number.isFinite(wait) ? Math.max(wait, 0) : null;
  return new Refused(answer.status, code, message, body.error?.param ?? null, retryAfter);
}

/** What went wrong, as a sentence for the reader. */
export function told(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return sentence(message);
}

/** A message of the server as a sentence. */
export function sentence(message: string): string {
  const text = message.trim();
  if (!text) return "Something went wrong.";
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** Whether somebody of this page ended the request. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
