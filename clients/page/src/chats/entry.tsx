/** One chat of the list: a link that opens it, and what can be done with it. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Dialog } from "../look/dialog";
import { Dots } from "../look/icons";
import { memo } from "../look/memo";
import { exportFile, remove, rename } from "../state/list";
import { hashOf } from "../state/router";
import type { ChatSummary } from "../wire/types";

interface Props {
  chat: ChatSummary;
  isOpen: boolean;
  onOpen: () => void;
}

/** Letters of a title in a dialog. */
const LONGEST_SHOWN = 100;

export function titleOf(chat: ChatSummary): string {
  return chat.title?.trim() || "New chat";
}

type Doing = "nothing" | "menu" | "renaming" | "deleting";

export const Entry = memo(({ chat, isOpen, onOpen }: Props) => {
  const [doing, setDoing] = useState<Doing>("nothing");
  const more = useRef<HTMLButtonElement>(null);
  const title = titleOf(chat);
  const back = () => {
    setDoing("nothing");
    requestAnimationFrame(() => more.current?.focus());
  };
  if (doing === "renaming")
    return (
      <li>
        <Renaming chat={chat} onDone={back} />
      </li>
    );
  return (
    <li class={isOpen ? "open" : ""}>
      <a href={hashOf(chat.id)} dir="auto" aria-current={isOpen ? "page" : undefined} onClick={onOpen}>
        {title}
      </a>
      <button
        ref={more}
        type="button"
        class="plain icon"
        aria-label={`More about ${title}`}
        title="Rename, export, delete"
        aria-expanded={doing === "menu"}
        onClick={() => setDoing(doing === "menu" ? "nothing" : "menu")}
      >
        <Dots />
      </button>
      {doing === "menu" && <Actions chat={chat} onChoice={setDoing} onLeave={back} />}
      {doing === "deleting" && <Deleting chat={chat} onDone={back} />}
    </li>
  );
});

interface ActionsProps {
  chat: ChatSummary;
  onChoice: (doing: Doing) => void;
  onLeave: () => void;
}

function Actions({ chat, onChoice, onLeave }: ActionsProps) {
  const menu = useRef<HTMLDivElement>(null);
  useEffect(() => {
    menu.current?.querySelector("button")?.focus();
    const away = (event: Event) => {
      if (event.target instanceof Node && !menu.current?.parentElement?.contains(event.target))
        onChoice("nothing");
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, [onChoice]);
  return (
    <div
      ref={menu}
      class="actions"
      onFocusOut={({ relatedTarget }) => {
        const isAway = relatedTarget instanceof Node && !menu.current?.parentElement?.contains(relatedTarget);
        if (isAway) onChoice("nothing");
      }}
      role="group"
      aria-label={titleOf(chat)}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        onLeave();
      }}
    >
      <button type="button" class="plain" onClick={() => onChoice("renaming")}>
        Rename
      </button>
      <button
        type="button"
        class="plain"
        onClick={() => {
          void exportFile(chat.id, titleOf(chat));
          onLeave();
        }}
      >
        Export as JSON
      </button>
      <button type="button" class="plain danger" onClick={() => onChoice("deleting")}>
        Delete
      </button>
    </div>
  );
}

function Renaming({ chat, onDone }: { chat: ChatSummary; onDone: () => void }) {
  const [title, setTitle] = useState(titleOf(chat));
  const box = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => box.current?.select(), []);
  return (
    <form
      class="renaming"
      onSubmit={(event) => {
        event.preventDefault();
        void rename(chat.id, title).then(onDone);
      }}
    >
      <input
        ref={box}
        aria-label="New title"
        maxLength={500}
        value={title}
        onInput={(event) => setTitle(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          onDone();
        }}
      />
      <button type="submit">Save</button>
    </form>
  );
}

function Deleting({ chat, onDone }: { chat: ChatSummary; onDone: () => void }) {
  const title = titleOf(chat);
  return (
    <Dialog title="Delete this chat?" onClose={onDone}>
      <p>
        “{title.length > LONGEST_SHOWN ? `${title.slice(0, LONGEST_SHOWN)}…` : title}” and all that was said
        in it will be gone, also in other tabs.
      </p>
      <div class="buttons">
        <button type="button" onClick={onDone}>
          Keep it
        </button>
        <button
          type="button"
          class="danger"
          onClick={() => {
            onDone();
            void remove(chat.id).then((isDone) => {
              // Where it was there is nothing to have the focus any more.
              if (isDone) document.querySelector<HTMLElement>(".sidebar .new")?.focus();
            });
          }}
        >
          Delete
        </button>
      </div>
    </Dialog>
  );
}
