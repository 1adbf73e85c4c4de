// A program of TGI's guide to streaming, for `@huggingface/inference` 2: only name, address and token differ.
import { HfInferenceEndpoint } from 'huggingface-inference-2'

const hf = new HfInferenceEndpoint(process.argv[2] ?? 'http://127.0.0.1:8080', process.env.HF_TOKEN)

// prompt
const prompt = 'What can you do in Nuremberg, Germany? Give me 3 Tips'

const stream = hf.textGenerationStream({ inputs: prompt })
for await (const r of stream) {
  // yield the generated token
  process.stdout.write(r.token.text)
}
