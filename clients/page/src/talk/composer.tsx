/** The box in which one types, and the buttons that send and stop. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Square, Up } from "../look/icons";
import { draft, isAnswering, stop, submit, type } from "../state/composing";
import { isLoading, trouble } from "../state/open";
import { openId } from "../state/router";
import { sending } from "../state/sending";
import { SendingNotice } from "./sending_notice";

/** Phones have no Shift+Enter: there, Enter begins a line. */
const isTouch = matchMedia("(pointer: coarse)").matches;

export function Composer() {
  const box = useRef<HTMLTextAreaElement>(null);
  const isComposing = useSignal(false);
  const id = openId.value;
  useEffect(() => {
    if (!isTouch && !document.querySelector("dialog[open]")) box.current?.focus();
  }, [id]);
  const isOff = trouble.value !== null && trouble.value.kind !== "other";
  const isUnderWay = sending.value.state === "under way";
  const onKey = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.isComposing || isComposing.value) return;
    const isAsked = event.ctrlKey || event.metaKey || (!isTouch && !event.shiftKey && !event.altKey);
    if (!isAsked) return;
    event.preventDefault();
    void submit();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <SendingNotice />
      <div class="box">
        <textarea
          ref={box}
          aria-label="Message"
          dir="auto"
          placeholder={isOff ? "Nothing can be sent here" : "Write a message"}
          rows={1}
          value={draft.value}
          disabled={isOff && trouble.value?.kind === "off"}
          onInput={(event) => type(event.currentTarget.value)}
          onCompositionStart={() => (isComposing.value = true)}
          onCompositionEnd={() => (isComposing.value = false)}
          onKeyDown={onKey}
        />
        {(isAnswering.value || isUnderWay) && (
          <button
            type="button"
            class="icon"
            aria-label="Stop"
            title="Stop (Escape)"
            onClick={() => void stop()}
          >
            <Square />
          </button>
        )}
        <button
          type="submit"
          class="primary icon"
          aria-label="Send"
          title={isAnswering.value ? "Send after this answer (Enter)" : "Send (Enter)"}
          disabled={isOff || isUnderWay || isLoading.value || !draft.value.trim()}
        >
          <Up />
        </button>
      </div>
    </form>
  );
}
