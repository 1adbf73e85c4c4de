/** The nodes of a paragraph's tokens. Every element and attribute here is named by this page. */

import { safeAddress } from "./addresses";
import { formulaElement } from "./formulas";
import type { ElementToken, FormulaToken, InlineToken, Tokens } from "./inline";
import { withoutEntities } from "./sanitised";

/** A node for one token. */
export function nodeOf(token: InlineToken): Node {
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return filled(document.createElement(token.type), tokensIn(token));
    case "element":
      return filled(document.createElement((token as ElementToken).name), tokensIn(token));
    case "codespan":
      return withText("code", (token as Tokens.Codespan).text);
    case "br":
      return document.createElement("br");
    case "link":
      return linkNode(token as Tokens.Link);
    case "image":
      return pictureNode(token as Tokens.Image);
    case "formula":
      return formulaNode(token as FormulaToken);
    default:
      return document.createTextNode(textOf(token));
  }
}

/** The text of a token that is shown as a text alone. */
export function textOf(token: InlineToken): string {
  if (token.type === "text") return withoutEntities((token as Tokens.Text).text);
  return token.type === "escape" ? (token as Tokens.Escape).text : token.raw;
}

function tokensIn(token: InlineToken): InlineToken[] {
  return (token as { tokens?: InlineToken[] }).tokens ?? [];
}

function filled(element: HTMLElement, tokens: InlineToken[]): HTMLElement {
  element.append(...tokens.map(nodeOf));
  return element;
}

function withText(name: string, text: string): HTMLElement {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function anchor(address: string, title: string | null | undefined): HTMLAnchorElement {
  const element = document.createElement("a");
  element.href = address;
  element.rel = "noopener noreferrer";
  element.target = "_blank";
  if (title) element.title = withoutEntities(title);
  return element;
}

function linkNode(token: Tokens.Link): Node {
  const address = safeAddress(token.autolink ? token.href : withoutEntities(token.href));
  if (address === null) return document.createTextNode(token.raw);
  return filled(anchor(address, token.title), token.tokens);
}

/** A picture is never loaded: whoever wants to see it follows the link. */
function pictureNode(token: Tokens.Image): Node {
  const address = safeAddress(withoutEntities(token.href));
  const element = address === null ? document.createElement("span") : anchor(address, token.title);
  element.classList.add("picture");
  element.textContent = withoutEntities(token.text) || "Picture";
  return element;
}

function formulaNode(token: FormulaToken): Node {
  return formulaElement(token.source, token.isDisplayed, token.raw);
}
