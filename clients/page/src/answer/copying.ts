/** Puts a text on the clipboard; whether that was possible. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyWithoutPermission(text);
  }
}

/** For pages of a server without TLS: browsers give them no clipboard. */
function copyWithoutPermission(text: string): boolean {
  const before = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "for-readers";
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  if (before instanceof HTMLElement) before.focus();
  return isCopied;
}

const SHOWN_MILLISECONDS = 2_000;

/** Copies, and says so on the button for a moment. */
export async function copyFrom(button: HTMLButtonElement, text: string, label: string): Promise<void> {
  button.textContent = (await copyText(text)) ? "Copied" : "Not copied";
  setTimeout(() => {
    button.textContent = label;
  }, SHOWN_MILLISECONDS);
}

/** A button outside of Preact. */
export function copyButton(label: string, text: () => string): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain copy";
  button.textContent = label;
  button.addEventListener("click", () => void copyFrom(button, text(), label));
  return button;
}
