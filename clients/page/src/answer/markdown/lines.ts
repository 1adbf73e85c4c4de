/** What a line of Markdown begins, by the rules of CommonMark and GitHub's tables. Pure. */

import type { Alignment } from "./blocks";

const TAB = 4;

/** Columns of white space before the first letter. */
export function indentationOf(line: string): number {
  let column = 0;
  for (const letter of line) {
    if (letter === " ") column += 1;
    else if (letter === "\t") column += TAB - (column % TAB);
    else break;
  }
  return column;
}

/** The line without so many columns of white space; of a tab that is cut, spaces stay. */
export function dedented(line: string, columns: number): string {
  let column = 0;
  let place = 0;
  while (column < columns && place < line.length) {
    if (line[place] === " ") column += 1;
    else if (line[place] === "\t") column += TAB - (column % TAB);
    else break;
    place += 1;
  }
  return " ".repeat(Math.max(column - columns, 0)) + line.slice(place);
}

export function isBlank(line: string): boolean {
  return !/[^ \t\r]/.test(line);
}

export function quoteIn(line: string): string | null {
  const found = /^ {0,3}>[ ]?/.exec(line);
  return found && line.slice(found[0].length);
}

export function headingIn(line: string): { depth: number; text: string } | null {
  const found = /^ {0,3}(#{1,6})(?:[ \t]+|$)/.exec(line);
  if (!found) return null;
  const text = line.slice(found[0].length).replace(/(?:^|[ \t]+)#+[ \t]*$/, "");
  return { depth: found[1]!.length, text: text.trim() };
}

/** The depth of the heading that such a line makes of the paragraph above. */
export function underlineIn(line: string): number | null {
  const found = /^ {0,3}(?:(=+)|-+)[ \t]*$/.exec(line);
  return found && (found[1] ? 1 : 2);
}

export function isRule(line: string): boolean {
  return /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/.test(line);
}

export function fenceIn(line: string): { fence: string; indentation: number; info: string } | null {
  const found = /^( {0,3})(`{3,}|~{3,})(.*)$/.exec(line);
  if (!found) return null;
  const [, spaces, fence, info] = found as unknown as [string, string, string, string];
  if (fence.startsWith("`") && info.includes("`")) return null;
  return { fence, indentation: spaces.length, info: info.trim() };
}

export function closesFence(line: string, fence: string): boolean {
  const found = /^ {0,3}(`{3,}|~{3,})[ \t]*$/.exec(line);
  return !!found && found[1]!.startsWith(fence);
}

export interface Marker {
  bullet: string;
  start: number | null;
  indentation: number;
  rest: string;
}

/** indentation: columns from the line's beginning to the item's content. */
export function markerIn(line: string): Marker | null {
  const found = /^( {0,3})(?:([*+-])|(\d{1,9})([.)]))(?=[ \t]|$)/.exec(line);
  if (!found) return null;
  const [all, , bullet, number, delimiter] = found;
  const after = line.slice(all.length);
  const spaces = indentationOf(after);
  const gap = isBlank(after) || spaces > TAB ? 1 : spaces;
  return {
    bullet: bullet ?? delimiter!,
    start: number === undefined ? null : Number(number),
    indentation: all.length + gap,
    rest: dedented(after, gap),
  };
}

const OF_BLOCKS =
  "address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|dl|dt|" +
  "fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|menu|" +
  "menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr|" +
  "track|ul";
const ATTRIBUTE = `(?:\\s+[a-zA-Z_:][\\w.:-]*(?:\\s*=\\s*(?:[^\\s"'=<>\`]+|'[^']*'|"[^"]*"))?)`;
const ANY_TAG = new RegExp(`^ {0,3}(?:<[a-zA-Z][a-zA-Z0-9-]*${ATTRIBUTE}*\\s*/?>|</[a-zA-Z][a-zA-Z0-9-]*\\s*>)\\s*$`);
const STARTS: [start: RegExp, end: RegExp | null][] = [
  [/^ {0,3}<(?:script|pre|style|textarea)(?:[\s>]|$)/i, /<\/(?:script|pre|style|textarea)>/i],
  [/^ {0,3}<!--/, /-->/],
  [/^ {0,3}<\?/, /\?>/],
  [/^ {0,3}<![a-zA-Z]/, />/],
  [/^ {0,3}<!\[CDATA\[/, /\]\]>/],
  [new RegExp(`^ {0,3}</?(?:${OF_BLOCKS})(?:\\s|/?>|$)`, "i"), null],
];

/** Whether HTML begins here, and what ends it. isAfterText: most tags do not end a paragraph. */
export function markupIn(line: string, isAfterText: boolean): { end: RegExp | null } | null {
  const known = STARTS.find(([start]) => start.test(line));
  if (known) return { end: known[1] };
  return !isAfterText && ANY_TAG.test(line) ? { end: null } : null;
}

const CLOSINGS: Record<string, string> = { $$: "$$", "\\[": "\\]" };
const ENVIRONMENT = /^ {0,3}(\\begin\{((?:equation|align|alignat|gather|multline|CD)\*?)\})/;

export interface FormulaStart {
  opening: string;
  closing: string;
  rest: string;
}

/** A formula of its own. One that ends on its line has nothing behind it. */
export function formulaIn(line: string): FormulaStart | null {
  const environment = ENVIRONMENT.exec(line);
  const found = environment ?? /^ {0,3}(\$\$|\\\[)/.exec(line);
  if (!found) return null;
  const opening = found[1]!;
  const closing = environment ? `\\end{${environment[2]}}` : CLOSINGS[opening]!;
  const rest = line.slice(found[0].length);
  const end = rest.indexOf(closing);
  return end >= 0 && !isBlank(rest.slice(end + closing.length)) ? null : { opening, closing, rest };
}

/** The texts between the bars of a table's line. */
export function cellsOf(line: string): string[] {
  const inner = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** How the columns of a table are aligned, if this is the line under its header. */
export function alignmentsIn(line: string): Alignment[] | null {
  if (!/^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/.test(line)) return null;
  if (!line.includes("|")) return null;
  return cellsOf(line).map((cell) => {
    const [isLeft, isRight] = [cell.startsWith(":"), cell.endsWith(":")];
    if (isLeft && isRight) return "center";
    return isLeft ? "left" : isRight ? "right" : null;
  });
}

const DEFINITION =
  /^ {0,3}\[((?!\^)(?:[^\]\\]|\\.)+)\]:\s*(?:<([^<>\n]*)>|(\S+))(?:[ \t]*(?:\n[ \t]*|[ \t])(?:"([^"]*)"|'([^']*)'|\(([^()]*)\)))?[ \t]*(?:\n|$)/;

export interface Definition {
  label: string;
  href: string;
  title: string | null;
  rest: string;
}

/** The address that a paragraph gives a name at its beginning, and the rest of the paragraph. */
export function definitionIn(text: string): Definition | null {
  if (!text.startsWith("[")) return null;
  const found = DEFINITION.exec(text);
  if (!found) return null;
  const [all, label, bracketed, bare, ...titles] = found;
  return {
    label: label!.trim().toLowerCase().replace(/\s+/g, " "),
    href: bracketed ?? bare!,
    title: titles.find((each) => each !== undefined) ?? null,
    rest: text.slice(all.length),
  };
}
