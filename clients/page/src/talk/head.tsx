/** The line above the open chat: its title, and what can be set. */
import { Braces, HalfSun, Menu, Moon, Question, Sliders, Sun } from "../look/icons";
import { choose, theme, type Theme } from "../state/theme";

interface Props {
  title: string;
  isListOpen: boolean;
  onList: () => void;
  onHelp: () => void;
  onSettings: () => void;
  onDeveloper: () => void;
}

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const DRAWN = { system: <HalfSun />, light: <Sun />, dark: <Moon /> };

export function Head({ title, isListOpen, onList, onHelp, onSettings, onDeveloper }: Props) {
  const next = NEXT[theme.value];
  return (
    <header class="head">
      <button
        type="button"
        class="plain icon drawer-only"
        aria-label="List of chats"
        title="List of chats"
        aria-controls="sidebar"
        aria-expanded={isListOpen}
        onClick={onList}
      >
        <Menu />
      </button>
      <h1 dir="auto">{title}</h1>
      <button type="button" class="plain icon wide-only" aria-label="Keys" title="Keys" onClick={onHelp}>
        <Question />
      </button>
      <button
        type="button"
        class="plain icon"
        aria-label={`Colours: ${theme.value}`}
        title={`Colours: ${theme.value}; next: ${next}`}
        onClick={() => choose(next)}
      >
        {DRAWN[theme.value]}
      </button>
      <button
        type="button"
        class="plain icon"
        aria-label="For developers"
        title="For developers"
        onClick={onDeveloper}
      >
        <Braces />
      </button>
      <button
        type="button"
        class="plain icon"
        aria-label="Settings of this chat"
        title="Settings of this chat"
        onClick={onSettings}
      >
        <Sliders />
      </button>
    </header>
  );
}
