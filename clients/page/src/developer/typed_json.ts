/** JSON as somebody types it, and what is wrong with it, in words. Pure. */

import type { FunctionTool, Settings } from "../wire/types";
import { wrongPlace } from "./json_place";

/** What was typed, or a sentence about why it cannot be used. Nothing typed is null. */
export type Typed<T> = { value: T | null; problem: null } | { value: null; problem: string };

type JsonObject = Record<string, unknown>;
type Format = NonNullable<Settings["text"]>["format"];

const TYPES = ["string", "number", "integer", "boolean", "object", "array", "null"];

/** The format that this schema asks for. Whole formats, as `text.format` takes them, are taken too. */
export function formatTyped(text: string): Typed<Format> {
  const typed = parsed(text);
  if (typed.problem !== null || typed.value === null) return typed as Typed<Format>;
  const value = typed.value;
  if (!isObject(value)) return wrong(`A schema is an object in braces, not ${kindOf(value)}.`);
  if (value["type"] === "json_schema" || value["type"] === "json_object") return right(value);
  const problem = schemaProblem(value, "The schema");
  return problem ? wrong(problem) : right({ type: "json_schema", name: "answer", schema: value });
}

/** The tools that this list offers; those of chat completions, with a `function` inside, too. */
export function toolsTyped(text: string): Typed<FunctionTool[]> {
  const typed = parsed(text);
  if (typed.problem !== null || typed.value === null) return typed as Typed<FunctionTool[]>;
  const list = Array.isArray(typed.value) ? typed.value : [typed.value];
  const tools: FunctionTool[] = [];
  for (const [place, each] of list.entries()) {
    const tool = toolOf(each, list.length === 1 ? "The tool" : `Tool ${place + 1}`);
    if (typeof tool === "string") return wrong(tool);
    tools.push(tool);
  }
  return right(tools);
}

function toolOf(value: unknown, where: string): FunctionTool | string {
  if (!isObject(value)) return `${where} is ${kindOf(value)}; a tool is an object in braces.`;
  const inner = isObject(value["function"]) ? { type: "function", ...value["function"] } : value;
  const { name, parameters, description } = { ...(inner as JsonObject) };
  if (typeof name !== "string" || !name) return `${where} has no "name".`;
  if (description !== undefined && typeof description !== "string") return `${where}: "description" is a text.`;
  if (parameters !== undefined && !isObject(parameters)) return `${where}: "parameters" is a schema, in braces.`;
  const problem = parameters === undefined ? null : schemaProblem(parameters as JsonObject, `"parameters" of ${name}`);
  return problem ?? ({ type: "function", ...inner } as FunctionTool);
}

function schemaProblem(schema: JsonObject, where: string): string | null {
  const { type, properties, required } = schema;
  const types = Array.isArray(type) ? type : type === undefined ? [] : [type];
  const unknown = types.find((each) => !TYPES.includes(each as string));
  if (unknown !== undefined) return `${where}: ${JSON.stringify(unknown)} is no type; those are ${TYPES.join(", ")}.`;
  if (properties !== undefined && !isObject(properties)) return `${where}: "properties" is an object in braces.`;
  if (required !== undefined && !Array.isArray(required)) return `${where}: "required" is a list in brackets.`;
  for (const [name, inner] of Object.entries((properties as JsonObject | undefined) ?? {})) {
    if (typeof inner === "boolean") continue;
    if (!isObject(inner)) return `${where}: the property ${name} is a schema, in braces.`;
    const problem = schemaProblem(inner, `The property ${name}`);
    if (problem) return problem;
  }
  return null;
}

function parsed(text: string): Typed<unknown> {
  if (!text.trim()) return { value: null, problem: null };
  try {
    return right(JSON.parse(text) as unknown);
  } catch {
    return wrong(jsonProblem(text));
  }
}

function jsonProblem(text: string): string {
  const place = wrongPlace(text);
  const before = text.slice(0, place).split("\n");
  const where = `line ${before.length}, column ${before.at(-1)!.length + 1}`;
  if (!text.slice(place).trim()) return `This is not whole yet: something is missing at its end (${where}).`;
  return `This is no JSON at ${where}: ${JSON.stringify(text[place])} cannot stand there.`;
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (value === null) return "null";
  return typeof value === "string" ? "a text" : `a ${typeof value}`;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function right<T>(value: T): Typed<T> {
  return { value, problem: null };
}

function wrong<T>(problem: string): Typed<T> {
  return { value: null, problem };
}
