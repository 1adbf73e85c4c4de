/** Requests as somebody types them into a shell. Pure. */

export interface Sent {
  address: string;
  method: string;
  /** The body, if the route takes one. */
  body: string | undefined;
  hasKey: boolean;
}

export function asCommand({ address, method, body, hasKey }: Sent): string {
  const isPlain = method === "get" || body !== undefined;
  const parts = [`curl -N ${isPlain ? "" : `-X ${method.toUpperCase()} `}${quoted(address)}`];
  if (hasKey) parts.push("-H 'Authorization: Bearer KEY'");
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

/** The address of a path below a place, with the braces of its parameters left as they are. */
export function addressBelow(place: string | URL, path: string): string {
  const address = new URL(path.replace(/^\//, ""), place).href;
  return address.replaceAll("%7B", "{").replaceAll("%7D", "}");
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
