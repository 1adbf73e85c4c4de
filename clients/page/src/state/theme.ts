/** Light or dark: the reader's choice, else the system's. */
import { effect, signal } from "@preact/signals";
import { ofBrowser } from "../wire/kept";

export type Theme = "system" | "light" | "dark";

const PLACE = "millstream.theme";

export const theme = signal<Theme>(read());

effect(() => {
  if (theme.value === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
});

export function choose(chosen: Theme): void {
  theme.value = chosen;
  ofBrowser.put(PLACE, chosen);
}

function read(): Theme {
  const kept = ofBrowser.get(PLACE);
  return kept === "light" || kept === "dark" ? kept : "system";
}
