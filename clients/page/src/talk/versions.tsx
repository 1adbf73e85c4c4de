/** Which version of a turn is shown, and arrows to the others. */
import { Left, Right } from "../look/icons";
import { attempt } from "../state/composing";
import { change } from "../state/open";

interface Props {
  versions: string[];
  shown: string;
  what: "question" | "answer";
  isLocked: boolean;
}

export function Versions({ versions, shown, what, isLocked }: Props) {
  const place = versions.indexOf(shown);
  if (versions.length < 2 || place < 0) return null;
  const go = (step: number) => {
    const leaf = versions[place + step];
    if (leaf === undefined) return;
    void attempt("The other version could not be shown.", () => change({ leaf })).then(() =>
      requestAnimationFrame(() => focusArrow(leaf, what, step)),
    );
  };
  return (
    <span class="versions" data-what={what}>
      <button
        type="button"
        class="plain icon"
        aria-label={`Previous version of this ${what}`}
        title={`Previous version of this ${what}`}
        disabled={isLocked || place === 0}
        data-step={-1}
        onClick={() => go(-1)}
      >
        <Left />
      </button>
      <span class="quiet">
        <span class="for-readers">Version </span>
        {place + 1}
        <span aria-hidden="true"> / </span>
        <span class="for-readers"> of </span>
        {versions.length}
      </span>
      <button
        type="button"
        class="plain icon"
        aria-label={`Next version of this ${what}`}
        title={`Next version of this ${what}`}
        disabled={isLocked || place === versions.length - 1}
        data-step={1}
        onClick={() => go(1)}
      >
        <Right />
      </button>
    </span>
  );
}

/** The arrow that was pressed is another version's now; at the last one, the arrow back has the focus. */
function focusArrow(leaf: string, what: string, step: number): void {
  const place = `article[data-id="${CSS.escape(leaf)}"] .versions[data-what="${what}"] button`;
  const same = document.querySelector<HTMLElement>(`${place}[data-step="${step}"]:not(:disabled)`);
  const other = document.querySelector<HTMLElement>(`${place}:not(:disabled)`);
  (same ?? other)?.focus();
}
