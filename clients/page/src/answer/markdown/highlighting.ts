/** Code in colours, by highlight.js. */

import highlighter from "highlight.js/lib/common";
import { work } from "./work";

const LONGEST = 40_000;

/** The language that the word behind a fence names, if it is known. */
export function languageNamed(info: string): string | null {
  const name = info.split(/[\s,{:]/, 1)[0]!.toLowerCase();
  return name && highlighter.getLanguage(name) ? name : null;
}

export interface Highlighted {
  nodes: Node[];
  /** Whether the code ends outside of texts, comments and whatever else goes over many lines. */
  isSettled: boolean;
}

/** Spans for a piece of code; plain text without a language. */
export function highlighted(code: string, language: string | null): Highlighted {
  if (language === null || code.length > LONGEST) {
    return { nodes: [document.createTextNode(code)], isSettled: true };
  }
  work.highlighted += code.length;
  const result = highlighter.highlight(code, { language, ignoreIllegals: true });
  return { nodes: nodesOf(result.value), isSettled: !result._top || !("parent" in result._top) };
}

const LETTERS: Record<string, string> = {
  "&amp;": "&",
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&#x27;": "'",
};

/** highlight.js writes spans with classes, and texts with five letters named: this reads no more than that. */
function nodesOf(value: string): Node[] {
  const top = document.createDocumentFragment();
  const open: Node[] = [top];
  for (const [, classes, end, text] of value.matchAll(/<span class="([^"]*)">|(<\/span>)|([^<]+)/g)) {
    const parent = open.at(-1)!;
    if (end) {
      open.pop();
    } else if (text !== undefined) {
      parent.appendChild(document.createTextNode(text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (name) => LETTERS[name]!)));
    } else {
      const span = document.createElement("span");
      span.className = classes!;
      open.push(parent.appendChild(span));
    }
  }
  return [...top.childNodes];
}
