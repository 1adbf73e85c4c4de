/**
 * Markdown that grows, in an element: each line is read once, and only what may still change is shown
 * again. What is shown at the end depends on the text alone, and not on how it arrived.
 */

import { BlockParser } from "./block_parser";
import { ContainerView } from "./block_views";
import { type Block, type Container, forgetShown, isContainer, type Root } from "./blocks";
import type { Surroundings } from "./inline_view";

/** What may become the mark of a block, or already is one that is not whole. */
const MARKS = /^[\s>#*+\-=_`~|:$\\\d.)[\]]{0,60}$/;
const BEGUN = /^[\s>*+\-\d.)]*(?:`{3}|~{3}|\||<[^>]{0,100}$|\\begin)/;

export class MarkdownView {
  #parser = new BlockParser();
  #partial = "";
  #text = "";
  #isEnded = false;
  #surroundings: Surroundings = { definitions: this.#parser.definitions, waiting: new Set() };
  #view: ContainerView;

  constructor(readonly element: HTMLElement) {
    this.#view = new ContainerView(element, this.#surroundings);
  }

  /** Shows the text, which is mostly the one before and some more. */
  update(text: string, isRunning: boolean): void {
    if (text === this.#text && isRunning !== this.#isEnded) return;
    if (this.#isEnded || !text.startsWith(this.#text)) this.#restart();
    const more = text.slice(this.#text.length);
    this.#text = text;
    this.#read(more);
    if (isRunning) this.#showRunning();
    else this.#showWhole();
    forgetShown(this.#parser.root);
  }

  #restart(): void {
    this.element.replaceChildren();
    this.#parser = new BlockParser();
    this.#surroundings = { definitions: this.#parser.definitions, waiting: new Set() };
    this.#view = new ContainerView(this.element, this.#surroundings);
    this.#text = this.#partial = "";
    this.#isEnded = false;
  }

  #read(more: string): void {
    let start = 0;
    for (let end = more.indexOf("\n"); end >= 0; end = more.indexOf("\n", start)) {
      this.#parser.line((this.#partial + more.slice(start, end)).replace(/\r$/, ""));
      this.#partial = "";
      start = end + 1;
    }
    this.#partial += more.slice(start);
  }

  #showRunning(): void {
    if (this.#isHeldBack()) {
      this.#view.update(withoutTableHeader(this.#parser, this.#parser.root));
      return;
    }
    const trial = this.#parser.trial();
    trial.line(this.#partial);
    this.#view.update(withoutTableHeader(trial, trial.root));
  }

  #showWhole(): void {
    if (this.#partial) this.#parser.line(this.#partial.replace(/\r$/, ""));
    this.#partial = "";
    this.#parser.end();
    this.#isEnded = true;
    this.#view.update(this.#parser.root);
    for (const view of this.#surroundings.waiting) view.showAgain();
    this.#surroundings.waiting.clear();
  }

  /** Whether nobody can say yet what the line that has begun will be. */
  #isHeldBack(): boolean {
    const leaf = this.#parser.leaf;
    if (leaf?.kind === "code" && leaf.fence !== null) return /^[\s>]*[`~]*$/.test(this.#partial);
    if (leaf?.kind === "table") return MARKS.test(this.#partial);
    return MARKS.test(this.#partial) || BEGUN.test(this.#partial);
  }
}

/** The blocks without a line that is the header of a table if the next line says so. */
function withoutTableHeader(parser: BlockParser, root: Root): Root {
  const leaf = parser.leaf;
  if (leaf?.kind !== "paragraph") return root;
  const end = leaf.text.lastIndexOf("\n");
  if (!leaf.text.startsWith("|", end + 1)) return root;
  return replaced(root, leaf, end < 0 ? [] : [{ ...leaf, text: leaf.text.slice(0, end) }]) as Root;
}

function replaced(container: Container, leaf: Block, by: Block[]): Container {
  const last = container.children.at(-1)!;
  const inner = isContainer(last) ? [replaced(last, leaf, by)] : last === leaf ? by : [last];
  return { ...container, children: [...container.children.slice(0, -1), ...inner] };
}
