/**
 * A block of code as it grows: in pieces of some dozen lines, of which only the last is coloured again,
 * and that only when a line is whole. A piece ends where no text or comment of the language is open.
 */

import { copyButton } from "../copying";
import type { Code } from "./blocks";
import { highlighted, languageNamed } from "./highlighting";

const LINES = 40;
const STEP = 8;
const MOST_LINES = 200;

export class CodeView {
  readonly kind = "code";
  readonly element = document.createElement("figure");
  #code = document.createElement("code");
  #label = document.createElement("span");
  #box = document.createElement("pre");
  #piece = document.createElement("span");
  #rest = document.createTextNode("");
  #language: string | null = null;
  #info = "";
  #text = "";
  #done = 0;
  #numColoured = -1;
  #numTried = 0;

  constructor() {
    this.element.className = "code";
    const head = document.createElement("figcaption");
    head.append(this.#label, copyButton("Copy code", () => this.#text));
    this.#box.tabIndex = 0;
    this.#box.append(this.#code);
    this.element.append(head, this.#box);
    this.#startPiece();
  }

  update(code: Code): void {
    if (code.language !== this.#info || code.text.length < this.#done) this.#restart(code.language);
    this.#text = code.text.replace(/\n$/, "");
    for (;;) {
      const end = this.#endOfPiece(code.text);
      if (end < 0) break;
      this.#colour(code.text.slice(this.#done, end));
      this.#done = end;
      this.#startPiece();
    }
    this.#showRest(code.text.slice(this.#done), code.isOpen);
  }

  #restart(info: string): void {
    this.#info = info;
    this.#language = languageNamed(info);
    this.#label.textContent = info.split(/[\s,{]/, 1)[0]!.slice(0, 40);
    this.#code.replaceChildren();
    this.#done = 0;
    this.#startPiece();
  }

  #startPiece(): void {
    this.#piece = document.createElement("span");
    this.#rest = document.createTextNode("");
    this.#numColoured = -1;
    this.#numTried = 0;
    this.#piece.append(this.#rest);
    this.#code.append(this.#piece);
  }

  #colour(text: string): void {
    this.#piece.replaceChildren(...highlighted(text, this.#language).nodes);
  }

  /** Colours whole lines when there is one more; the last line stays plain while it grows. */
  #showRest(rest: string, isOpen: boolean): void {
    if (!isOpen) {
      this.#colour(rest);
      this.#numColoured = -1;
      return;
    }
    const end = rest.lastIndexOf("\n", rest.length - 2) + 1;
    if (end !== this.#numColoured) {
      this.#numColoured = end;
      this.#rest = document.createTextNode("");
      this.#colour(rest.slice(0, end));
      this.#piece.append(this.#rest);
    }
    this.#rest.data = rest.slice(end);
  }

  /** Where the next piece ends; -1 while there are too few lines to say. */
  #endOfPiece(text: string): number {
    let end = this.#done;
    for (let line = 1; line <= MOST_LINES; line += 1) {
      end = text.indexOf("\n", end) + 1;
      // The last line may not be whole.
      if (end === 0 || end === text.length) return -1;
      if (line < LINES || (line - LINES) % STEP !== 0 || line <= this.#numTried) continue;
      this.#numTried = line;
      if (line === MOST_LINES || highlighted(text.slice(this.#done, end), this.#language).isSettled) return end;
    }
    return -1;
  }
}
