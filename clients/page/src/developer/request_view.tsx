import { useEffect, useId, useRef, useState } from "preact/hooks";
import { CodeView } from "../answer/markdown/code_view";
import type { Program } from "./programs";

interface RequestViewProps {
  programs: Program[];
  hasKey: boolean;
}

/** The chat's request as one of several programs. */
export function RequestView({ programs, hasKey }: RequestViewProps) {
  const id = useId();
  const [chosen, setChosen] = useState(0);
  const program = programs[chosen]!;
  return (
    <section class="field">
      <label for={id}>The request</label>
      <select id={id} value={String(chosen)} onChange={(event) => setChosen(Number(event.currentTarget.value))}>
        {programs.map(({ name }, place) => <option key={name} value={String(place)}>{name}</option>)}
      </select>
      <ProgramText key={program.name} program={program} />
      <span class="quiet">
        What is typed, or the last question once more, after all that was said before it, with all settings.
        {hasKey && " The key is read from the variable MILLSTREAM_API_KEY."}
      </span>
    </section>
  );
}

function ProgramText({ program: { language, text } }: { program: Program }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const view = new CodeView();
    view.update({ kind: "code", fence: null, indentation: 0, blanks: 0, isOpen: false, language, text });
    place.current!.replaceChildren(view.element);
  }, [language, text]);
  return <div class="markdown" ref={place} />;
}
