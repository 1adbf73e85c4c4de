// Streams an answer with `openai`, and stops another one halfway: the server stops, too.
//
//   npm ci --prefix clients/js && node clients/js/openai_stream.mjs http://127.0.0.1:8080
import OpenAI, { APIError } from "openai";

const url = process.argv[2] ?? process.env.MILLSTREAM_URL ?? "http://127.0.0.1:8080";
// openai insists on a key. While the server is busy, it waits and tries again (maxRetries).
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.OPENAI_API_KEY ?? "any" });

/** Prints the answer, up to `last` if that comes. */
async function answer(question, last) {
  const stop = new AbortController();
  const stream = await client.chat.completions.create(
    {
      model: "default", // the server serves one model, whatever the name
      messages: [{ role: "user", content: question }],
      stream: true,
      stream_options: { include_usage: true },
    },
    { signal: stop.signal },
  );
  for await (const { choices, usage } of stream) {
    const text = choices[0]?.delta?.content ?? "";
    process.stdout.write(text);
    if (usage) console.log(`\n(${usage.prompt_tokens} + ${usage.completion_tokens} tokens)`);
    // A stream that is stopped ends; one that was not begun throws APIUserAbortError.
    if (last && text.includes(last)) stop.abort();
  }
  if (stop.signal.aborted) console.log(" ... stopped");
}

try {
  await answer("Count to 10");
  await answer("Count to 90", "7");
} catch (error) {
  if (!(error instanceof APIError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
