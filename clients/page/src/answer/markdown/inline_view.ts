/**
 * A text with emphasis, links and formulas in an element, as it grows. Long ones are cut into pieces,
 * and only the last is read again; where is decided by the text alone, however it arrived.
 */

import type { Definitions } from "./block_parser";
import { type InlineToken, isSettled, tokensOf } from "./inline";
import { nodeOf, textOf } from "./inline_nodes";
import { provisional } from "./provisional";

const SHORTEST_PIECE = 1_000;
const LONGEST_PIECE = 2_400;
const MOST_TRIES = 4;
const LONGEST_PART = 6_000;
const IS_TEXT = new Set(["text", "escape", "html", "pending"]);

interface Shown {
  token: InlineToken;
  node: Node;
}

/** Knows the definitions, and the views that may have to show a text again when all are known. */
export interface Surroundings {
  definitions: Definitions;
  waiting: Set<InlineView>;
}

export class InlineView {
  #text = "";
  #isOpen = true;
  #done = 0;
  #shown: Shown[] = [];
  #part: HTMLElement;
  #partLength = 0;
  #numTries = 0;
  #tried = 0;
  #numDefinitions: number;

  constructor(
    readonly element: HTMLElement,
    readonly surroundings: Surroundings,
  ) {
    this.#numDefinitions = surroundings.definitions.size;
    this.#part = element;
  }

  update(text: string, isOpen: boolean): void {
    if (text === this.#text && isOpen === this.#isOpen) return;
    if (text.length < this.#done) this.#reset();
    this.#text = text;
    this.#isOpen = isOpen;
    for (;;) {
      const end = this.#endOfPiece(text);
      if (end < 0) break;
      this.#show(tokensOf(text.slice(this.#done, end), this.surroundings.definitions));
      this.#startPiece(text, end);
    }
    this.#showRest(text.slice(this.#done), isOpen);
    if (/\][[\s]|\](?![(])/.test(text)) this.surroundings.waiting.add(this);
  }

  /** Shows the text again if addresses became known since. */
  showAgain(): void {
    if (this.#numDefinitions === this.surroundings.definitions.size) return;
    const [text, isOpen] = [this.#text, this.#isOpen];
    this.#reset();
    this.update(text, isOpen);
  }

  /** Goes on in a part of its own after a line's end: what browsers lay out again must not grow either. */
  #startPiece(text: string, end: number): void {
    const isLine = text[end] === "\n";
    this.#partLength += end - this.#done;
    if (isLine || this.#partLength > LONGEST_PART) {
      this.#part = this.element.appendChild(document.createElement("span"));
      this.#part.className = "part";
      this.#partLength = 0;
    }
    this.#done = isLine ? end + 1 : end;
    this.#shown = [];
    this.#numTries = this.#tried = 0;
  }

  #reset(): void {
    this.element.replaceChildren();
    this.#part = this.element;
    this.#partLength = this.#done = this.#numTries = this.#tried = 0;
    this.#shown = [];
    this.#text = "";
    this.#numDefinitions = this.surroundings.definitions.size;
  }

  #showRest(rest: string, isOpen: boolean): void {
    const { text, pending } = isOpen ? provisional(rest) : { text: rest, pending: "" };
    const tokens = tokensOf(text, this.surroundings.definitions);
    if (pending) tokens.push({ type: "pending", raw: pending });
    this.#show(tokens);
  }

  /** Puts the tokens where those of the unfinished piece are, and keeps what is the same. */
  #show(tokens: InlineToken[]): void {
    let place = 0;
    const shown = this.#shown;
    const isSame = (a: InlineToken, b: InlineToken) => a.type === b.type && a.raw === b.raw;
    while (place < shown.length && place < tokens.length && isSame(shown[place]!.token, tokens[place]!)) place += 1;
    const [old, grown] = [shown[place], tokens[place]];
    if (old && grown && IS_TEXT.has(grown.type) && old.node instanceof Text) {
      old.node.data = textOf(grown);
      old.token = grown;
      place += 1;
    }
    for (const each of shown.splice(place)) this.#part.removeChild(each.node);
    for (const token of tokens.slice(place)) {
      const node = nodeOf(token);
      this.#part.append(node);
      shown.push({ token, node });
    }
  }

  /** Where the next piece ends; -1 while there is too little text to say. */
  #endOfPiece(text: string): number {
    const start = this.#done;
    if (text.length < start + SHORTEST_PIECE + 2) return -1;
    const ends = /(?<=[.!?…:;)]) (?=\S)|(?<=[。！？])(?=\S)|(?<=\S)\n(?=\S)/gu;
    ends.lastIndex = Math.max(this.#tried, start + SHORTEST_PIECE);
    while (this.#numTries < MOST_TRIES) {
      const found = ends.exec(text);
      if (!found || found.index > start + LONGEST_PIECE) break;
      const end = found.index + (found[0] === " " ? 1 : 0);
      this.#numTries += 1;
      ends.lastIndex = this.#tried = end + 1;
      if (isSettled(tokensOf(text.slice(start, end), this.surroundings.definitions))) return end;
    }
    if (text.length < start + LONGEST_PIECE + 2) return -1;
    const space = text.lastIndexOf(" ", start + LONGEST_PIECE);
    const end = space > start + SHORTEST_PIECE ? space : start + LONGEST_PIECE;
    return text.codePointAt(end - 1)! > 0xffff ? end + 1 : end;
  }
}
