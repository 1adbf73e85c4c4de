/** The list of chats beside the open one; on phones a drawer over it. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Close, Plus } from "../look/icons";
import { chats, hasMore, importFile, listFailure, query, readList, readMore } from "../state/list";
import { openNew } from "../state/open";
import { openId } from "../state/router";
import { address } from "../wire/ask";
import { Entry } from "./entry";

const TYPING_MILLISECONDS = 250;
const LONGEST_QUERY = 200;

export function Sidebar({ onDone }: { onDone: () => void }) {
  const file = useRef<HTMLInputElement>(null);
  return (
    <nav class="sidebar" id="sidebar" aria-label="Chats">
      <div class="top">
        <button
          type="button"
          class="new"
          onClick={() => {
            openNew();
            onDone();
          }}
        >
          <Plus /> New chat
        </button>
        <button
          type="button"
          class="plain icon drawer-only"
          aria-label="Close the list of chats"
          title="Close"
          onClick={onDone}
        >
          <Close />
        </button>
      </div>
      <Search />
      {listFailure.value !== null && (
        <div class="notice danger failure">
          <span role="alert">{listFailure.value}</span>
          <button
            type="button"
            class="plain icon"
            aria-label="Close this message"
            title="Close"
            onClick={() => (listFailure.value = null)}
          >
            <Close />
          </button>
        </div>
      )}
      <List onDone={onDone} />
      <div class="bottom">
        <button type="button" class="plain" onClick={() => file.current?.click()}>
          Import a chat
        </button>
        <a class="button plain-link" href={address("docs")}>
          API
        </a>
        <input
          ref={file}
          type="file"
          accept="application/json,.json"
          hidden
          aria-label="File of a chat"
          onChange={(event) => {
            const chosen = event.currentTarget.files?.[0];
            event.currentTarget.value = "";
            if (chosen) void importFile(chosen).then((isDone) => isDone && onDone());
          }}
        />
      </div>
    </nav>
  );
}

function Search() {
  const [text, setText] = useState(query.value);
  useEffect(() => {
    if (text === query.peek()) return undefined;
    const timer = setTimeout(() => {
      query.value = text;
      void readList();
    }, TYPING_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <input
      type="search"
      class="search"
      aria-label="Search chats"
      placeholder="Search chats"
      maxLength={LONGEST_QUERY}
      value={text}
      onInput={(event) => setText(event.currentTarget.value)}
    />
  );
}

function List({ onDone }: { onDone: () => void }) {
  const known = chats.value;
  if (known === null) return <p class="quiet">Loading…</p>;
  if (!known.length) {
    return (
      <p class="quiet" role="status">
        {query.value.trim() ? "No chat has these words." : "No chats yet."}
      </p>
    );
  }
  return (
    <div class="list">
      <ul>
        {known.map((chat) => (
          <Entry key={chat.id} chat={chat} isOpen={chat.id === openId.value} onOpen={onDone} />
        ))}
      </ul>
      {hasMore.value && (
        <button type="button" class="plain" onClick={() => void readMore()}>
          Show more
        </button>
      )}
    </div>
  );
}
