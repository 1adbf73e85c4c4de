/** Schemas, in a line each, with links to those that have a name. */
import { Fragment } from "preact";
import type { ComponentChildren } from "preact";
import type { Content, Schema, SchemaObject } from "./document";
import { Words } from "./words";

const LIMITS: Record<string, string> = {
  minimum: "at least",
  maximum: "at most",
  exclusiveMinimum: "above",
  exclusiveMaximum: "below",
  minLength: "length from",
  maxLength: "length to",
  minItems: "items from",
  maxItems: "items to",
  maxProperties: "entries to",
  pattern: "like",
};

export function SchemaLine({ schema }: { schema: Schema | undefined }): ComponentChildren {
  if (schema === undefined || schema === true) return "anything";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop() ?? "";
    return <a href={`#schema-${name}`}>{name}</a>;
  }
  const parts = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (parts) return <Alternatives parts={parts} />;
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.contentSchema) return <>JSON text of <SchemaLine schema={schema.contentSchema} /></>;
  if (schema.type === "array") return <>list of <SchemaLine schema={schema.items} />{limitsOf(schema)}</>;
  const values = schema.patternProperties ? Object.values(schema.patternProperties)[0] : schema.additionalProperties;
  if (schema.type === "object" && values && values !== true) {
    return <>object of <SchemaLine schema={values} />{limitsOf(schema)}</>;
  }
  return (schema.type ?? "anything") + limitsOf(schema);
}

function Alternatives({ parts }: { parts: Schema[] }) {
  return (
    <>
      {parts.map((part, index) => (
        <Fragment key={index}>{index > 0 && " or "}<SchemaLine schema={part} /></Fragment>
      ))}
    </>
  );
}

export function limitsOf(schema: SchemaObject): string {
  const found = Object.entries(LIMITS).filter(([keyword]) => keyword in schema);
  const words = found.map(([keyword, word]) => `${word} ${String(schema[keyword])}`);
  return words.length ? ` (${words.join(", ")})` : "";
}

export function Fields({ schema }: { schema: SchemaObject }) {
  return (
    <table>
      <tbody>
        {Object.entries(schema.properties ?? {}).map(([name, field]) => (
          <tr key={name}>
            <td>
              <code>{name}</code>
              {schema.required?.includes(name) && <span class="quiet"> required</span>}
            </td>
            <td>
              <SchemaLine schema={field} />
              {field !== true && field.description && <div class="quiet"><Words text={field.description} /></div>}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Contents({ content }: { content: Content | undefined }) {
  return (
    <>
      {Object.entries(content ?? {}).map(([media, { schema }]) => (
        <div key={media}>
          <code>{media}</code>:{" "}
          {schema && schema !== true && schema.properties ? <Fields schema={schema} /> : <SchemaLine schema={schema} />}
        </div>
      ))}
    </>
  );
}
