import { useId, useState } from "preact/hooks";
import { told } from "../wire/errors";
import type { Typed } from "./typed_json";

/** What was typed and is not in use, as long as the page lives: a panel that was closed has it again. */
const unused = new Map<string, string>();

interface JsonFieldProps<T> {
  /** Under which what is typed is kept. */
  name: string;
  label: string;
  hint: string;
  /** What is in use, as text; empty for nothing. */
  used: string;
  example: string;
  read: (text: string) => Typed<T>;
  /** Throws what the server says against it. */
  onUse: (value: T | null) => Promise<void>;
}

/** A box for JSON, which says while one types what is wrong, and is used when one says so. */
export function JsonField<T>({ name, label, hint, used, example, read, onUse }: JsonFieldProps<T>) {
  const id = useId();
  const [typedText, setText] = useState<string | null>(unused.get(name) ?? null);
  const [refusal, setRefusal] = useState<string | null>(null);
  const text = typedText ?? used;
  const typed = read(text);
  const problem = typed.problem ?? refusal;
  const isUsed = typedText === null;
  const put = (next: string) => {
    setText(next);
    unused.set(name, next);
    setRefusal(null);
  };
  const use = async (next: string) => {
    put(next);
    const { value, problem } = read(next);
    if (problem !== null) return;
    try {
      await onUse(value);
      setText(null);
      unused.delete(name);
    } catch (error) {
      setRefusal(told(error));
    }
  };
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea
        id={id}
        class="json"
        rows={8}
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        value={text}
        aria-invalid={problem !== null}
        aria-describedby={`${id}-hint`}
        onInput={(event) => put(event.currentTarget.value)}
      />
      <span id={`${id}-hint`} class={problem ? "problem" : "quiet"} aria-live="polite">
        {problem ?? (isUsed && used ? "In use for every message of this chat." : hint)}
      </span>
      <div class="buttons">
        {!text.trim() && <button type="button" onClick={() => put(example)}>Example</button>}
        {used && <button type="button" onClick={() => void use("")}>Use none</button>}
        <button type="button" class="primary" disabled={isUsed || typed.problem !== null} onClick={() => void use(text)}>
          Use
        </button>
      </div>
    </div>
  );
}
