/** Requests of this page to its server. */
import { addressBelow } from "./command";

/** Scripts are in a folder of the place where the server is. */
const BASE = new URL("..", import.meta.url);

export interface Request {
  address: string;
  method: string;
  body: string | undefined;
  key: string;
}

/** Where a path of this server is, wherever a proxy shows it. */
export function locate(path: string): string {
  return addressBelow(BASE, path);
}

export function send({ address, method, body, key }: Request, signal?: AbortSignal): Promise<Response> {
  const headers = new Headers();
  if (body !== undefined) headers.set("Content-Type", "application/json");
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const wish: RequestInit = { method: method.toUpperCase(), headers };
  if (body !== undefined) wish.body = body;
  if (signal) wish.signal = signal;
  return fetch(address, wish);
}
