/** A sentence of the document: what stands between backticks is code. */

export function Words({ text }: { text: string | undefined }) {
  const parts = (text ?? "").split(/`([^`]+)`/);
  return <>{parts.map((part, index) => (index % 2 ? <code key={index}>{part}</code> : part))}</>;
}
