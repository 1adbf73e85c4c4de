/** What an answer took: tokens, their speed, the time to the first, what the cache spared. */
import type { Timing, Usage } from "../wire/types";

export function Facts({ usage, timing }: { usage: Usage | null; timing: Timing | null }) {
  const facts = factsOf(usage, timing);
  if (!facts.length) return null;
  return (
    <ul class="facts quiet" aria-label="Facts about this answer">
      {facts.map(({ name, long, short }) => (
        <li key={name} data-fact={name} title={long}>
          <span class="long">{long}</span>
          <span class="short" aria-hidden="true">{short}</span>
        </li>
      ))}
    </ul>
  );
}

/** A fact as a phrase, and as phones have room for it. */
interface Fact {
  name: string;
  long: string;
  short: string;
}

/** What is known. */
export function factsOf(usage: Usage | null, timing: Timing | null): Fact[] {
  const facts: Fact[] = [];
  const add = (name: string, long: string, short: string) => facts.push({ name, long, short });
  if (usage) add("tokens", count(usage.output_tokens), `${usage.output_tokens} tok`);
  const speed = tokensPerSecond(usage, timing);
  if (speed !== null) {
    const rounded = speed < 10 ? speed.toFixed(1) : String(Math.round(speed));
    add("speed", `${rounded} tokens/s`, `${rounded}/s`);
  }
  const first = timing?.first_token_seconds ?? null;
  if (first !== null) add("first", `first token after ${seconds(first)}`, seconds(first));
  const queue = timing?.queue_seconds ?? null;
  if (queue !== null && queue >= 0.1) add("queue", `waited ${seconds(queue)}`, `waited ${seconds(queue)}`);
  if (usage) {
    const cached = usage.input_tokens_details.cached_tokens;
    add("cached", `${cached} of ${usage.input_tokens} prompt tokens cached`, `${cached}/${usage.input_tokens} cached`);
  }
  return facts;
}

/** Of the tokens after the first; null where there are too few, or times were not measured. */
export function tokensPerSecond(usage: Usage | null, timing: Timing | null): number | null {
  if (!usage || !timing || timing.total_seconds === null || timing.first_token_seconds === null) return null;
  const took = timing.total_seconds - timing.first_token_seconds;
  return usage.output_tokens > 1 && took > 0 ? (usage.output_tokens - 1) / took : null;
}

function count(tokens: number): string {
  return tokens === 1 ? "1 token" : `${tokens} tokens`;
}

function seconds(value: number): string {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}
