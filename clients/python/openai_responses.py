"""Calls a tool for the model and answers, with openai and the Responses API.

The server remembers the first response, so the second request has only the tool's result.

Usage: python openai_responses.py [BASE_URL]    (or set MILLSTREAM_URL)
"""

from __future__ import annotations

import json
import os
import sys

from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else None
base_url = base_url or os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")

client = OpenAI(base_url=f"{base_url}/v1", api_key="not needed")
response = client.responses.create(
    model="default",  # the server serves one model, whatever the name
    input="What is the weather in Paris?",
    tools=[
        {
            "type": "function",
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "strict": True,  # the arguments are held to the schema
        }
    ],
    tool_choice="required",
    parallel_tool_calls=False,
)
for call in response.output:
    if call.type == "function_call":
        city = json.loads(call.arguments)["city"]
        print(f"called: {call.name} for {city}")
        with client.responses.stream(
            model="default",
            previous_response_id=response.id,
            input=[
                {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": f"It is sunny in {city}, 20 degrees.",
                }
            ],
        ) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    print(event.delta, end="", flush=True)
            print(f"\n({stream.get_final_response().usage.total_tokens} tokens)")
