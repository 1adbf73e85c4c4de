// The AI SDK of Vercel, through its provider for OpenAI-compatible servers.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, stepCountIs, streamText } from "ai";
import { ANN, COUNTED, DEMO, KEY, MODEL, Person, SCRIPTED, test } from "./server.mjs";
import { add, join, testEveryProvider } from "./vercel.mjs";

const connect = (url) =>
  createOpenAICompatible({
    name: "millstream",
    baseURL: `${url}/v1`,
    apiKey: KEY,
    includeUsage: true,
    supportsStructuredOutputs: true,
  })(MODEL);
const demo = connect(DEMO);
const scripted = connect(SCRIPTED);

testEveryProvider(demo, scripted);

test("generateText", async () => {
  const result = await generateText({ model: demo, prompt: "Count to 5" });
  assert.equal(result.text, COUNTED);
  assert.equal(result.finishReason, "stop");
  assert.ok(result.usage.outputTokens > 5);
});

test("a system prompt, a history and settings", async () => {
  const result = await generateText({
    model: scripted,
    system: "Be brief.",
    messages: [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "Hello" },
      { role: "user", content: [{ type: "text", text: "Repeat after me: sea" }] },
    ],
    temperature: 0.5,
    topP: 0.9,
    frequencyPenalty: 0.1,
    presencePenalty: 0.1,
    seed: 1,
    stopSequences: ["9"],
    maxOutputTokens: 50,
  });
  assert.equal(result.text, "sea");
});

test("reasoning", async () => {
  const result = streamText({ model: scripted, prompt: "Think aloud about seven" });
  assert.equal(await join(result.textStream), "It is a prime.");
  assert.equal(await result.reasoningText, "Seven has no divisors.");
});

test("a tool loop in generateText", async () => {
  const result = await generateText({
    model: scripted,
    prompt: "Please add 2 and 40.",
    tools: { add },
    stopWhen: stepCountIs(5),
  });
  assert.equal(result.text, "The result is 42.");
  assert.equal(result.steps.length, 2);
  assert.deepEqual(result.steps[0].toolCalls[0].input, { a: 2, b: 40 });
});

test("output of a type in generateText", async () => {
  const result = await generateText({
    model: scripted,
    output: Output.object({ schema: Person }),
    prompt: "Describe Ann in JSON.",
  });
  assert.deepEqual(result.output, ANN);
});

test("a choice that any model makes", async () => {
  const result = await generateObject({
    model: demo,
    output: "enum",
    enum: ["small", "large"],
    prompt: "How large is an elephant?",
  });
  assert.ok(["small", "large"].includes(result.object));
});

test("abort", async () => {
  const controller = new AbortController();
  const result = streamText({
    model: demo,
    prompt: "Count to 90",
    providerOptions: { millstream: { ignore_eos: true } },
    abortSignal: controller.signal,
  });
  const kinds = [];
  for await (const part of result.fullStream) {
    kinds.push(part.type);
    if (part.type === "text-delta") controller.abort();
  }
  assert.equal(kinds.at(-1), "abort");
});
