/** The side panel for developers: a schema for answers, tools, and the chat's request as programs. */

import { useEffect, useRef, useState } from "preact/hooks";
import { Close } from "../look/icons";
import { address, askJson } from "../wire/ask";
import { currentKey } from "../wire/key";
import type { Chat, FunctionTool, Settings } from "../wire/types";
import "./developer.css";
import { JsonField } from "./json_field";
import { programsOf } from "./programs";
import { bodyOf, type ShownRequest } from "./request";
import { RequestView } from "./request_view";
import { formatTyped, toolsTyped } from "./typed_json";

/** Its texts are short: some models would not end a long one by themselves. */
const SCHEMA = {
  type: "object",
  properties: { answer: { type: "string", maxLength: 60 }, is_certain: { type: "boolean" } },
  required: ["answer", "is_certain"],
  additionalProperties: false,
};
const TOOLS = [
  {
    type: "function",
    name: "get_weather",
    description: "The weather in a city now.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
];

interface PanelProps {
  chat: Pick<Chat, "id" | "settings" | "messages">;
  draft: string;
  /** Throws what the server says against it. */
  onSettings: (settings: Settings) => Promise<void>;
  onClose: () => void;
}

export function DeveloperPanel({ chat, draft, onSettings, onClose }: PanelProps) {
  const close = useRef<HTMLButtonElement>(null);
  const model = useModel();
  useEffect(() => close.current?.focus(), []);
  const { settings } = chat;
  const request: ShownRequest = {
    base: address("v1"),
    model,
    hasKey: currentKey() !== null,
    body: bodyOf(chat.messages, settings, draft),
  };
  const put = (name: "text" | "tools", value: unknown) => {
    const { [name]: _, ...others } = settings;
    return onSettings(value === null ? others : { ...others, [name]: value });
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    onClose();
  };
  return (
    <aside class="developer" aria-label="For developers" onKeyDown={onKey}>
      <header>
        <h2>For developers</h2>
        <button type="button" ref={close} class="plain icon" aria-label="Close" title="Close (Escape)" onClick={onClose}>
          <Close />
        </button>
      </header>
      <JsonField
        key={`${chat.id} schema`}
        name={`${chat.id} schema`}
        label="JSON schema"
        hint="Answers of this chat are JSON of this schema."
        used={schemaText(settings)}
        example={written(SCHEMA)}
        read={formatTyped}
        onUse={(format) => put("text", format && { format })}
      />
      <JsonField<FunctionTool[]>
        key={`${chat.id} tools`}
        name={`${chat.id} tools`}
        label="Tools"
        hint="What the model may call. You are asked here in the chat for what a call gives."
        used={settings.tools ? written(settings.tools) : ""}
        example={written(TOOLS)}
        read={toolsTyped}
        onUse={(tools) => put("tools", tools?.length ? tools : null)}
      />
      <RequestView programs={programsOf(request)} hasKey={request.hasKey} />
    </aside>
  );
}

/** The name of the model that is served. */
function useModel(): string {
  const [name, setName] = useState("default");
  useEffect(() => {
    const take = (models: { data: { id: string }[] }) => setName(models.data[0]?.id ?? "default");
    askJson<{ data: { id: string }[] }>("v1/models").then(take, () => undefined);
  }, []);
  return name;
}

/** The schema alone, where the format is one that this panel makes. */
function schemaText(settings: Settings): string {
  const format = settings.text?.format;
  if (!format) return "";
  const isOurs = format["type"] === "json_schema" && format["name"] === "answer" && Object.keys(format).length === 3;
  return written(isOurs ? format["schema"] : format);
}

function written(value: unknown): string {
  return JSON.stringify(value, null, 2);
}
