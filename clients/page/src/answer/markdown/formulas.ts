/** Formulas: where they stand in a text, and KaTeX's MathML for them. */

import katex from "katex";
import { mathElements } from "./sanitised";
import { work } from "./work";

const LONGEST = 4_000;
const REMEMBERED = 400;

export interface Formula {
  raw: string;
  source: string;
  isDisplayed: boolean;
}

// A dollar before a space or after a word is money, and so is one that a digit or letter follows where it would close.
const FORMS: [pattern: RegExp, isDisplayed: boolean][] = [
  [/^\$\$((?:[^$\\]|\\[\s\S]){1,4000}?)\$\$/, true],
  [/^\$((?:[^$\\\n\s]|\\.)(?:(?:[^$\\\n]|\\.){0,1000}?(?:[^$\\\n\s]|\\.))?)\$(?![\p{L}\p{N}$])/u, false],
  [/^\\\(([\s\S]{1,4000}?)\\\)/, false],
  [/^\\\[([\s\S]{1,4000}?)\\\]/, true],
];

/** The place of what may be a formula's beginning, or -1. */
export function formulaStart(text: string): number {
  return text.search(/\$|\\[([]/);
}

/** The formula with which the text begins. before: the letter in front of it. */
export function formulaAt(text: string, before: string): Formula | null {
  if (text.startsWith("$") && /[\p{L}\p{N}$\\]/u.test(before)) return null;
  for (const [pattern, isDisplayed] of FORMS) {
    const found = pattern.exec(text);
    if (found) return { raw: found[0], source: found[1]!, isDisplayed };
  }
  return null;
}

const made = new Map<string, DocumentFragment | null>();

function mathOf(source: string, isDisplayed: boolean): DocumentFragment | null {
  work.formulas += source.length;
  try {
    const html = katex.renderToString(source, {
      displayMode: isDisplayed,
      output: "mathml",
      throwOnError: true,
      strict: "ignore",
      trust: false,
      maxSize: 40,
      maxExpand: 500,
    });
    return mathElements(html);
  } catch {
    return null;
  }
}

/** An element with the formula, or with its source where that is none. */
export function formulaElement(source: string, isDisplayed: boolean, raw: string): HTMLElement {
  const element = document.createElement("span");
  element.className = isDisplayed ? "formula displayed" : "formula";
  const key = `${isDisplayed}${source}`;
  let math = made.get(key);
  if (math === undefined) {
    math = source.length > LONGEST ? null : mathOf(source, isDisplayed);
    if (made.size >= REMEMBERED) made.clear();
    made.set(key, math);
  }
  if (math) {
    element.append(math.cloneNode(true));
  } else {
    element.classList.add("unread");
    element.textContent = raw;
  }
  return element;
}
