/** What the model answered: its items as they grow, how it stands or ended, and what can be done. */
import { useMemo } from "preact/hooks";
import { Answer } from "../answer/answer";
import { CopyAnswer } from "../answer/copy_answer";
import { Again, Onward } from "../look/icons";
import { memo } from "../look/memo";
import { answerAgain, answerOn } from "../state/composing";
import type { LiveAnswer, Shown } from "../state/live";
import { isRunning, partsText, withOutputs } from "../state/texts";
import { sentence } from "../wire/errors";
import type { Message, OutputItem } from "../wire/types";
import { Facts } from "./facts";
import { Versions } from "./versions";

interface Props {
  message: Message;
  live: LiveAnswer | null;
  /** What tools gave to its calls. */
  outputs: OutputItem[];
  isLocked: boolean;
}

export const Reply = memo(({ message, live, outputs, isLocked }: Props) => {
  const now = live ? live.shown.value : shownOf(message);
  const running = isRunning(now.status);
  const items = useMemo(() => withOutputs(now.items, outputs), [now.items, outputs]);
  return (
    <article
      data-role="assistant"
      data-id={message.response_id}
      data-status={now.status}
      aria-label="Answer"
      aria-busy={running}
    >
      {running && <Progress now={now} isInQueue={message.timing?.queue_seconds === null} />}
      <Answer items={items} isRunning={running} timing={message.timing ?? null} />
      {!running && <Ending now={now} />}
      {!running && (
        <footer>
          <Versions
            versions={message.versions}
            shown={message.response_id}
            what="answer"
            isLocked={isLocked}
          />
          {canGoOn(now) && (
            <button
              type="button"
              class="plain"
              disabled={isLocked}
              onClick={() => void answerOn(message.response_id)}
            >
              <Onward /> Continue
            </button>
          )}
          <button
            type="button"
            class="plain icon"
            aria-label="Answer again"
            title="Answer again"
            disabled={isLocked}
            onClick={() => void answerAgain(message.response_id)}
          >
            <Again />
          </button>
          <CopyAnswer items={now.items} />
          <Facts usage={now.usage} timing={message.timing ?? null} />
        </footer>
      )}
    </article>
  );
});

function shownOf(message: Message): Shown {
  const { items, status, usage, error } = message;
  return { items, status: status ?? "completed", position: null, usage, error };
}

/** Whether the server can go on with it: it was cut, however, in something that it said. */
function canGoOn({ status, items }: Shown): boolean {
  if (isRunning(status) || status === "completed") return false;
  const said = items.filter((item) => item.type === "message" || item.type === "reasoning");
  return said.length === items.length && said.some((item) => partsText(item.content).trim() !== "");
}

/** isInQueue: whether the engine has not begun with it, as far as is known. */
function Progress({ now, isInQueue }: { now: Shown; isInQueue: boolean }) {
  if (now.position !== null) {
    const place = now.position === 1 ? "next" : `place ${now.position}`;
    return <p class="progress quiet">Waiting in the queue: {place}</p>;
  }
  if (now.items.length) return null;
  return <p class="progress quiet">{isInQueue ? "Waiting in the queue" : "Reading"}</p>;
}

function Ending({ now }: { now: Shown }) {
  if (now.status === "failed") {
    const why = now.error ? sentence(now.error.message) : "It is not known why.";
    const kept = now.items.length ? " What was said until then is kept." : "";
    return (
      <p class="notice danger" role="note">
        This answer failed. {why}
        {kept}
      </p>
    );
  }
  if (now.status === "cancelled")
    return (
      <p class="quiet" role="note">
        Stopped.
      </p>
    );
  if (now.status === "incomplete") {
    return (
      <p class="quiet" role="note">
        Cut off: it came to its limit of tokens.
      </p>
    );
  }
  return null;
}
