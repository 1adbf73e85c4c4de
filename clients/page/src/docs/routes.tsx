/** The page of all routes, made of the server's own document. All text goes in as text. */
import { useEffect, useRef, useState } from "preact/hooks";
import { currentKey, giveKey } from "../wire/key";
import type { ApiDocument, Operation, SchemaObject } from "./document";
import { Contents, Fields, SchemaLine } from "./schema";
import { locate, send } from "./sending";
import { Trial } from "./trial";
import { Words } from "./words";

export function Routes() {
  const [key, setKey] = useState(currentKey() ?? "");
  const { api, problem, load } = useDocument();
  useEffect(() => void load(key), []);
  useEffect(() => {
    document.title = api ? `${api.info.title} ${api.info.version}` : "API";
  }, [api]);
  useTarget(api);
  const useKey = () => {
    giveKey(key);
    void load(key);
  };
  return (
    <>
      <header class="top">
        <h1>{api ? `${api.info.title} ${api.info.version}` : "API"}</h1>
        <p class="quiet">{api?.info.description}</p>
        <nav><a href={locate("/")}>Chat</a> <a href={locate("/openapi.json")}>openapi.json</a></nav>
        <form class="key" onSubmit={(event) => { event.preventDefault(); useKey(); }}>
          <label for="key">API key</label>
          <input id="key" type="password" autocomplete="off" value={key} onInput={(event) => setKey(event.currentTarget.value)} onChange={useKey} />
          <button type="submit">Load</button>
          <span class="quiet">Only if the server asks for one. Kept for this tab.</span>
        </form>
        {problem && <p class="notice danger" role="alert">{problem}</p>}
      </header>
      {api && <AllRoutes api={api} apiKey={key} />}
    </>
  );
}

function AllRoutes({ api, apiKey }: { api: ApiDocument; apiKey: string }) {
  return (
    <main>
      <h2>Routes</h2>
      {Object.entries(api.paths).flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, operation]) => (
          <Route key={`${method} ${path}`} path={path} method={method} operation={operation} apiKey={apiKey} />
        )),
      )}
      <h2>Schemas</h2>
      {Object.entries(api.components.schemas).map(([name, schema]) => <NamedSchema key={name} name={name} schema={schema} />)}
    </main>
  );
}

interface RouteProps {
  path: string;
  method: string;
  operation: Operation;
  apiKey: string;
}

function Route({ path, method, operation, apiKey }: RouteProps) {
  return (
    <details class="route">
      <summary>
        <span class="method">{method.toUpperCase()}</span> <code>{path}</code> <span class="quiet"><Words text={operation.summary} /></span>
      </summary>
      {operation.description && <p><Words text={operation.description} /></p>}
      {operation.security && <p class="quiet">Needs an API key.</p>}
      <Trial path={path} method={method} operation={operation} apiKey={apiKey} />
      {operation.requestBody && <h3>Request</h3>}
      {operation.requestBody && <Contents content={operation.requestBody.content} />}
      <h3>Responses</h3>
      <table>
        <tbody>
          {Object.entries(operation.responses).map(([status, answer]) => (
            <tr key={status}>
              <td class="status">{status}</td>
              <td class="meaning"><Words text={answer.description} /></td>
              <td><Contents content={answer.content} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}

function NamedSchema({ name, schema }: { name: string; schema: SchemaObject }) {
  return (
    <details id={`schema-${name}`}>
      <summary><code>{name}</code></summary>
      <p class="quiet"><Words text={schema.description} /></p>
      {schema.properties ? <Fields schema={schema} /> : <SchemaLine schema={schema} />}
    </details>
  );
}

/** The document, once it is loaded, and what stood in the way. */
function useDocument() {
  const [api, setApi] = useState<ApiDocument | null>(null);
  const [problem, setProblem] = useState("");
  const last = useRef(0);
  const load = async (key: string) => {
    const number = (last.current += 1);
    let loaded: ApiDocument | null = null;
    let failure = "";
    try {
      const answer = await send({ address: locate("/openapi.json"), method: "get", body: undefined, key });
      const content = (await answer.json()) as ApiDocument & { error?: { message: string } };
      if (answer.ok) loaded = content;
      else failure = content.error?.message ?? `the server answered with status ${answer.status}`;
    } catch (error) {
      failure = String(error);
    }
    if (number !== last.current) return;
    if (loaded) setApi(loaded);
    setProblem(failure);
  };
  return { api, problem, load };
}

/** Opens what the address names, now and when it names something else. */
function useTarget(api: ApiDocument | null): void {
  useEffect(() => {
    const open = () => {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!(target instanceof HTMLDetailsElement)) return;
      target.open = true;
      target.scrollIntoView();
    };
    if (api) open();
    addEventListener("hashchange", open);
    return () => removeEventListener("hashchange", open);
  }, [api]);
}
