/** Asks for the key of a server that wants one. */
import { useState } from "preact/hooks";
import { Dialog } from "../look/dialog";
import { giveKey, sendable } from "../wire/key";

export function KeyDialog({ isWrong }: { isWrong: boolean }) {
  const [key, setKey] = useState("");
  const canBeSent = sendable(key.trim()) !== null;
  return (
    <Dialog title="This server wants a key">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (canBeSent) giveKey(key.trim());
        }}
      >
        {isWrong && (
          <p class="notice danger" role="alert">
            The server does not take the key that it was given.
          </p>
        )}
        <p>
          Whoever runs it can tell you the key. It is kept until this tab is closed, and sent to this server
          only.
        </p>
        <div class="field">
          <label for="key">Key</label>
          <input
            id="key"
            type="password"
            autoComplete="current-password"
            value={key}
            onInput={(event) => setKey(event.currentTarget.value)}
          />
          {key.trim() !== "" && !canBeSent && (
            <span class="problem" role="alert">
              A key has only letters, digits and signs of ASCII, and no blanks.
            </span>
          )}
        </div>
        <div class="buttons">
          <button type="submit" class="primary" disabled={!canBeSent}>
            Use this key
          </button>
        </div>
      </form>
    </Dialog>
  );
}
