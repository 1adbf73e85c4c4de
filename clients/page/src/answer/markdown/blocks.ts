/**
 * The blocks of a Markdown text that grows. A container keeps only children that may still change or
 * have not been shown: what is closed and shown is forgotten, so that it costs nothing any more.
 */

/** base: how many children, or rows, stood before those that are kept. */
interface Parent {
  base: number;
  children: Block[];
  isOpen: boolean;
}

export interface Root extends Parent {
  kind: "root";
}

export interface Quote extends Parent {
  kind: "quote";
}

/** bullet: the letter that tells lists apart. start: the first number; null for bullets. */
export interface List extends Parent {
  kind: "list";
  bullet: string;
  start: number | null;
  isLoose: boolean;
}

/** indentation: of its content, in columns. isDone: of a task; null for an item that is none. */
export interface Item extends Parent {
  kind: "item";
  indentation: number;
  isDone: boolean | null;
}

export interface Paragraph {
  kind: "paragraph";
  text: string;
  isOpen: boolean;
}

export interface Heading {
  kind: "heading";
  depth: number;
  text: string;
  isOpen: boolean;
}

export interface Rule {
  kind: "rule";
  isOpen: boolean;
}

/** fence: what closes it; null for code that is only indented. blanks: lines that count if more comes. */
export interface Code {
  kind: "code";
  fence: string | null;
  indentation: number;
  language: string;
  text: string;
  blanks: number;
  isOpen: boolean;
}

/** HTML that the model wrote. end: what its last line has; null: a blank line ends it. */
export interface Markup {
  kind: "markup";
  end: RegExp | null;
  text: string;
  isOpen: boolean;
}

/** opening, closing: what stands around the text of a formula. isWhole: whether the closing was said. */
export interface FormulaBlock {
  kind: "formula";
  opening: string;
  closing: string;
  text: string;
  isWhole: boolean;
  isOpen: boolean;
}

export type Alignment = "left" | "center" | "right" | null;

/** A table. Its rows are kept as children of containers are. */
export interface Table {
  kind: "table";
  alignments: Alignment[];
  header: string[];
  base: number;
  rows: string[][];
  isOpen: boolean;
}

export type Container = Root | Quote | List | Item;
export type Leaf = Paragraph | Heading | Rule | Code | Markup | FormulaBlock | Table;
export type Block = Container | Leaf;

export function isContainer(block: Block): block is Container {
  return "children" in block;
}

export function makeRoot(): Root {
  return { kind: "root", base: 0, children: [], isOpen: true };
}

/** A copy in which lines can be tried; what is closed is shared with it. */
export function copyOf<B extends Block>(block: B): B {
  if (!block.isOpen) return block;
  if (isContainer(block)) return { ...block, children: block.children.map(copyOf) };
  return block.kind === "table" ? { ...block, rows: [...block.rows] } : { ...block };
}

/** Forgets everything that is closed. To be called when it has been shown. */
export function forgetShown(block: Block): void {
  if (isContainer(block)) {
    const open = block.children.filter((child) => child.isOpen);
    block.base += block.children.length - open.length;
    block.children = open;
    for (const child of open) forgetShown(child);
  } else if (block.kind === "table") {
    block.base += block.rows.length;
    block.rows = [];
  }
}
