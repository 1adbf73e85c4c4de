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
import { Talk } from "./talk/talk";
import { draft, stop } from "./state/composing";
import { change, openChat, openSettings } from "./state/open";
import { openId } from "./state/router";
import { wantedKey } from "./wire/key";

export function App() {
  const isListOpen = useSignal(false);
  const isSetting = useSignal(false);
  const isDeveloping = useSignal(false);
  const chat = openChat.value;
  const title = chat && openId.value !== null ? titleOf(chat) : "New chat";
  useEffect(() => {
    document.title = `${title} – Millstream`;
  }, [title]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
      if (isListOpen.value) isListOpen.value = false;
      else void stop();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [isListOpen]);
  const closeList = () => (isListOpen.value = false);
  return (
    <div class={`page${isListOpen.value ? " list-open" : ""}`}>
      <a class="skip" href="#message" onClick={toBox}>To the message box</a>
      <Sidebar onDone={closeList} />
      <div class="shade" onClick={closeList} />
      <main>
        <Head
          title={title}
          isListOpen={isListOpen.value}
          onList={() => {
            isListOpen.value = true;
            requestAnimationFrame(() => document.querySelector<HTMLElement>(".sidebar .new")?.focus());
          }}
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
      {wantedKey.value && <KeyDialog isWrong={wantedKey.value.isWrong} />}
    </div>
  );
}

function toBox(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>(".composer textarea")?.focus();
}
