/** Says when the server does not answer, and when it is tried again. */
import { Countdown } from "../look/countdown";
import { lost, tryNow } from "../state/connection";

export function Banner() {
  const now = lost.value;
  if (now === null) return null;
  return (
    <div class="notice warning banner">
      <span role="status">{now.why} What was said is kept.</span>
      <span>
        It is asked again <Countdown until={now.retryAt} />.
        <button type="button" onClick={tryNow}>
          Try now
        </button>
      </span>
    </div>
  );
}
