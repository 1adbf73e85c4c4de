/** The system prompt and how words are drawn, for the chat that is open. */
import { useId, useState } from "preact/hooks";
import { Dialog } from "../look/dialog";
import { change, openSettings } from "../state/open";
import { Refused, told } from "../wire/errors";
import { EFFORTS, NUMBERS, formOf, problemOf, settingsOf, type Form, type NumberField } from "./sampling";

interface Refusal {
  message: string;
  /** The field that the server refuses, if it names one of these. */
  field: string | null;
}

export function SettingsDialog({ onClose }: { onClose: () => void }) {
  const [form, setForm] = useState<Form>(formOf(openSettings.value));
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const hasProblem = NUMBERS.some((field) => problemOf(field, form[field.name] ?? ""));
  const put = (name: string) => (value: string) => {
    setForm((before) => ({ ...before, [name]: value }));
    setRefusal(null);
  };
  const save = async () => {
    if (hasProblem) return;
    try {
      await change({ settings: settingsOf(form, openSettings.value) });
      onClose();
    } catch (error) {
      setRefusal({ message: told(error), field: fieldOf(error) });
    }
  };
  return (
    <Dialog title="Settings of this chat" onClose={onClose}>
      <form
        class="settings"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void save();
        }}
      >
        <LongField
          name="instructions"
          label="System prompt"
          hint="Tells the model who it is and how it should answer."
          rows={5}
          value={form["instructions"] ?? ""}
          onInput={put("instructions")}
          refusal={refusal}
        />
        <fieldset>
          <legend>How words are drawn</legend>
          <p class="quiet">What is left empty is as the model’s makers advise.</p>
          <div class="grid">
            {NUMBERS.map((field) => (
              <NumberInput
                key={field.name}
                field={field}
                value={form[field.name] ?? ""}
                onInput={put(field.name)}
                refusal={refusal}
              />
            ))}
            <Effort value={form["effort"] ?? ""} onInput={put("effort")} refusal={refusal} />
          </div>
        </fieldset>
        <LongField
          name="stop"
          label="Stop at"
          hint="An answer ends before one of these texts; each on a line of its own."
          rows={2}
          value={form["stop"] ?? ""}
          onInput={put("stop")}
          refusal={refusal}
        />
        {refusal && refusal.field === null && (
          <p class="notice danger" role="alert">
            {refusal.message}
          </p>
        )}
        <div class="buttons">
          <button type="button" onClick={() => setForm(formOf({}))}>
            Leave all to the model
          </button>
          <button type="submit" class="primary" disabled={hasProblem}>
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}

interface FieldProps {
  value: string;
  onInput: (value: string) => void;
  refusal: Refusal | null;
}

function NumberInput({ field, value, onInput, refusal }: FieldProps & { field: NumberField }) {
  const id = useId();
  const problem = problemOf(field, value) ?? refusedAs(refusal, field.name);
  return (
    <div class="field">
      <label for={id}>{field.label}</label>
      <input
        id={id}
        name={field.name}
        inputMode={field.isWhole ? "numeric" : "decimal"}
        value={value}
        placeholder="as the model’s"
        autoComplete="off"
        aria-invalid={problem !== null}
        aria-describedby={`${id}-hint`}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
      <span id={`${id}-hint`} class={problem ? "problem" : "quiet"}>
        {problem ?? field.hint}
      </span>
    </div>
  );
}

function Effort({ value, onInput, refusal }: FieldProps) {
  const id = useId();
  const problem = refusedAs(refusal, "reasoning");
  return (
    <div class="field">
      <label for={id}>Thinking</label>
      <select
        id={id}
        name="effort"
        value={value}
        aria-describedby={`${id}-hint`}
        onChange={(event) => onInput(event.currentTarget.value)}
      >
        {EFFORTS.map((effort) => (
          <option key={effort} value={effort}>
            {effort || "as the model’s"}
          </option>
        ))}
      </select>
      <span id={`${id}-hint`} class={problem ? "problem" : "quiet"}>
        {problem ?? "how much, where the model lets one choose"}
      </span>
    </div>
  );
}

interface LongProps extends FieldProps {
  name: string;
  label: string;
  hint: string;
  rows: number;
}

function LongField({ name, label, hint, rows, value, onInput, refusal }: LongProps) {
  const id = useId();
  const problem = refusedAs(refusal, name);
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea
        id={id}
        name={name}
        rows={rows}
        value={value}
        aria-describedby={`${id}-hint`}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
      <span id={`${id}-hint`} class={problem ? "problem" : "quiet"}>
        {problem ?? hint}
      </span>
    </div>
  );
}

function refusedAs(refusal: Refusal | null, name: string): string | null {
  return refusal?.field === name ? refusal.message : null;
}

function fieldOf(error: unknown): string | null {
  const param = error instanceof Refused ? error.param : null;
  const name = /^(?:settings\.)?(\w+)/.exec(param ?? "")?.[1] ?? "";
  const known = [...NUMBERS.map((field) => field.name), "instructions", "stop", "reasoning"];
  return known.includes(name) ? name : null;
}
