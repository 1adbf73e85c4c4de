/** A dialog over the page. The browser keeps the focus in it, and gives it back afterwards. */
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";
import { Close } from "./icons";

interface Props {
  title: string;
  children: ComponentChildren;
  /** Called when it was closed, with Escape too. Without it, it cannot be closed. */
  onClose?: () => void;
}

export function Dialog({ title, children, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const name = useId();
  useLayoutEffect(() => {
    const box = dialog.current;
    const before = document.activeElement;
    box?.showModal();
    return () => {
      box?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={name}
      onCancel={(event) => {
        if (!onClose) event.preventDefault();
      }}
      onClose={() => {
        // Browsers let a second Escape close what the first may not.
        if (onClose) onClose();
        else if (dialog.current?.isConnected) dialog.current.showModal();
      }}
    >
      <header>
        <h2 id={name}>{title}</h2>
        {onClose && (
          <button type="button" class="plain icon" aria-label="Close" title="Close" onClick={() => dialog.current?.close()}>
            <Close />
          </button>
        )}
      </header>
      {children}
    </dialog>
  );
}
