/** What became of what was sent, as long as the server has not taken it. */
import { Countdown } from "../look/countdown";
import { actionFailure, dontSend, stop, submit } from "../state/composing";
import { tryNow } from "../state/connection";
import { sentence } from "../wire/errors";
import { sending } from "../state/sending";

export function SendingNotice() {
  const now = sending.value;
  if (now.state === "later") {
    return (
      <p class="notice" role="status">
        Your message is sent when this answer is complete.
        <button type="button" class="plain" onClick={dontSend}>
          Don’t send
        </button>
        <button
          type="button"
          class="plain"
          onClick={() => {
            dontSend();
            void stop().then(submit);
          }}
        >
          Stop the answer and send
        </button>
      </p>
    );
  }
  if (now.state === "busy") {
    return (
      <div class="notice warning">
        <p role="status">Not sent yet. {sentence(now.why)}</p>
        <p>
          It is tried again <Countdown until={now.retryAt} />.
          <button type="button" onClick={tryNow}>
            Try now
          </button>
          <button type="button" onClick={dontSend}>
            Stop trying
          </button>
        </p>
      </div>
    );
  }
  if (now.state === "failed") {
    return (
      <div class="notice danger" role="alert">
        <p>Not sent. {now.why}</p>
      </div>
    );
  }
  if (actionFailure.value !== null) {
    return (
      <p class="notice danger" role="alert">
        {actionFailure.value}
      </p>
    );
  }
  return null;
}
