/**
 * Finds the blocks of a Markdown text line by line, so that each line costs the same however long the
 * text is. The way is CommonMark's: a line first goes down the open containers that it belongs to,
 * then begins what it begins; what is left goes on with the paragraph, or is a new one.
 */

import type { Block, Container, FormulaBlock, Item, List, Paragraph, Table } from "./blocks";
import { copyOf, isContainer, makeRoot, type Root } from "./blocks";
import { addCode, addFormula, addMarkup, code, leafIn, openLeaf, paragraph, restIn } from "./leaves";
import * as lines from "./lines";

const DEEPEST = 24;

/** Addresses by their names, for `[text][name]`; as marked wants them. */
export interface Definitions {
  links: Record<string, { href: string; title: string | null }>;
  size: number;
}

/** Where a line stands: the container that it belongs to, and what is left of it. */
interface Place {
  parent: Container;
  rest: string;
  depth: number;
  isWhole: boolean;
}

export class BlockParser {
  root: Root = makeRoot();
  definitions: Definitions = { links: Object.create(null) as Definitions["links"], size: 0 };
  #isTrial = false;
  #wasBlank = false;

  /** A parser in which a line can be tried that is not whole yet. */
  trial(): BlockParser {
    const other = new BlockParser();
    other.root = copyOf(this.root);
    other.definitions = this.definitions;
    other.#isTrial = true;
    other.#wasBlank = this.#wasBlank;
    return other;
  }

  /** Takes one line, without its end. */
  line(line: string): void {
    const place = this.#descend(line);
    const leaf = place.isWhole ? openLeaf(place.parent) : null;
    if (leaf && this.#continueRaw(leaf, place)) return;
    const isBlank = lines.isBlank(place.rest);
    if (!isBlank) {
      if (!this.#begin(place)) this.#text(place);
    } else {
      this.#closeLast(place.parent);
    }
    this.#wasBlank = isBlank;
  }

  /** There are no more lines. */
  end(): void {
    this.#closeLast(this.root);
    this.root.isOpen = false;
  }

  /** The block that the next line may go on with. */
  get leaf(): Block | null {
    let block: Block = this.root;
    while (isContainer(block)) {
      const last: Block | undefined = block.children.at(-1);
      if (!last?.isOpen) return null;
      block = last;
    }
    return block;
  }

  #descend(line: string): Place {
    const place: Place = { parent: this.root, rest: line, depth: 0, isWhole: true };
    for (;;) {
      const child = place.parent.children.at(-1);
      if (!child?.isOpen || !isContainer(child)) return place;
      const rest = restIn(child, place.rest);
      if (rest === null) {
        place.isWhole = false;
        return place;
      }
      place.parent = child;
      place.rest = rest;
      place.depth += 1;
    }
  }

  /** What takes lines as they are. Whether the line is dealt with. */
  #continueRaw(leaf: Block, place: Place): boolean {
    if (leaf.kind === "code") {
      if (leaf.fence !== null) this.#wasBlank = false;
      return addCode(leaf, place.rest);
    }
    if (leaf.kind === "formula") return this.#continueFormula(leaf, place);
    if (leaf.kind !== "markup") return false;
    if (leaf.end === null && lines.isBlank(place.rest)) return false;
    addMarkup(leaf, place.rest);
    return true;
  }

