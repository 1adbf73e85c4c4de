/** The elements of blocks. A view is given its block again whenever that may have changed. */

import type { Block, Container, FormulaBlock, Heading, Item, List, Markup, Paragraph } from "./blocks";
import { isContainer } from "./blocks";
import { CodeView } from "./code_view";
import { formulaElement } from "./formulas";
import { InlineView, type Surroundings } from "./inline_view";
import { harmlessMarkup } from "./sanitised";
import { TableView } from "./table_view";

const LONGEST_MARKUP = 50_000;

interface BlockView {
  readonly element: HTMLElement;
  update(block: Block): void;
}

/** isFinal: whether the block was closed when it was shown, so that it is as it will be. */
interface Shown {
  view: BlockView;
  block: Block;
  isFinal: boolean;
}

/** Blocks in an element, the last of which may still change. */
export class ContainerView implements BlockView {
  #base = 0;
  #shown: Shown[] = [];

  constructor(
    readonly element: HTMLElement,
    readonly surroundings: Surroundings,
  ) {}

  update(block: Block): void {
    const container = block as Container;
    if (container.kind === "list") this.element.classList.toggle("loose", container.isLoose);
    this.#shown.splice(0, container.base - this.#base);
    this.#base = container.base;
    container.children.forEach((child, place) => this.#showChild(child, place));
    for (const { view } of this.#shown.splice(container.children.length)) view.element.remove();
  }

  #showChild(child: Block, place: number): void {
    const old = this.#shown[place];
    if (old?.isFinal && old.block === child) return;
    if (old && isAlike(old.block, child)) {
      old.view.update(child);
      Object.assign(old, { block: child, isFinal: !child.isOpen });
      return;
    }
    const view = viewOf(child, this.surroundings);
    view.update(child);
    if (old) old.view.element.replaceWith(view.element);
    else this.element.append(view.element);
    this.#shown[place] = { view, block: child, isFinal: !child.isOpen };
  }
}

/** Whether the element of one can become that of the other. */
function isAlike(old: Block, block: Block): boolean {
  if (old.kind === "heading") return block.kind === "heading" && old.depth === block.depth;
  if (old.kind === "list") return block.kind === "list" && old.start === block.start && old.bullet === block.bullet;
  if (old.kind === "item") return block.kind === "item" && old.isDone === block.isDone;
  return old.kind === block.kind;
}

function viewOf(block: Block, surroundings: Surroundings): BlockView {
  if (isContainer(block)) return new ContainerView(containerElement(block), surroundings);
  if (block.kind === "heading" || block.kind === "paragraph") return new TextView(block, surroundings);
  if (block.kind === "code") return new CodeView();
  if (block.kind === "table") return new TableView(surroundings);
  if (block.kind === "formula") return new FormulaView();
  if (block.kind === "markup") return new MarkupView();
  return { element: document.createElement("hr"), update: () => undefined };
}

function containerElement(block: Container): HTMLElement {
  if (block.kind === "list") return listElement(block);
  if (block.kind === "item") return itemElement(block);
  return document.createElement(block.kind === "quote" ? "blockquote" : "div");
}

function listElement(list: List): HTMLElement {
  if (list.start === null) return document.createElement("ul");
  const element = document.createElement("ol");
  if (list.start !== 1) element.start = list.start;
  return element;
}

function itemElement(item: Item): HTMLElement {
  const element = document.createElement("li");
  if (item.isDone === null) return element;
  const box = document.createElement("span");
  box.className = item.isDone ? "task done" : "task";
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", item.isDone ? "Done" : "To do");
  element.className = "with-task";
  element.append(box);
  return element;
}

class TextView implements BlockView {
  readonly element: HTMLElement;
  #inline: InlineView;

  constructor(block: Paragraph | Heading, surroundings: Surroundings) {
    // The page's own headings come above those of an answer.
    const depth = block.kind === "heading" ? Math.min(block.depth + 2, 6) : 0;
    this.element = document.createElement(depth ? `h${depth}` : "p");
    this.#inline = new InlineView(this.element, surroundings);
  }

  update(block: Block): void {
    const { text, isOpen } = block as Paragraph | Heading;
    this.element.hidden = !text;
    this.#inline.update(text, isOpen);
  }
}

class FormulaView implements BlockView {
  readonly element = document.createElement("div");

  update(block: Block): void {
    const { opening, closing, text, isWhole } = block as FormulaBlock;
    this.element.className = isWhole ? "formula-block" : "formula-block pending";
    const isNamed = opening.startsWith("\\begin");
    const raw = `${opening}${text}${isWhole ? closing : ""}`;
    if (isWhole) this.element.replaceChildren(formulaElement(isNamed ? raw : text.trim(), true, raw));
    else this.element.textContent = raw;
  }
}

/** HTML as it was written, until it is whole: then it may be shown as HTML. */
class MarkupView implements BlockView {
  readonly element = document.createElement("div");
  #text = document.createTextNode("");

  update(block: Block): void {
    const { text, isOpen } = block as Markup;
    const elements = isOpen || text.length > LONGEST_MARKUP ? null : harmlessMarkup(text);
    this.element.className = elements ? "markup" : "markup source";
    this.#text.data = text.trimEnd();
    this.element.replaceChildren(elements ?? this.#text);
  }
}
