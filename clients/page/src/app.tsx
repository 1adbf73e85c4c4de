/** The whole page: the list of chats, the head, the open chat, and what lies over them. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { titleOf } from "./chats/entry";
import { Sidebar } from "./chats/sidebar";
import { DeveloperPanel } from "./developer/panel";
import { Banner } from "./talk/banner";
import { Head } from "./talk/head";
import { KeyDialog } from "./talk/key_dialog";
import { SettingsDialog } from "./talk/settings";
import { ShortcutsDialog, hear } from "./talk/shortcuts";
import { Talk } from "./talk/talk";
import { draft, stop } from "./state/composing";
import { change, openChat, openSettings } from "./state/open";
import { readModel } from "./state/model";
import { openId } from "./state/router";
import { wantedKey } from "./wire/key";

/** Where the list is a drawer, as in look/chat.css. */
const isNarrow = matchMedia("(max-width: 48rem)");

export function App() {
  const isListOpen = useSignal(false);
  const isSetting = useSignal(false);
  const isDeveloping = useSignal(false);
  const isHelping = useSignal(false);
  const chat = openChat.value;
  const title = openId.value === null ? "New chat" : chat ? titleOf(chat) : "Chat";
  useEffect(() => {
    document.title = `${title} – Millstream`;
  }, [title]);
  useEffect(() => void readModel(), []);
  useEffect(() => {
    const focusOn = (what: string) =>
      requestAnimationFrame(() => document.querySelector<HTMLElement>(what)?.focus());
    const onSearch = () => {
      isListOpen.value = isNarrow.matches;
      focusOn(".sidebar .search");
    };
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
      if (hear(event, { onSearch, onHelp: () => (isHelping.value = true) })) return;
      if (event.key !== "Escape") return;
      const isInList = event.target instanceof Element && event.target.closest(".sidebar") !== null;
      if (isListOpen.value) {
        isListOpen.value = false;
        focusOn("[aria-label='List of chats']");
      } else if (isInList) focusOn(".composer textarea");
      else void stop();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [isListOpen, isHelping]);
  // The drawer has the focus while it is open; where the list always stands, it never is.
  useEffect(() => {
    if (isListOpen.value) document.querySelector<HTMLElement>(".sidebar .new")?.focus();
  }, [isListOpen.value]);
  const closeList = () => (isListOpen.value = false);
  return (
    <div class={`page${isListOpen.value ? " list-open" : ""}`}>
      <a class="skip" href="#message" onClick={toBox}>To the message box</a>
      <Sidebar onDone={closeList} />
      <div class="shade" onClick={closeList} />
      <main inert={isListOpen.value}>
        <Head
          title={title}
          isListOpen={isListOpen.value}
          onList={() => (isListOpen.value = true)}
          onHelp={() => (isHelping.value = true)}
          onSettings={() => (isSetting.value = true)}
          onDeveloper={() => (isDeveloping.value = !isDeveloping.value)}
        />
        <Banner />
        <Talk />
      </main>
      {isDeveloping.value && (
        <DeveloperPanel
          chat={{ id: openId.value ?? "", messages: chat?.messages ?? [], settings: openSettings.value }}
          draft={draft.value}
          onSettings={(settings) => change({ settings })}
          onClose={() => {
            isDeveloping.value = false;
            document.querySelector<HTMLElement>("button[aria-label='For developers']")?.focus();
          }}
        />
      )}
      {isSetting.value && <SettingsDialog onClose={() => (isSetting.value = false)} />}
      {isHelping.value && <ShortcutsDialog onClose={() => (isHelping.value = false)} />}
      {wantedKey.value && <KeyDialog isWrong={wantedKey.value.isWrong} />}
    </div>
  );
}

function toBox(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>(".composer textarea")?.focus();
}
