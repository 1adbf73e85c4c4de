// The official Anthropic SDK for Node: messages.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { ADD, COUNTED, DEMO, KEY, MODEL, SCRIPTED, test, user } from "./server.mjs";

const connect = (url) => new Anthropic({ baseURL: url, apiKey: KEY, maxRetries: 0 });
const demo = connect(DEMO);
const scripted = connect(SCRIPTED);
const { name, description, parameters } = ADD.function;
const TOOL = { name, description, input_schema: parameters };
const asked = (content) => ({ model: MODEL, max_tokens: 200, messages: user(content) });
const textOf = (message) =>
  message.content.filter((block) => block.type === "text").map((block) => block.text).join("");

test("a whole answer", async () => {
  const message = await demo.messages.create(asked("Count to 5"));
  assert.equal(textOf(message), COUNTED);
  assert.equal(message.stop_reason, "end_turn");
  assert.ok(message.usage.output_tokens > 0);
});

test("a stream", async () => {
  const stream = await demo.messages.create({ ...asked("Count to 5"), stream: true });
  let text = "";
  const kinds = new Set();
  for await (const event of stream) {
    kinds.add(event.type);
    if (event.type === "content_block_delta") text += event.delta.text;
  }
  assert.equal(text, COUNTED);
  for (const kind of ["message_start", "content_block_start", "message_delta", "message_stop"])
    assert.ok(kinds.has(kind), kind);
});

test("the stream helper", async () => {
  const texts = [];
  const stream = demo.messages.stream(asked("Count to 5")).on("text", (text) => texts.push(text));
  assert.equal(textOf(await stream.finalMessage()), COUNTED);
  assert.equal(texts.join(""), COUNTED);
  assert.ok(texts.length > 1);
});

test("a tool is called and answered", async () => {
  const request = { ...asked("Please add 2 and 40"), tools: [TOOL] };
  const first = await scripted.messages.stream(request).finalMessage();
  assert.equal(first.stop_reason, "tool_use");
  const call = first.content.find((block) => block.type === "tool_use");
  assert.deepEqual([call.name, call.input], ["add", { a: 2, b: 40 }]);
  const result = { type: "tool_result", tool_use_id: call.id, content: "42" };
  request.messages.push(
    { role: "assistant", content: first.content },
    { role: "user", content: [result] },
  );
  assert.equal(textOf(await scripted.messages.create(request)), "The result is 42.");
});

test("thoughts are blocks, and come back", async () => {
  const request = asked("Think aloud about seven");
  const first = await scripted.messages.stream(request).finalMessage();
  const thought = first.content.find((block) => block.type === "thinking");
  assert.equal(thought.thinking.trim(), "Seven has no divisors.");
  request.messages.push(
    { role: "assistant", content: first.content },
    ...user("Repeat after me: sea"),
  );
  assert.equal(textOf(await scripted.messages.create(request)), "sea");
});

test("tokens are counted", async () => {
  const { model, messages } = asked("Count to 5");
  const counted = await demo.messages.countTokens({ model, messages });
  const message = await demo.messages.create(asked("Count to 5"));
  const { input_tokens, cache_read_input_tokens } = message.usage;
  assert.equal(counted.input_tokens, input_tokens + cache_read_input_tokens);
});

test("a stream is aborted", async () => {
  const stream = demo.messages.stream(asked("Count to 50"));
  stream.on("text", () => stream.abort());
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
});

test("a wrong field is a bad request that names it", async () => {
  const wrong = demo.messages.create({ ...asked("Hi"), top_p: 7 });
  await assert.rejects(wrong, (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.match(error.message, /top_p/);
    return true;
  });
});

test("a wrong key is an authentication error", async () => {
  const stranger = new Anthropic({ baseURL: SCRIPTED, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.messages.create(asked("Hi")), Anthropic.AuthenticationError);
});
