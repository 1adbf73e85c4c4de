/** The parts of a paragraph's text: marked's tokens, with formulas, and with elements for pairs of harmless tags. */

import { Lexer, Marked, type MarkedOptions, type Token, type Tokens } from "marked";
import type { Definitions } from "./block_parser";
import { formulaAt, formulaStart } from "./formulas";
import { work } from "./work";

/** A pair of tags around tokens. */
export interface ElementToken {
  type: "element";
  raw: string;
  name: string;
  tokens: InlineToken[];
}

export interface FormulaToken {
  type: "formula";
  raw: string;
  source: string;
  isDisplayed: boolean;
}

/** Text that is shown as it is while nobody can tell yet what it becomes. */
export interface PendingToken {
  type: "pending";
  raw: string;
}

export type InlineToken = Token | ElementToken | FormulaToken | PendingToken;

const marked = new Marked({ gfm: true, breaks: true });
marked.use({
  extensions: [
    {
      name: "formula",
      level: "inline",
      start: (text) => {
        const place = formulaStart(text);
        return place < 0 ? undefined : place;
      },
      tokenizer: (text, tokens) => {
        const before = tokens.at(-1)?.raw.at(-1) ?? "";
        const found = formulaAt(text, before);
        return found ? { type: "formula", ...found } : undefined;
      },
    },
  ],
});
const options = marked.defaults as MarkedOptions;

/** The tokens of a text. What marked cannot read is text. */
export function tokensOf(text: string, definitions: Definitions): InlineToken[] {
  work.inline += text.length;
  const lexer = new Lexer(options);
  lexer.tokens.links = definitions.links;
  try {
    return withElements(lexer.inlineTokens(text));
  } catch {
    return [{ type: "pending", raw: text }];
  }
}

const TAG = /^<(\/?)(b|i|u|s|em|strong|sub|sup|kbd|mark|small|del|ins|q|cite|var|samp)\s*>$/i;

/** Tags without attributes, and what they enclose, as elements; other tags stay what they are. */
function withElements(tokens: Token[]): InlineToken[] {
  if (!tokens.some((token) => token.type === "html")) return tokens;
  const shown: InlineToken[] = [];
  const opened: { name: string; place: number }[] = [];
  for (const token of tokens) {
    const [, slash, tag] = (token.type === "html" && TAG.exec(token.raw)) || [];
    if (token.type === "html" && /^<br\s*\/?>$/i.test(token.raw)) {
      shown.push({ type: "br", raw: token.raw });
    } else if (tag === undefined) {
      shown.push(token);
    } else if (!slash) {
      opened.push({ name: tag.toLowerCase(), place: shown.push(token) - 1 });
    } else if (opened.at(-1)?.name === tag.toLowerCase()) {
      const { name, place } = opened.pop()!;
      const inner = shown.splice(place).slice(1);
      const raw = `<${name}>${inner.map((each) => each.raw).join("")}${token.raw}`;
      shown.push({ type: "element", raw, name, tokens: inner });
    } else {
      shown.push(token);
    }
  }
  return shown;
}

/** Whether nothing in the text waits for what closes it, so that more text changes none of these tokens. */
export function isSettled(tokens: InlineToken[]): boolean {
  return tokens.every((token) => {
    if (token.type === "html") return /^<br/i.test(token.raw);
    return token.type !== "text" || !/[*_~`[\]<$\\]/.test(token.raw);
  });
}

export type { Tokens };
