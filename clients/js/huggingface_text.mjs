// Streams text that goes on from a prompt, with `textGenerationStream` of `@huggingface/inference`.
//
//   npm ci --prefix clients/js && node clients/js/huggingface_text.mjs http://127.0.0.1:8080
import { InferenceClient } from "@huggingface/inference";

const url = process.argv[2] ?? process.env.MILLSTREAM_URL ?? "http://127.0.0.1:8080";
const client = new InferenceClient(process.env.HF_TOKEN, { endpointUrl: url });
const request = { inputs: "1 2 3 4", parameters: { max_new_tokens: 20 } };
for await (const part of client.textGenerationStream(request)) {
  process.stdout.write(part.token.text);
}
console.log();
