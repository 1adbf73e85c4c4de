/** The open chat: its messages, and the box below them. */
import { useRef } from "preact/hooks";
import { Down } from "../look/icons";
import { draft, type } from "../state/composing";
import { isFollowing } from "../state/following";
import { isLoading, liveAnswers, openChat, openNew, runningAnswer, trouble } from "../state/open";
import { sending } from "../state/sending";
import type { Message, OutputItem } from "../wire/types";
import { Announcer } from "./announcer";
import { Composer } from "./composer";
import { useFollowing } from "./following";
import { Question } from "./question";
import { Reply } from "./reply";
import { Welcome } from "./welcome";
import { Calls } from "./calls";

const NOTHING: OutputItem[] = [];

export function Talk() {
  const box = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  useFollowing(box, inner);
  const chat = openChat.value;
  return (
    <>
      <div class="scroll" ref={box} tabIndex={-1}>
        <div class="messages" ref={inner}>
          {isLoading.value && trouble.value === null && <p class="quiet">Loading…</p>}
          {!chat?.messages.length && !isLoading.value && trouble.value === null && <Welcome />}
          {chat && <Messages messages={chat.messages} />}
        </div>
      </div>
      <div class="below">
        {!isFollowing.value && (
          <button type="button" class="to-end" onClick={() => (isFollowing.value = true)}>
            <Down /> Newest
          </button>
        )}
        {trouble.value !== null && <TroubleNotice />}
        <Composer />
      </div>
      <Announcer />
    </>
  );
}

function Messages({ messages }: { messages: Message[] }) {
  const isLocked =
    runningAnswer.value !== null || sending.value.state === "under way" || trouble.value?.kind === "gone";
  return (
    <>
      {messages.map((message, place) => {
        if (message.role === "tool") return null;
        if (message.role === "user") {
          return <Question key={`q ${message.response_id}`} message={message} isLocked={isLocked} />;
        }
        const next = messages[place + 1];
        return (
          <Reply
            key={`a ${message.response_id}`}
            message={message}
            live={liveAnswers.value.get(message.response_id) ?? null}
            outputs={next?.role === "tool" ? next.items : NOTHING}
            isLocked={isLocked}
          />
        );
      })}
      <Calls messages={messages} />
    </>
  );
}

function TroubleNotice() {
  const text = draft.value.trim();
  return (
    <div class="notice warning trouble" role="alert">
      <p>{trouble.value?.message}</p>
      {trouble.value?.kind === "gone" && text !== "" && (
        <button
          type="button"
          onClick={() => {
            type("");
            openNew();
            type(text);
          }}
        >
          Begin a new chat with what you typed
        </button>
      )}
    </div>
  );
}
