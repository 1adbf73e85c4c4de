/** Keys that do something on this page: they are heard here, and shown here. */
import { Dialog } from "../look/dialog";
import { openNew } from "../state/open";

const IS_MAC = /Mac|iPhone|iPad/.test(navigator.userAgent);
const CONTROL = IS_MAC ? "⌘" : "Ctrl";

const KEYS: [string[], string][] = [
  [["Enter"], "Send"],
  [[CONTROL, "Enter"], "Send, on every device"],
  [["Shift", "Enter"], "Begin a new line"],
  [["Esc"], "Stop the answer"],
  [[CONTROL, "Shift", "O"], "New chat"],
  [[CONTROL, "K"], "Search chats"],
  [[CONTROL, "/"], "Show these keys"],
];

export interface Heard {
  onSearch: () => void;
  onHelp: () => void;
}

/** Does what a key is for; whether it was for something. */
export function hear(event: KeyboardEvent, { onSearch, onHelp }: Heard): boolean {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return false;
  const key = event.key.toLowerCase();
  if (key === "o" && event.shiftKey) openNew();
  else if (key === "k" && !event.shiftKey) onSearch();
  else if (key === "/") onHelp();
  else return false;
  event.preventDefault();
  return true;
}

export function ShortcutsDialog({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl class="keys">
        {KEYS.map(([keys, what]) => (
          <div key={what}>
            <dt>{keys.map((key, place) => <>{place > 0 && " + "}<kbd>{key}</kbd></>)}</dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
