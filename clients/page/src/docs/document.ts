/** What the page reads of the server's OpenAPI document: https://spec.openapis.org/oas/v3.1.1.html */

/** A schema; true is one of anything. */
export type Schema = SchemaObject | true;

export interface SchemaObject {
  $ref?: string;
  type?: string;
  description?: string;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  const?: unknown;
  enum?: unknown[];
  items?: Schema;
  contentSchema?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
  patternProperties?: Record<string, Schema>;
  additionalProperties?: Schema | false;
  [keyword: string]: unknown;
}

export type Content = Record<string, { schema?: Schema }>;

export interface Answer {
  description: string;
  content?: Content;
}

export interface Operation {
  summary?: string;
  description?: string;
  security?: unknown[];
  requestBody?: { content: Content };
  responses: Record<string, Answer>;
}

export interface ApiDocument {
  info: { title: string; version: string; description: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, SchemaObject> };
}
