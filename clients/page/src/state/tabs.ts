/** What the tabs of one browser tell each other. */
import { currentKey, giveKey, keysComeFrom, wantedKey } from "../wire/key";

export type Told =
  | { kind: "changed"; chat: string }
  | { kind: "deleted"; chat: string }
  | { kind: "listed" }
  | { kind: "key wanted" }
  | { kind: "key"; key: string };

/** Browsers without it have tabs that find out for themselves what has changed, later. */
const channel = "BroadcastChannel" in window ? new BroadcastChannel("millstream") : null;
let listener: (told: Told) => void = () => undefined;

export function tellTabs(told: Told): void {
  channel?.postMessage(told);
}

/** Calls with what other tabs tell, but for keys. */
export function hearTabs(hear: (told: Told) => void): void {
  listener = hear;
}

channel?.addEventListener("message", (message: MessageEvent<Told>) => {
  const told = message.data;
  const key = currentKey();
  if (told.kind === "key wanted") {
    if (key !== null && wantedKey.value === null) tellTabs({ kind: "key", key });
  } else if (told.kind === "key") {
    if (wantedKey.value?.isWrong === false) giveKey(told.key);
  } else {
    listener(told);
  }
});

keysComeFrom(() => tellTabs({ kind: "key wanted" }));
