// InferenceClient of @huggingface/inference, with the server as its endpoint.
import assert from "node:assert/strict";
import { InferenceClient, InferenceClientProviderApiError } from "@huggingface/inference";
import { ADD, COUNTED, DEMO, KEY, MODEL, SCRIPTED, test, user } from "./server.mjs";

const connect = (url) => new InferenceClient(KEY, { endpointUrl: `${url}/v1/chat/completions` });
const demo = connect(DEMO);
const scripted = connect(SCRIPTED);

test("a whole answer", async () => {
  const answer = await demo.chatCompletion({ model: MODEL, messages: user("Count to 5") });
  assert.equal(answer.choices[0].message.content, COUNTED);
});

test("a stream", async () => {
  let text = "";
  for await (const chunk of demo.chatCompletionStream({ messages: user("Count to 5") })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, COUNTED);
});

test("the address of the server", async () => {
  const client = new InferenceClient().endpoint(DEMO);
  const answer = await client.chatCompletion({ messages: user("Count to 5") });
  assert.equal(answer.choices[0].message.content, COUNTED);
});

test("a tool call", async () => {
  const answer = await scripted.chatCompletion({
    messages: user("Please add 2 and 40."),
    tools: [ADD],
    tool_choice: "auto",
  });
  const [call] = answer.choices[0].message.tool_calls;
  assert.deepEqual(JSON.parse(call.function.arguments), { a: 2, b: 40 });
});

test("a format", async () => {
  const answer = await scripted.chatCompletion({
    messages: user("Describe Ann in JSON."),
    response_format: { type: "json_object" },
  });
  assert.equal(JSON.parse(answer.choices[0].message.content).name, "Ann");
});

test("leaving a stream", async () => {
  const fields = { messages: user("Count to 90"), ignore_eos: true };
  for await (const _ of demo.chatCompletionStream(fields)) break;
});

test("an error", async () => {
  await assert.rejects(demo.chatCompletion({ messages: user("Hi"), top_p: 7 }), (error) => {
    assert.ok(error instanceof InferenceClientProviderApiError);
    assert.equal(error.httpResponse.status, 400);
    assert.match(JSON.stringify(error.httpResponse.body), /top_p/);
    return true;
  });
});
