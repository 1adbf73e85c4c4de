/** The same request as programs that run as they stand. The key is in none of them. Pure. */

import type { ShownRequest } from "./request";

const KEY = "MILLSTREAM_API_KEY";

export interface Program {
  name: string;
  language: string;
  text: string;
}

export function programsOf(request: ShownRequest): Program[] {
  return [
    { name: "curl", language: "bash", text: curl(request) },
    { name: "Python: openai", language: "python", text: openai(request) },
    { name: "Python: httpx", language: "python", text: httpx(request) },
  ];
}

function curl({ base, hasKey, body }: ShownRequest): string {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const lines = [
    `curl -sSN ${base}/responses`,
    "-H 'Content-Type: application/json'",
    ...(hasKey ? [`-H "Authorization: Bearer $${KEY}"`] : []),
    `-d '${quoted}'`,
  ];
  return `${lines.join(" \\\n  ")}\n`;
}

/** Fields that openai's SDK has names for; others go in `extra_body`. */
const NAMED = new Set(
  ("input instructions max_output_tokens metadata parallel_tool_calls previous_response_id reasoning stream " +
    "temperature text tool_choice tools top_logprobs top_p truncation").split(" "),
);

function openai({ base, model, hasKey, body }: ShownRequest): string {
  const fields = Object.entries(body);
  const named = fields.filter(([name]) => NAMED.has(name));
  const extra = Object.fromEntries(fields.filter(([name]) => !NAMED.has(name)));
  const key = hasKey ? `os.environ["${KEY}"]` : '"none"';
  const given = [["model", model] as [string, unknown], ...named];
  if (Object.keys(extra).length) given.push(["extra_body", extra]);
  return `${hasKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${python(base)}, api_key=${key})
events = client.responses.create(
${given.map(([name, value]) => `    ${name}=${python(value, 4)},\n`).join("")})
for event in events:
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
print()
`;
}

function httpx({ base, hasKey, body }: ShownRequest): string {
  const headers = hasKey ? `\nheaders = {"Authorization": f"Bearer {os.environ['${KEY}']}"}` : "\nheaders = {}";
  return `import json
${hasKey ? "import os\n" : ""}
import httpx

body = ${python(body)}${headers}
url = ${python(`${base}/responses`)}
with httpx.stream("POST", url, json=body, headers=headers, timeout=None) as response:
    response.raise_for_status()
    for line in response.iter_lines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line.removeprefix("data: "))
        if event["type"] == "response.output_text.delta":
            print(event["delta"], end="", flush=True)
print()
`;
}

/** A JSON value as Python writes it; lines after the first are so far in. */
export function python(value: unknown, spaces = 0): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const inner = Array.isArray(value)
    ? value.map((each) => python(each, spaces + 4))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, spaces + 4)}`);
  if (!inner.length) return `${open}${close}`;
  const indented = inner.map((each) => `${" ".repeat(spaces + 4)}${each},\n`).join("");
  return `${open}\n${indented}${" ".repeat(spaces)}${close}`;
}
