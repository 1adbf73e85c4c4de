/** Blocks that lines of Markdown begin and go on with, one block at a time. */

import type { Block, Code, Container, FormulaBlock, Leaf, Markup, Paragraph } from "./blocks";
import { isContainer } from "./blocks";
import * as lines from "./lines";

/** The block without blocks in it that begins, and perhaps ends, on this line. */
export function leafIn(line: string, isAfterText: boolean): Leaf | null {
  const heading = lines.headingIn(line);
  if (heading) return { kind: "heading", ...heading, isOpen: false };
  const fence = lines.fenceIn(line);
  if (fence) return code(fence.fence, fence.indentation, fence.info);
  if (lines.isRule(line)) return { kind: "rule", isOpen: false };
  const start = lines.formulaIn(line);
  if (start) {
    const { opening, closing } = start;
    const formula: FormulaBlock = { kind: "formula", opening, closing, text: "", isWhole: false, isOpen: true };
    addFormula(formula, start.rest);
    return formula;
  }
  const markup = lines.markupIn(line, isAfterText);
  if (!markup) return null;
  const block: Markup = { kind: "markup", end: markup.end, text: "", isOpen: true };
  addMarkup(block, line);
  return block;
}

/** Whether the line belongs to the code, or ends it. */
export function addCode(code: Code, line: string): boolean {
  if (code.fence !== null) {
    if (lines.closesFence(line, code.fence)) code.isOpen = false;
    else code.text += `${lines.dedented(line, code.indentation)}\n`;
    return true;
  }
  if (lines.isBlank(line)) {
    code.blanks += 1;
    return true;
  }
  if (lines.indentationOf(line) < 4) return false;
  code.text += `${"\n".repeat(code.blanks)}${lines.dedented(line, 4)}\n`;
  code.blanks = 0;
  return true;
}

/** The block without blocks in it that the next line of this container may go on with. */
export function openLeaf(parent: Container): Block | null {
  const last = parent.children.at(-1);
  return last?.isOpen && !isContainer(last) ? last : null;
}

/** What is left of a line that goes on in this container; null if it does not. */
export function restIn(container: Container, line: string): string | null {
  if (container.kind === "quote") return lines.quoteIn(line);
  if (container.kind !== "item") return line;
  if (lines.isBlank(line)) return container.base + container.children.length > 0 ? "" : null;
  const { indentation } = container;
  return lines.indentationOf(line) >= indentation ? lines.dedented(line, indentation) : null;
}

export function paragraph(text: string): Paragraph {
  return { kind: "paragraph", text, isOpen: true };
}

export function code(fence: string | null, indentation: number, language: string): Code {
  return { kind: "code", fence, indentation, language, text: "", blanks: 0, isOpen: true };
}

export function addMarkup(markup: Markup, line: string): void {
  markup.text += `${line}\n`;
  if (markup.end?.test(line)) markup.isOpen = false;
}

/** Adds a line to a formula; what stands behind its end. */
export function addFormula(formula: FormulaBlock, line: string): string {
  const end = line.indexOf(formula.closing);
  if (end < 0) {
    formula.text += `${line}\n`;
    return "";
  }
  formula.text += line.slice(0, end);
  formula.isWhole = true;
  formula.isOpen = false;
  return line.slice(end + formula.closing.length).trim();
}
