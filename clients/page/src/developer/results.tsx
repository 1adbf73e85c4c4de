import { useId, useState } from "preact/hooks";
import { callInput, type CallItem } from "../answer/items";
import "./developer.css";

export interface CallOutput {
  type: "function_call_output" | "custom_tool_call_output";
  call_id: string;
  output: string;
}

interface CallResultsProps {
  calls: CallItem[];
  /** Whether the server took them. */
  onSend: (outputs: CallOutput[]) => Promise<boolean>;
}

/** Asks whoever develops for what the tools gave that the model has called. */
export function CallResults({ calls, onSend }: CallResultsProps) {
  const [texts, setTexts] = useState<Record<string, string>>({});
  const [isSending, setIsSending] = useState(false);
  const send = async () => {
    setIsSending(true);
    await onSend(calls.map((call) => outputOf(call, texts[call.call_id] ?? "")));
    setIsSending(false);
  };
  return (
    <form
      class="call-results"
      aria-label="Results of tools"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      {calls.map((call) => (
        <ResultField
          key={call.call_id}
          call={call}
          text={texts[call.call_id] ?? ""}
          onText={(text) => setTexts((before) => ({ ...before, [call.call_id]: text }))}
        />
      ))}
      <div class="buttons">
        <button type="submit" class="primary" disabled={isSending}>
          {calls.length === 1 ? "Send the result" : "Send the results"}
        </button>
      </div>
    </form>
  );
}

interface ResultFieldProps {
  call: CallItem;
  text: string;
  onText: (text: string) => void;
}

function ResultField({ call, text, onText }: ResultFieldProps) {
  const id = useId();
  const input = callInput(call).replace(/\s+/g, " ");
  const shown = input.length > 60 ? `${input.slice(0, 60)}…` : input;
  return (
    <div class="field">
      <label for={id}>Result of {call.name}</label>
      <textarea id={id} class="json" rows={2} value={text} aria-describedby={`${id}-hint`} onInput={(event) => onText(event.currentTarget.value)} />
      <span id={`${id}-hint`} class="quiet">
        The model waits for what {call.name} gives for {shown}
      </span>
    </div>
  );
}

function outputOf(call: CallItem, output: string): CallOutput {
  const type = call.type === "function_call" ? "function_call_output" : "custom_tool_call_output";
  return { type, call_id: call.call_id, output };
}
