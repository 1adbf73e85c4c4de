/** What somebody asked: its text as it was typed, and a box to ask it otherwise. */
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Pen } from "../look/icons";
import { memo } from "../look/memo";
import { openChat } from "../state/open";
import { sendMessage } from "../state/sending";
import { previousOf, textOf } from "../state/texts";
import type { Message } from "../wire/types";
import { Versions } from "./versions";

interface Props {
  message: Message;
  /** Whether an answer is being made or asked for. */
  isLocked: boolean;
}

export const Question = memo(({ message, isLocked }: Props) => {
  const [isEdited, setEdited] = useState(false);
  const edit = useRef<HTMLButtonElement>(null);
  const text = textOf(message.items);
  const close = () => {
    setEdited(false);
    requestAnimationFrame(() => edit.current?.focus());
  };
  return (
    <article data-role="user" data-id={message.response_id} aria-label="You">
      {isEdited ? <Editor message={message} text={text} onClose={close} /> : <p class="question" dir="auto">{text}</p>}
      {!isEdited && (
        <footer>
          <Versions
            versions={message.versions}
            shown={message.response_id}
            what="question"
            isLocked={isLocked}
          />
          <button
            ref={edit}
            type="button"
            class="plain icon"
            aria-label="Edit this question"
            title="Edit this question"
            disabled={isLocked}
            onClick={() => setEdited(true)}
          >
            <Pen />
          </button>
        </footer>
      )}
    </article>
  );
});

function Editor({ message, text, onClose }: { message: Message; text: string; onClose: () => void }) {
  const [edited, setText] = useState(text);
  const box = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    box.current?.focus();
    box.current?.setSelectionRange(text.length, text.length);
  }, [text]);
  const send = async () => {
    const parent = previousOf(openChat.value?.messages ?? [], message);
    // What is in the box now, which may not have been rendered yet.
    const now = (box.current?.value ?? edited).trim();
    if (now && (await sendMessage(now, { parent }))) onClose();
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      onClose();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey || !event.shiftKey)) {
      event.preventDefault();
      void send();
    }
  };
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <textarea
        ref={box}
        aria-label="Edited question"
        dir="auto"
        value={edited}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={onKey}
      />
      <p class="quiet">The question as it was stays as another version.</p>
      <div class="buttons">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" class="primary" disabled={!edited.trim()}>
          Send
        </button>
      </div>
    </form>
  );
}
