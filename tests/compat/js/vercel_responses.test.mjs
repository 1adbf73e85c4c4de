// The AI SDK of Vercel, through its provider for OpenAI, which speaks to the Responses API.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText } from "ai";
import { COUNTED, DEMO, KEY, MODEL, SCRIPTED, test } from "./server.mjs";
import { add, testEveryProvider } from "./vercel.mjs";

const connect = (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: KEY }).responses(MODEL);
const demo = connect(DEMO);
const scripted = connect(SCRIPTED);

testEveryProvider(demo, scripted);

test("generateText", async () => {
  const result = await generateText({ model: demo, prompt: "Count to 5" });
  assert.equal(result.text, COUNTED);
  assert.equal(result.finishReason, "stop");
  assert.ok(result.usage.outputTokens > 5);
  assert.match(result.providerMetadata.openai.responseId, /^resp_/);
});

test("an answer that is cut", async () => {
  const result = await generateText({ model: demo, prompt: "Count to 50", maxOutputTokens: 16 });
  assert.equal(result.finishReason, "length");
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
    maxOutputTokens: 50,
  });
  assert.equal(result.text, "sea");
});

test("the turn before, by its id", async () => {
  const first = await generateText({ model: demo, prompt: "My name is Anna." });
  const second = await generateText({
    model: demo,
    prompt: "What is my name?",
    providerOptions: { openai: { previousResponseId: first.providerMetadata.openai.responseId } },
  });
  assert.match(second.text, /Anna/);
});

for (const store of [true, false]) {
  test(`a tool loop in generateText, ${store ? "stored" : "not stored"}`, async () => {
    const result = await generateText({
      model: scripted,
      prompt: "Please add 2 and 40.",
      tools: { add },
      stopWhen: stepCountIs(5),
      providerOptions: { openai: { store } },
    });
    assert.equal(result.text, "The result is 42.");
    assert.equal(result.steps.length, 2);
    assert.deepEqual(result.steps[0].toolCalls[0].input, { a: 2, b: 40 });
  });
}

test("abort", async () => {
  const controller = new AbortController();
  const result = streamText({
    model: demo,
    prompt: "Count to 90",
    abortSignal: controller.signal,
  });
  const kinds = [];
  for await (const part of result.fullStream) {
    kinds.push(part.type);
    if (part.type === "text-delta") controller.abort();
  }
  assert.equal(kinds.at(-1), "abort");
});
