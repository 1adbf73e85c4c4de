// The official OpenAI SDK for Node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { ADD, ANN, COUNTED, DEMO, KEY, MODEL, Person, SCRIPTED, test, user } from "./server.mjs";

const connect = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 });
const demo = connect(DEMO);
const scripted = connect(SCRIPTED);

test("a whole answer", async () => {
  const answer = await demo.chat.completions.create({ model: MODEL, messages: user("Count to 5") });
  assert.equal(answer.choices[0].message.content, COUNTED);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.ok(answer._request_id);
});

test("a stream", async () => {
  const stream = await demo.chat.completions.create({
    model: MODEL,
    messages: user("Count to 5"),
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, COUNTED);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
});

test("the stream helper", async () => {
  const stream = demo.chat.completions.stream({ model: MODEL, messages: user("Count to 5") });
  const deltas = [];
  stream.on("content", (delta) => deltas.push(delta));
  assert.equal(await stream.finalContent(), COUNTED);
  assert.equal(deltas.join(""), COUNTED);
});

test("a readable stream", async () => {
  const stream = await demo.chat.completions.create({
    model: MODEL,
    messages: user("Count to 5"),
    stream: true,
  });
  const lines = await new Response(stream.toReadableStream()).text();
  assert.ok(lines.trim().split("\n").every((line) => JSON.parse(line).id));
});

test("parse with zod", async () => {
  const answer = await scripted.chat.completions.parse({
    model: MODEL,
    messages: user("Describe Ann in JSON."),
    response_format: zodResponseFormat(Person, "person"),
  });
  assert.deepEqual(answer.choices[0].message.parsed, ANN);
});

test("parse with zod in the stream helper", async () => {
  const stream = scripted.chat.completions.stream({
    model: MODEL,
    messages: user("Describe Ann in JSON."),
    response_format: zodResponseFormat(Person, "person"),
  });
  const answer = await stream.finalChatCompletion();
  assert.deepEqual(answer.choices[0].message.parsed, ANN);
});

test("a zod tool", async () => {
  const answer = await scripted.chat.completions.parse({
    model: MODEL,
    messages: user("Please add 2 and 40."),
    tools: [zodFunction({ name: "add", parameters: z.object({ a: z.number(), b: z.number() }) })],
  });
  const [call] = answer.choices[0].message.tool_calls;
  assert.deepEqual(call.function.parsed_arguments, { a: 2, b: 40 });
});

const add = {
  ...ADD,
  function: { ...ADD.function, parse: JSON.parse, function: ({ a, b }) => String(a + b) },
};

for (const stream of [false, true]) {
  test(`runTools${stream ? " in a stream" : ""}`, async () => {
    const runner = scripted.chat.completions.runTools({
      model: MODEL,
      messages: user("Please add 2 and 40."),
      tools: [add],
      stream,
    });
    assert.equal(await runner.finalContent(), "The result is 42.");
    assert.equal((await runner.finalFunctionToolCall()).name, "add");
  });
}

test("an enforced tool", async () => {
  const answer = await demo.chat.completions.create({
    model: MODEL,
    messages: user("Hello!"),
    tools: [ADD],
    tool_choice: { type: "function", function: { name: "add" } },
    max_tokens: 200,
  });
  const [call] = answer.choices[0].message.tool_calls;
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ["a", "b"]);
});

test("abort", async () => {
  const stream = await demo.chat.completions.create({
    model: MODEL,
    messages: user("Count to 90"),
    stream: true,
    ignore_eos: true,
  });
  for await (const _ of stream) break;
  assert.ok(stream.controller.signal.aborted);
});

test("abort by a signal", async () => {
  const controller = new AbortController();
  const stream = demo.chat.completions.stream(
    { model: MODEL, messages: user("Count to 90"), ignore_eos: true },
    { signal: controller.signal },
  );
  stream.on("content", () => controller.abort());
  await assert.rejects(stream.finalContent(), OpenAI.APIUserAbortError);
});

test("a timeout", async () => {
  const request = demo.chat.completions.create(
    { model: MODEL, messages: user("Count to 90"), max_tokens: 1500, ignore_eos: true },
    { timeout: 50 },
  );
  await assert.rejects(request, OpenAI.APIConnectionTimeoutError);
});

test("an error names the field", async () => {
  const request = demo.chat.completions.create({ model: MODEL, messages: user("Hi"), top_p: 7 });
  await assert.rejects(request, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "top_p");
    assert.equal(error.type, "invalid_request_error");
    return true;
  });
});

test("a wrong key", async () => {
  const stranger = scripted.withOptions({ apiKey: "wrong" });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

test("models", async () => {
  const names = [];
  for await (const model of demo.models.list()) names.push(model.id);
  assert.deepEqual(names, [MODEL]);
  assert.equal((await demo.models.retrieve(MODEL)).id, MODEL);
});

test("completions", async () => {
  const answer = await demo.completions.create({ model: MODEL, prompt: "1\n2\n", max_tokens: 4 });
  assert.equal(answer.object, "text_completion");
});

test("embeddings are not there", async () => {
  await assert.rejects(
    demo.embeddings.create({ model: MODEL, input: "Hi" }),
    OpenAI.NotFoundError,
  );
});
