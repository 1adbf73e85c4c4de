// The AI SDK of Vercel, through its provider for OpenAI, which speaks to the Responses API.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import {
  APICallError,
  generateObject,
  generateText,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";
import { z } from "zod";
import { ANN, COUNTED, DEMO, KEY, MODEL, Person, SCRIPTED, test } from "./server.mjs";

const connect = (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: KEY }).responses(MODEL);
const demo = connect(DEMO);
const scripted = connect(SCRIPTED);

const add = tool({
  description: "Adds two numbers.",
  inputSchema: z.object({ a: z.number(), b: z.number() }),
  execute: async ({ a, b }) => a + b,
});

async function join(stream) {
  let text = "";
  for await (const piece of stream) text += piece;
  return text;
}

test("generateText", async () => {
  const result = await generateText({ model: demo, prompt: "Count to 5" });
  assert.equal(result.text, COUNTED);
  assert.equal(result.finishReason, "stop");
  assert.ok(result.usage.outputTokens > 5);
  assert.match(result.providerMetadata.openai.responseId, /^resp_/);
});

test("streamText", async () => {
  const result = streamText({ model: demo, prompt: "Count to 5" });
  assert.equal(await join(result.textStream), COUNTED);
  assert.equal(await result.finishReason, "stop");
  assert.ok((await result.usage).outputTokens > 5);
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

test("a tool loop in streamText", async () => {
  const result = streamText({
    model: scripted,
    prompt: "Add 1 and 2, also 3 and 4.",
    tools: { add },
    stopWhen: stepCountIs(5),
  });
  const kinds = [];
  for await (const part of result.fullStream) kinds.push(part.type);
  assert.equal(kinds.filter((kind) => kind === "tool-call").length, 2);
  assert.ok(kinds.includes("tool-input-delta"));
  assert.equal(await result.text, "Both: 3 and 7.");
});

for (const toolChoice of ["required", { type: "tool", toolName: "add" }]) {
  test(`an enforced tool, ${toolChoice.type ?? toolChoice}`, async () => {
    const result = await generateText({
      model: demo,
      prompt: "Hello!",
      tools: { add },
      toolChoice,
      maxOutputTokens: 200,
    });
    assert.equal(result.toolCalls[0].toolName, "add");
  });
}

test("generateObject", async () => {
  const result = await generateObject({
    model: scripted,
    schema: Person,
    prompt: "Describe Ann in JSON.",
  });
  assert.deepEqual(result.object, ANN);
});

test("streamObject", async () => {
  const result = streamObject({
    model: scripted,
    schema: Person,
    prompt: "Describe Ann in JSON.",
  });
  const states = [];
  for await (const state of result.partialObjectStream) states.push(state);
  assert.ok(states.length > 2);
  assert.deepEqual(await result.object, ANN);
});

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

test("an error", async () => {
  const request = generateText({ model: demo, prompt: "Hi", topP: 7, maxRetries: 0 });
  await assert.rejects(request, (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 400);
    assert.match(error.message, /top_p/);
    return true;
  });
});
