// The official OpenAI SDK for Node: responses and conversations.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { ADD, ANN, COUNTED, DEMO, KEY, MODEL, Person, SCRIPTED, test } from "./server.mjs";

const connect = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 });
const demo = connect(DEMO);
const scripted = connect(SCRIPTED);
const TOOL = { type: "function", strict: false, ...ADD.function };

test("a whole answer", async () => {
  const response = await demo.responses.create({ model: MODEL, input: "Count to 5" });
  assert.equal(response.output_text, COUNTED);
  assert.equal(response.status, "completed");
});

test("a stream", async () => {
  const stream = await demo.responses.create({ model: MODEL, input: "Count to 5", stream: true });
  let text = "";
  let last = null;
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.equal(text, COUNTED);
  assert.equal(last.type, "response.completed");
});

test("the stream helper", async () => {
  const stream = demo.responses.stream({ model: MODEL, input: "Count to 5" });
  assert.equal((await stream.finalResponse()).output_text, COUNTED);
});

test("the stream helper takes a stream up again", async () => {
  const first = await demo.responses.create({
    model: MODEL,
    input: "Count to 20",
    stream: true,
    background: true,
  });
  let id = null;
  for await (const event of first) {
    id ??= event.response?.id;
    if (event.sequence_number === 6) break;
  }
  const rest = await demo.responses.retrieve(id, { stream: true, starting_after: 6 });
  const numbers = [];
  for await (const event of rest) numbers.push(event.sequence_number);
  assert.equal(numbers[0], 7);
  assert.deepEqual(numbers, [...numbers.keys()].map((place) => place + 7));
  assert.ok((await demo.responses.retrieve(id)).output_text.endsWith("20"));
});

test("an answer of a schema", async () => {
  const response = await scripted.responses.parse({
    model: MODEL,
    input: "Describe Ann in JSON",
    text: { format: zodTextFormat(Person, "person") },
  });
  assert.deepEqual(response.output_parsed, ANN);
});

test("a tool loop", async () => {
  const first = await scripted.responses.create({
    model: MODEL,
    input: "Please add 2 and 40.",
    tools: [TOOL],
  });
  const [call] = first.output;
  assert.deepEqual(JSON.parse(call.arguments), { a: 2, b: 40 });
  const second = await scripted.responses.create({
    model: MODEL,
    previous_response_id: first.id,
    input: [{ type: "function_call_output", call_id: call.call_id, output: "42" }],
    tools: [TOOL],
  });
  assert.equal(second.output_text, "The result is 42.");
});

test("the background, and its end", async () => {
  const started = await demo.responses.create({
    model: MODEL,
    input: "Count to 90",
    background: true,
  });
  assert.ok(["queued", "in_progress"].includes(started.status));
  assert.equal((await demo.responses.cancel(started.id)).status, "cancelled");
});

test("a conversation", async () => {
  const { id } = await scripted.conversations.create({ metadata: { topic: "sea" } });
  for (const word of ["sea", "shell"]) {
    const response = await scripted.responses.create({
      model: MODEL,
      input: `Repeat after me: ${word}`,
      conversation: id,
    });
    assert.equal(response.output_text, word);
  }
  const roles = [];
  for await (const item of scripted.conversations.items.list(id, { order: "asc", limit: 2 })) {
    roles.push(item.role);
  }
  assert.deepEqual(roles, ["user", "assistant", "user", "assistant"]);
  assert.ok((await scripted.conversations.delete(id)).deleted);
  await assert.rejects(scripted.conversations.retrieve(id), OpenAI.NotFoundError);
});

test("an error", async () => {
  const request = demo.responses.create({ model: MODEL, input: "Hi", temperature: 7 });
  await assert.rejects(request, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
});
