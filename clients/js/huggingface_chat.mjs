// Streams an answer with `@huggingface/inference`, and stops another one halfway.
//
//   npm ci --prefix clients/js && node clients/js/huggingface_chat.mjs http://127.0.0.1:8080
import { InferenceClient, InferenceClientProviderApiError } from "@huggingface/inference";

const url = process.argv[2] ?? process.env.MILLSTREAM_URL ?? "http://127.0.0.1:8080";
const client = new InferenceClient(process.env.HF_TOKEN, { endpointUrl: url });

/** Prints the answer, up to `last` if that comes. Leaving the loop alone would not stop the server. */
async function answer(question, last) {
  const stop = new AbortController();
  const request = { messages: [{ role: "user", content: question }] };
  try {
    for await (const chunk of client.chatCompletionStream(request, { signal: stop.signal })) {
      const text = chunk.choices[0]?.delta.content ?? "";
      process.stdout.write(text);
      if (last && text.includes(last)) stop.abort();
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    process.stdout.write(" ... stopped");
  }
  console.log();
}

try {
  await answer("Count to 10");
  await answer("Count to 90", "7");
} catch (error) {
  if (!(error instanceof InferenceClientProviderApiError)) throw error;
  // It does not try again by itself; a full server answers 429.
  console.error(`${error.httpResponse.status}: ${error.message}`);
  process.exitCode = 1;
}
