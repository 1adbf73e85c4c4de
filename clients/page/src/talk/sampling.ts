/** Settings of a chat as a form has them: names and bounds are those of the API's document. */
import type { Settings } from "../wire/types";

/** A number that may be left to the model. isAboveMin: the bound itself is not allowed. */
export interface NumberField {
  name: keyof Settings & string;
  label: string;
  hint: string;
  min?: number;
  max?: number;
  isAboveMin?: boolean;
  isWhole?: boolean;
}

/** Bounds are checked against /openapi.json by tests/page/test_settings.py. */
export const NUMBERS: NumberField[] = [
  { name: "temperature", label: "Temperature", hint: "0: always the likeliest word; 2: almost any", min: 0, max: 2 },
  { name: "top_p", label: "Top p", hint: "only the likeliest words that make up this share", min: 0, max: 1, isAboveMin: true },
  { name: "top_k", label: "Top k", hint: "only so many of the likeliest words; 0 or -1: all", min: -1, isWhole: true },
  { name: "min_p", label: "Min p", hint: "no word below this share of the likeliest", min: 0, max: 1 },
  { name: "repetition_penalty", label: "Repetition penalty", hint: "above 1: words that were said become less likely", min: 0.01, max: 100 },
  { name: "frequency_penalty", label: "Frequency penalty", hint: "against words that come often", min: -2, max: 2 },
  { name: "presence_penalty", label: "Presence penalty", hint: "against words that have come", min: -2, max: 2 },
  { name: "max_output_tokens", label: "Longest answer", hint: "in tokens, thoughts included", min: 1, isWhole: true },
  { name: "seed", label: "Seed", hint: "the same number draws the same words", isWhole: true },
];

export const EFFORTS = ["", "none", "minimal", "low", "medium", "high"];

/** What the form has, all as text; empty: left to the model. */
export type Form = Record<string, string>;

export function formOf(settings: Settings): Form {
  const form: Form = {};
  for (const { name } of NUMBERS) form[name] = settings[name] === undefined ? "" : String(settings[name]);
  form["instructions"] = settings.instructions ?? "";
  form["stop"] = [settings.stop ?? []].flat().join("\n");
  form["effort"] = settings.reasoning?.effort ?? "";
  return form;
}

/** The number that was typed; in many countries with a comma. */
function numberOf(text: string): number {
  return Number(text.trim().replace(",", "."));
}

/** What is wrong with a field; null if nothing is. */
export function problemOf(field: NumberField, text: string): string | null {
  if (!text.trim()) return null;
  const value = numberOf(text);
  if (!Number.isFinite(value)) return "This is no number.";
  if (field.isWhole && !Number.isSafeInteger(value)) return "This should be a whole number.";
  if (field.isAboveMin && field.min !== undefined && value <= field.min) return `This should be above ${field.min}.`;
  if (field.min !== undefined && value < field.min) return `This should be ${field.min} or more.`;
  if (field.max !== undefined && value > field.max) return `This should be ${field.max} or less.`;
  return null;
}

/** The settings with what the form says; others stay. */
export function settingsOf(form: Form, before: Settings): Settings {
  const settings: Settings = { ...before };
  for (const { name } of NUMBERS) put(settings, name, form[name]?.trim() ? numberOf(form[name]) : undefined);
  put(settings, "instructions", form["instructions"]?.trim() ? form["instructions"] : undefined);
  const stops = (form["stop"] ?? "").split("\n").filter((line) => line.length > 0);
  put(settings, "stop", stops.length ? stops : undefined);
  put(settings, "reasoning", form["effort"] ? { effort: form["effort"] } : undefined);
  return settings;
}

function put(settings: Settings, name: keyof Settings & string, value: unknown): void {
  if (value === undefined) delete settings[name];
  else settings[name] = value;
}
