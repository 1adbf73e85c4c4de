/**
 * What is shown of a text that is still being said. Marks that nothing closes yet would stand there as
 * letters and then vanish: here they are closed, and half a formula stays a text of its own.
 */

const WHOLE =
  /(`+)(?!`)[^`][\s\S]*?(?<!`)\1(?!`)|\$\$(?:[^$\\]|\\[\s\S])+?\$\$|\$(?=\S)(?:[^$\\\n]|\\.)*?[^\s$\\]\$(?![\p{L}\p{N}$])|\\\([\s\S]*?\\\)|\\\[[\s\S]*?\\\]|\\[\\*_`$~]/gu;
const FORMULA = /(?<![\p{L}\p{N}$\\])(?:\$\$|\$(?![\s\d$])|\\\(|\\\[)[\s\S]{0,400}$/u;

export interface Provisional {
  text: string;
  pending: string;
}

export function provisional(text: string): Provisional {
  // As long as the text, without what is whole: places are the same in both.
  let bare = text.replace(WHOLE, (found) => "\u0000".repeat(found.length));
  const formula = bare.search(FORMULA);
  const pending = formula < 0 ? "" : text.slice(formula);
  if (formula >= 0) [text, bare] = [text.slice(0, formula), bare.slice(0, formula)];
  if (!pending) {
    const code = /(`+)([^`\n]*)$/.exec(bare);
    if (code) {
      if (!code[2]) return { text: text.slice(0, code.index), pending };
      return { text: `${text.trimEnd()}${code[1]}`, pending };
    }
    const link = /!?\[([^\][\n]{0,200})(?:\](?:\([^()\s]*)?)?$/.exec(bare);
    if (link) text = text.slice(0, link.index) + link[1]!;
    if (link) bare = bare.slice(0, link.index) + link[1]!;
  }
  const mark = pending ? null : /(?<=^|\s)[*_~]{1,3}$/.exec(bare);
  if (mark) return { text: text.slice(0, mark.index), pending };
  return { text: closed(text, bare, pending), pending };
}

function closed(text: string, bare: string, pending: string): string {
  const stars = (bare.match(/\*\*/g)?.length ?? 0) % 2 === 1;
  const star = /(?<![*\w])\*(?=[^\s*])[^*\n]*\*?$/.exec(bare.replaceAll("**", "\u0000\u0000"));
  if (!stars && !(star && !star[0].endsWith("*"))) return text;
  if (pending) return text.replace(/\*+(?=[^*]*$)/, "");
  const trimmed = text.replace(/[\s*]+$/, "");
  // Only the mark that opens was said.
  if (stars && (trimmed.match(/\*\*/g)?.length ?? 0) % 2 === 0) return trimmed;
  return `${trimmed}${stars ? "**" : "*"}`;
}
