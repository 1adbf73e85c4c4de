/** Light or dark: the reader's choice, else the system's. */
import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const PLACE = "millstream.theme";

export const theme = signal<Theme>(read());

effect(() => {
  if (theme.value === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
});

export function choose(chosen: Theme): void {
  theme.value = chosen;
  try {
    localStorage.setItem(PLACE, chosen);
  } catch {
    // Some browsers keep nothing for this page.
  }
}

function read(): Theme {
  try {
    const kept = localStorage.getItem(PLACE);
    return kept === "light" || kept === "dark" ? kept : "system";
  } catch {
    return "system";
  }
}