  #continueFormula(formula: FormulaBlock, place: Place): boolean {
    if (lines.isBlank(place.rest)) return false;
    const behind = addFormula(formula, place.rest);
    if (behind) this.#add(place.parent, paragraph(behind));
    return true;
  }

  /** Opens what begins on this line. Whether nothing is left of it. */
  #begin(place: Place): boolean {
    for (;;) {
      const { parent, rest } = place;
      const leaf = place.isWhole ? openLeaf(parent) : null;
      const above = leaf?.kind === "paragraph" ? leaf : null;
      if (lines.indentationOf(rest) >= 4) return this.leaf?.kind !== "paragraph" && this.#indented(place);
      if (above && this.#underline(place, above)) return true;
      const isDeep = place.depth >= DEEPEST;
      const inner = isDeep ? null : lines.quoteIn(rest);
      const block = inner === null && leafIn(rest, above !== null);
      if (block) {
        this.#add(parent, block);
        return true;
      }
      if (inner !== null) this.#enter(place, { kind: "quote", base: 0, children: [], isOpen: true }, inner);
      else if (isDeep || !this.#item(place, above !== null)) return false;
      if (lines.isBlank(place.rest)) return true;
    }
  }

  #indented(place: Place): boolean {
    this.#add(place.parent, { ...code(null, 0, ""), text: `${lines.dedented(place.rest, 4)}\n` });
    return true;
  }

  /** Makes a heading, or the header of a table, of the paragraph above. */
  #underline(place: Place, above: Paragraph): boolean {
    const { parent, rest } = place;
    const alignments = lines.alignmentsIn(rest);
    const end = above.text.lastIndexOf("\n");
    const header = alignments && lines.cellsOf(above.text.slice(end + 1));
    if (alignments && header?.length === alignments.length) {
      if (end < 0) parent.children.pop();
      else above.text = above.text.slice(0, end);
      const table: Table = { kind: "table", alignments, header, base: 0, rows: [], isOpen: true };
      this.#add(parent, table);
      return true;
    }
    const depth = lines.underlineIn(rest);
    if (depth === null) return false;
    parent.children[parent.children.length - 1] = { kind: "heading", depth, text: above.text, isOpen: false };
    return true;
  }

  #item(place: Place, isAfterText: boolean): boolean {
    const marker = lines.markerIn(place.rest);
    if (!marker) return false;
    const { bullet, start, indentation } = marker;
    const parent = place.parent;
    let list: List | null = parent.kind === "list" && parent.bullet === bullet ? parent : null;
    if (!list && isAfterText && (lines.isBlank(marker.rest) || (start ?? 1) !== 1)) return false;
    if (list) {
      this.#closeLast(list);
      if (this.#wasBlank) list.isLoose = true;
    } else {
      list = { kind: "list", bullet, start, isLoose: false, base: 0, children: [], isOpen: true };
      this.#add(parent, list);
    }
    const task = /^\[([ xX])\][ \t]+(?=\S)/.exec(marker.rest);
    const isDone = task ? task[1] !== " " : null;
    const item: Item = { kind: "item", indentation, isDone, base: 0, children: [], isOpen: true };
    list.children.push(item);
    Object.assign(place, { parent: item, rest: marker.rest.slice(task?.[0].length ?? 0), isWhole: true });
    place.depth += 2;
    this.#wasBlank = false;
    return true;
  }

  #text(place: Place): void {
    const leaf = this.leaf;
    const own = place.isWhole ? openLeaf(place.parent) : null;
    if (own?.kind === "table") {
      const cells = lines.cellsOf(place.rest);
      own.rows.push(own.header.map((_, column) => cells[column] ?? ""));
    } else if (leaf?.kind === "paragraph" && (own === leaf || !place.isWhole)) {
      leaf.text += `\n${place.rest.trimStart()}`;
    } else {
      this.#add(place.parent, paragraph(place.rest.trimStart()));
    }
  }

  #enter(place: Place, container: Container, rest: string): void {
    this.#add(place.parent, container);
    Object.assign(place, { parent: container, rest, isWhole: true });
    place.depth += 1;
    this.#wasBlank = false;
  }

  #add(parent: Container, block: Block): void {
    if (parent.kind === "list") {
      // What is no item of a list ends it.
      this.#add(this.#parentOf(parent), block);
      return;
    }
    this.#closeLast(parent);
    if (parent.kind === "item" && this.#wasBlank && parent.base + parent.children.length > 0) {
      const list = this.#parentOf(parent);
      if (list.kind === "list") list.isLoose = true;
    }
    parent.children.push(block);
  }

  #parentOf(container: Container): Container {
    let block: Container = this.root;
    for (;;) {
      const last: Block | undefined = block.children.at(-1);
      if (!last || !isContainer(last) || last === container) return block;
      block = last;
    }
  }

  #closeLast(parent: Container): void {
    const last = parent.children.at(-1);
    if (!last?.isOpen) return;
    if (isContainer(last)) this.#closeLast(last);
    if (last.kind === "formula" && !last.isWhole) {
      const { opening, text } = last;
      parent.children[parent.children.length - 1] = { ...paragraph((opening + text).trimEnd()), isOpen: false };
    }
    if (last.kind === "paragraph") last.text = this.#defined(last.text).trimEnd();
    last.isOpen = false;
  }

  /** The paragraph without the definitions at its beginning, which are remembered. */
  #defined(text: string): string {
    for (let found = lines.definitionIn(text); found; found = lines.definitionIn(text)) {
      const { label, href, title, rest } = found;
      if (!this.#isTrial && !(label in this.definitions.links)) {
        this.definitions.links[label] = { href, title };
        this.definitions.size += 1;
      }
      text = rest;
    }
    return text;
  }
}
