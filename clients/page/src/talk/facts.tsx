/** What an answer took: tokens, their speed, the time to the first, what the cache spared. */
import type { Timing, Usage } from "../wire/types";

export function Facts({ usage, timing }: { usage: Usage | null; timing: Timing | null }) {
  const facts = factsOf(usage, timing);
  if (!facts.length) return null;
  return (
    <ul class="facts quiet" aria-label="Facts about this answer">
      {facts.map(([name, fact]) => (
        <li key={name} data-fact={name}>{fact}</li>
      ))}
    </ul>
  );
}

/** Names and sentences of what is known. */
export function factsOf(usage: Usage | null, timing: Timing | null): [string, string][] {
  const facts: [string, string][] = [];
  if (usage) facts.push(["tokens", count(usage.output_tokens)]);
  const speed = tokensPerSecond(usage, timing);
  if (speed !== null) facts.push(["speed", `${speed < 10 ? speed.toFixed(1) : Math.round(speed)} tokens/s`]);
  if (timing && timing.first_token_seconds !== null) {
    facts.push(["first", `first token after ${seconds(timing.first_token_seconds)}`]);
  }
  if (timing && timing.queue_seconds !== null && timing.queue_seconds >= 0.1) {
    facts.push(["queue", `waited ${seconds(timing.queue_seconds)}`]);
  }
  const cached = usage?.input_tokens_details.cached_tokens ?? 0;
  if (usage) facts.push(["cached", `${cached} of ${usage.input_tokens} prompt tokens cached`]);
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
