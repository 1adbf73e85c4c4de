// What the AI SDK of Vercel does with any of its providers, and the tool of its tests.
import assert from "node:assert/strict";
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
import { ANN, COUNTED, Person, test } from "./server.mjs";

export const add = tool({
  description: "Adds two numbers.",
  inputSchema: z.object({ a: z.number(), b: z.number() }),
  execute: async ({ a, b }) => a + b,
});

export async function join(stream) {
  let text = "";
  for await (const piece of stream) text += piece;
  return text;
}

/** demo, scripted: models of the provider. */
export function testEveryProvider(demo, scripted) {
  test("streamText", async () => {
    const result = streamText({ model: demo, prompt: "Count to 5" });
    assert.equal(await join(result.textStream), COUNTED);
    assert.equal(await result.finishReason, "stop");
    assert.ok((await result.usage).outputTokens > 5);
  });

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

  test("an error", async () => {
    const request = generateText({ model: demo, prompt: "Hi", topP: 7, maxRetries: 0 });
    await assert.rejects(request, (error) => {
      assert.ok(APICallError.isInstance(error));
      assert.equal(error.statusCode, 400);
      assert.match(error.message, /top_p/);
      return true;
    });
  });
}
