const SAFE = new Set(["http:", "https:", "mailto:"]);

/** The address as a link may have it: whole, and of the web or of mail; null for all others. */
export function safeAddress(address: string): string | null {
  try {
    const url = new URL(address);
    return SAFE.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
